"""Langfuse: traces, observations and scores, as its API and its exports write them.

A trace may carry its observations and scores, or each kind stands in rows (and files) of its own; names are camel case
(API, export from the page) or snake case (export to blob storage). What an observation took and gave is whatever the
application logged, so it is read as any body of a model is.
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError
from cm2.imports.bodies import tokens_of
from cm2.imports.fields import names
from cm2.imports.notes import Place
from cm2.imports.otel import ran
from cm2.imports.schemas import read_tools
from cm2.imports.text import as_dict, as_id, as_list, as_text, unpacked
from cm2.imports.work import Kind, Score, Work, plain_score, seconds

_KINDS: dict[str, Kind] = {"GENERATION": "llm", "TOOL": "tool", "AGENT": "agent", "SPAN": "agent", "CHAIN": "agent"}
_TYPES = names("langfuse", "types")
_TAKEN = names("langfuse", "taken")
_BOOKKEEPING = names("langfuse", "left")


def get(value: dict[str, Any], name: str) -> Any:
    """A field by its camel case name, or by the same in snake case."""
    if value.get(name) is not None:
        return value[name]
    return value.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))


def is_observation(value: dict[str, Any]) -> bool:
    """Whether an object is an observation."""
    kind = value.get("type")
    return isinstance(kind, str) and kind.upper() in _TYPES and get(value, "startTime") is not None and "id" in value


def is_score(value: dict[str, Any]) -> bool:
    """Whether an object is a score."""
    told = get(value, "dataType") is not None or get(value, "observationId") is not None or "source" in value
    return (
        "name" in value and ("value" in value or "stringValue" in value) and get(value, "traceId") is not None and told
    )


def is_trace(value: dict[str, Any]) -> bool:
    """Whether an object is a trace."""
    if isinstance(value.get("observations"), list) and "id" in value:
        return True
    marks = sum(
        key in value for key in ("timestamp", "sessionId", "session_id", "htmlPath", "userId", "user_id", "release")
    )
    return "id" in value and "timestamp" in value and marks >= 2 and ("input" in value or "output" in value)


def trace_of(value: dict[str, Any]) -> str:
    """The id of the trace that a record belongs to."""
    return as_text(get(value, "traceId")) or ("" if is_observation(value) else as_text(value.get("id")))


def session_of(value: dict[str, Any]) -> str | None:
    """The session that a record says it belongs to."""
    return as_id(get(value, "sessionId"))


def read_trace(value: dict[str, Any]) -> list[Work]:
    """A trace and the observations that it carries."""
    id = as_text(value.get("id"))
    found = [one for one in as_list(value.get("observations")) if isinstance(one, dict)]
    work = Work("agent", f"trace {id}", None, id, as_text(value.get("name")), seconds(value.get("timestamp")))
    work.session, work.user = session_of(value), as_id(get(value, "userId"))
    work.request, work.response = value.get("input"), value.get("output")
    scores = [one for one in as_list(value.get("scores")) if isinstance(one, dict)]
    work.scores = [score for one in scores if (score := read_score(one)) is not None]
    _rest(value, Place(work.notes, "trace"))
    return [work, *(read_observation({"traceId": id, **one}) for one in found)]


def read_observation(value: dict[str, Any]) -> Work:
    """An observation."""
    id, parent = as_text(value.get("id")), as_id(get(value, "parentObservationId"))
    work = Work(_KINDS.get(as_text(value.get("type")).upper(), "other"), id, parent, trace_of(value))
    work.name = as_text(value.get("name"))
    work.start, work.end = seconds(get(value, "startTime")), seconds(get(value, "endTime"))
    work.session, work.user = session_of(value), as_id(get(value, "userId"))
    status = as_text(get(value, "statusMessage"))
    work.error = status if as_text(value.get("level")).upper() == "ERROR" else None
    place = Place(work.notes, f"observation[{id}]")
    request, response = unpacked(value.get("input")), unpacked(value.get("output"))
    if work.kind == "llm":
        if request is None and response is None:
            work.silent = True
        else:
            exchange = work.read(request, response, (f"{place.path}.input", f"{place.path}.output"))
            if exchange is not None:
                exchange.model = as_text(value.get("model")) or exchange.model
                exchange.tokens = tokens_of(get(value, "usageDetails") or value.get("usage")) or exchange.tokens
                listed = as_dict(unpacked(value.get("metadata"))).get("tools")
                if listed and not exchange.tools:
                    exchange.tools = read_tools(listed, place.at("metadata.tools"))
    elif work.kind == "tool":
        work.ran = ran(work.name, request, response, work.error, place)
    elif work.kind == "agent":
        work.request, work.response = request, response
    _rest(value, place)
    return work


def _rest(value: dict[str, Any], place: Place) -> None:
    place.keep("metadata", unpacked(value.get("metadata")))
    place.rest(value, _TAKEN, _BOOKKEEPING)


def read_score(value: dict[str, Any]) -> Score | None:
    """A score; None where it has no value."""
    text, number = get(value, "stringValue"), value.get("value")
    kind = as_text(get(value, "dataType")).upper()
    found = plain_score(text, number) if kind in ("CATEGORICAL", "TEXT", "CORRECTION") else plain_score(number, text)
    if kind == "BOOLEAN" and found in (0, 1):
        found = bool(found)
    if found is None:
        return None
    span = as_id(get(value, "observationId"))
    return Score(as_text(value.get("name")) or "score", found, span, as_text(value.get("comment")) or None)


def check_trace(value: dict[str, Any]) -> None:
    """Make sure that a record says to which trace it belongs.

    Raises:
        DataError: it does not.
    """
    if not trace_of(value) and not (is_score(value) and session_of(value)):
        raise DataError("the record names no trace")
