"""Groups: which records belong together, and the dialogues that a group of them is.

A record is a dialogue of its own (`Own`), a piece of a trace (`Piece`), or beside the matter (`Aside`), with a reason.
A piece names its trace; it may name the session that its trace belongs to, or only the span that it is about.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cm2.errors import DataError
from cm2.formats.jsonlines import encode
from cm2.imports import chat_rows, datasets, inspect_ai, langfuse, langsmith, mcp, openinference, otel, tau
from cm2.imports.bodies import Exchange
from cm2.imports.detect import CHAT, is_annotation, speaks
from cm2.imports.draft import Draft
from cm2.imports.notes import Place
from cm2.imports.spans import Event, ids, is_record, read_event, read_span
from cm2.imports.text import as_dict, as_id, as_text, unpacked
from cm2.imports.traces import dialogues
from cm2.imports.work import Score, Work, plain_score


class Own(msgspec.Struct):
    """A record that is a dialogue (or two)."""


class Piece(msgspec.Struct):
    """A record that is a piece of a trace. `about` is the span that a score or event is about; `call` is what was
    said in a call of a model, whose history tells where it belongs."""

    trace: str = ""
    session: str | None = None
    span: str = ""
    about: str = ""
    call: Exchange | None = None


class Aside(msgspec.Struct):
    """A record that is no conversation."""

    reason: str


def place(value: Any, format: str) -> Own | Piece | Aside:
    """Where a record belongs.

    Raises:
        DataError: it should name a trace, and does not.
    """
    if format in CHAT:
        if isinstance(value, dict) and chat_rows.call_of(value) is not None:
            return Piece(session=chat_rows.session_of(value), call=chat_rows.read_call(value))
        return Own()
    if format in ("otel", "openinference", "phoenix"):
        return _span(value)
    if format == "langfuse":
        langfuse.check_trace(value)
        if langfuse.is_score(value) and not langfuse.is_observation(value):
            return Piece(langfuse.trace_of(value) if langfuse.get(value, "traceId") else "", langfuse.session_of(value))
        return Piece(langfuse.trace_of(value), langfuse.session_of(value), as_text(value.get("id")))
    if format == "langsmith":
        trace = langsmith.trace_of(value)
        if langsmith.is_feedback(value):
            return Piece(trace, about=as_text(value.get("run_id")))
        return Piece(trace, langsmith.session_of(value), as_text(value.get("id")))
    if format == "mcp":
        if mcp.rpc_of(value) is None:
            raise DataError("a tool result without the call that it answers; the log of the client has both")
        session = mcp.session_of(value)
        return Piece(f"mcp {session or ''}", session)
    return Own()


def _span(value: dict[str, Any]) -> Piece | Aside:
    trace, span = ids(value)
    if is_annotation(value):
        return Piece(as_text(value.get("trace_id")), about=as_text(value.get("span_id")))
    if is_record(value) and "startTimeUnixNano" not in value and "start_time" not in value:
        if not read_event(value).name.startswith("gen_ai."):
            return Aside("a log record that is about no model")
        if not trace:
            raise DataError("the record names no trace")
        return Piece(trace, about=span)
    if not trace:
        raise DataError("the span names no trace")
    found = read_span(value)
    if not speaks(found):
        return Aside("a span that is about no model, tool or agent")
    return Piece(trace, otel.session_of(found.attributes), span)


def read_own(value: Any, format: str, header: dict[str, Any]) -> list[Draft]:
    """The dialogues of a record that is one.

    Raises:
        DataError: it cannot be read.
    """
    if format == tau.FORMAT:
        return tau.read_run(value, header)
    if format == inspect_ai.FORMAT:
        return inspect_ai.read_sample(value, header)
    if format == datasets.FORMAT and datasets.is_row(value):
        return datasets.read_row(value)
    return chat_rows.read_row(value, format)


def read_group(values: list[tuple[str, Any]], id: str, headers: list[dict[str, Any]] | None = None) -> list[Draft]:
    """The dialogues of the pieces of one trace or session.

    Args:
        values: the pieces as (format, record).
        id: the name of the group, "" where it has none of its own.
        headers: what the frames said in which the pieces stood.

    Raises:
        DataError: there is no conversation in it.
    """
    format = values[0][0]
    if format == mcp.FORMAT:
        return [mcp.dialogue([value for _, value in values], id)]
    if format in CHAT:
        return _calls(values, id)
    works: list[Work] = []
    scores: list[Score] = []
    events: list[tuple[str, Event]] = []
    spans: list[tuple[str, dict[str, Any]]] = []
    for name, value in values:
        if name == "langsmith":
            if langsmith.is_feedback(value) and not langsmith.is_run(value):
                scores += _some(langsmith.read_feedback(value))
            else:
                works += langsmith.read_runs(value)
        elif name == "langfuse":
            if langfuse.is_observation(value):
                works.append(langfuse.read_observation(value))
            elif langfuse.is_score(value):
                scores += _some(langfuse.read_score(value))
            else:
                works += langfuse.read_trace(value)
        elif is_annotation(value):
            scores += _some(_annotation(value))
        elif is_record(value) and "startTimeUnixNano" not in value and "start_time" not in value:
            events.append((ids(value)[1], read_event(value)))
        else:
            spans.append((name, value))
    for name, work in _works(spans, events):
        works.append(work)
        format = name if work.exchange is not None and work.kind == "llm" else format
    if not works:
        raise DataError("scores or events of a trace that this log does not hold")
    drafts = dialogues(format, works, scores, id)
    for header in headers or []:
        resource = as_dict(header.get("resource"))
        if resource.get("attributes"):
            attributes = read_event({"attributes": resource["attributes"]}).attributes
            own = {key: one for key, one in attributes.items() if key != "telemetry"}
            Place(drafts[0].notes).keep("resource", own)
    for name, value in values:
        if name == "langfuse" and langfuse.is_score(value) and langfuse.read_score(value) is None:
            Place(drafts[0].notes, "scores").unmapped(f"a score without a value: {as_text(value.get('name'))}")
    return drafts


def _some(score: Score | None) -> list[Score]:
    return [] if score is None else [score]


def _works(spans: list[tuple[str, dict[str, Any]]], events: list[tuple[str, Event]]) -> list[tuple[str, Work]]:
    found: list[tuple[str, Work]] = []
    known: set[str] = set()
    by_span: dict[str, list[Event]] = {}
    for id, event in events:
        by_span.setdefault(id, []).append(event)
    for name, value in spans:
        span = read_span(value)
        if span.id and span.id in known:
            continue  # the same span exported twice
        known.add(span.id)
        span.events += sorted(by_span.pop(span.id, []), key=lambda event: event.time)
        reader = openinference if openinference.is_openinference(span) else otel
        found.append((name, reader.read_work(span)))
    for id, told in by_span.items():  # log records whose spans were not exported
        told.sort(key=lambda event: event.time)
        value = {"spanId": id, "traceId": "", "startTimeUnixNano": 0}
        span = read_span(value)
        span.events, span.start = told, told[0].time
        found.append(("otel", otel.read_work(span)))
    return found


def _annotation(value: dict[str, Any]) -> Score | None:
    result = as_dict(unpacked(value.get("result")))
    score = plain_score(value.get("result.score"), result.get("score"), value.get("score"))
    label = plain_score(value.get("result.label"), result.get("label"), value.get("label"))
    found = score if score is not None else label
    if found is None:
        return None
    name = as_text(value.get("annotation_name", value.get("name")))
    comment = as_text(value.get("result.explanation", result.get("explanation"))) or None
    return Score(name, found, as_text(value.get("span_id")) or None, comment)


def _calls(values: list[tuple[str, Any]], id: str) -> list[Draft]:
    """The dialogues of calls of a model that a proxy or wrapper logged one by one."""
    works = []
    for index, (_, value) in enumerate(values):
        exchange = chat_rows.read_call(value)
        exchange.start, exchange.span = exchange.start or float(index), f"call {index + 1}"
        works.append(Work("llm", exchange.span, exchange=exchange, notes=exchange.notes, start=exchange.start))
    first = values[0][1]
    id = id or next((named for key in chat_rows.IDS if (named := as_id(first.get(key)))), "") or _made(works[0])
    drafts = dialogues(values[0][0], works, [], id)
    if not any(chat_rows.time_of(value) for _, value in values):
        drafts[0].meta.pop("started", None)
        drafts[0].meta.pop("seconds", None)
    for _, value in values:
        chat_rows.describe(value, drafts[0], Place(drafts[0].notes))
    return drafts


def _made(work: Work) -> str:
    exchange = work.exchange
    assert exchange is not None
    return (
        exchange.id or f"call-{hashlib.blake2b(encode([exchange.before, exchange.after]), digest_size=8).hexdigest()}"
    )
