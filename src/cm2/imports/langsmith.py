"""LangSmith: runs and feedback, as its API, its SDK and its bulk export write them.

Runs are flat (`trace_id`, `parent_run_id`) or a tree (`child_runs`); in a bulk export the inputs and outputs are JSON
text. The messages are LangChain's or those of the provider that was wrapped. A thread is named in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cm2.imports.bodies import Exchange, tokens_of
from cm2.imports.fields import names
from cm2.imports.notes import Place
from cm2.imports.otel import ran
from cm2.imports.schemas import read_tools
from cm2.imports.text import as_dict, as_id, as_list, as_text, unpacked
from cm2.imports.work import Kind, Score, Work, plain_score, seconds

_KINDS: dict[str, Kind] = {"llm": "llm", "chat": "llm", "tool": "tool", "chain": "agent", "agent": "agent"}
_THREADS = ("session_id", "thread_id", "conversation_id")
_TAKEN = names("langsmith", "taken")
_BOOKKEEPING = names("langsmith", "left")


def is_run(value: dict[str, Any]) -> bool:
    """Whether an object is a run."""
    return isinstance(value.get("run_type"), str) and ("inputs" in value or "outputs" in value or "child_runs" in value)


def is_feedback(value: dict[str, Any]) -> bool:
    """Whether an object is feedback."""
    return "key" in value and "run_id" in value and ("score" in value or "value" in value)


def trace_of(value: dict[str, Any]) -> str:
    """The id of the trace of a run or of feedback."""
    if value.get("trace_id"):
        return as_text(value["trace_id"])
    if is_feedback(value):
        return ""
    order = as_text(value.get("dotted_order")).split(".")[0]
    if "Z" in order:
        return order.partition("Z")[2]
    return as_text(value.get("parent_run_id") or value.get("id"))


def session_of(value: dict[str, Any]) -> str | None:
    """The thread that a run says it belongs to."""
    metadata = as_dict(as_dict(unpacked(value.get("extra"))).get("metadata"))
    return next((id for key in _THREADS if (id := as_id(metadata.get(key)))), None) or as_id(value.get("thread_id"))


def read_runs(value: dict[str, Any]) -> Iterator[Work]:
    """A run and those below it."""
    pending = [value]
    while pending:
        run = pending.pop()
        trace = trace_of(run)
        yield _read(run, trace)
        children = [one for one in as_list(run.get("child_runs")) if isinstance(one, dict)]
        pending += [{"trace_id": trace, "parent_run_id": run.get("id"), **one} for one in reversed(children)]


def _read(value: dict[str, Any], trace: str) -> Work:
    id = as_text(value.get("id"))
    kind = _KINDS.get(as_text(value.get("run_type")).lower(), "other")
    work = Work(kind, id, as_id(value.get("parent_run_id")), trace, as_text(value.get("name")))
    work.start, work.end = seconds(value.get("start_time")), seconds(value.get("end_time"))
    work.session, work.error = session_of(value), as_text(value.get("error")) or None
    extra = as_dict(unpacked(value.get("extra")))
    metadata = as_dict(extra.get("metadata"))
    work.user = as_id(metadata.get("user_id"))
    place = Place(work.notes, f"run[{id}]")
    request, response = unpacked(value.get("inputs")), unpacked(value.get("outputs"))
    if kind == "llm":
        if not request and not response:
            work.silent = True
        else:
            exchange = work.read(request or None, response or None, (f"{place.path}.inputs", f"{place.path}.outputs"))
            if exchange is not None:
                _complete(exchange, value, extra, metadata, place)
    elif kind == "tool":
        work.ran = ran(work.name, request, response, work.error, place)
    elif kind == "agent":
        work.request, work.response = request, response
    place.keep("metadata", _own(metadata))
    place.rest(value, _TAKEN, _BOOKKEEPING)
    stats = as_dict(unpacked(value.get("feedback_stats")))
    work.scores = [score for name, one in stats.items() if (score := _average(name, one, id)) is not None]
    feedback = [one for one in as_list(value.get("feedback")) if isinstance(one, dict)]
    work.scores += [score for one in feedback if (score := read_feedback({"run_id": id, **one})) is not None]
    return work


def _complete(
    exchange: Exchange, value: dict[str, Any], extra: dict[str, Any], metadata: dict[str, Any], place: Place
) -> None:
    exchange.model = as_text(metadata.get("ls_model_name")) or exchange.model
    counts = {"input_tokens": value.get("prompt_tokens"), "output_tokens": value.get("completion_tokens")}
    exchange.tokens = tokens_of(metadata.get("usage_metadata")) or tokens_of(counts) or exchange.tokens
    settings = as_dict(extra.get("invocation_params")) or as_dict(metadata.get("ls_invocation_params"))
    listed = settings.get("tools") or settings.get("functions")
    if listed and not exchange.tools:
        exchange.tools = read_tools(listed, place.at("extra.invocation_params.tools"))


def _own(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata that the application wrote."""
    library = ("ls_", "LANGSMITH_", "usage_metadata")
    return {key: one for key, one in metadata.items() if not key.startswith(library)}


def _average(name: str, value: Any, run: str) -> Score | None:
    stats = as_dict(value)
    values = as_dict(stats.get("values"))
    found = plain_score(stats.get("avg"), next(iter(values), None))
    return None if found is None else Score(name, found, run)


def read_feedback(value: dict[str, Any]) -> Score | None:
    """Feedback as a score; None where it has no value."""
    found = plain_score(value.get("score"), value.get("value"))
    if found is None:
        return None
    return Score(as_text(value.get("key")), found, as_id(value.get("run_id")), as_text(value.get("comment")) or None)
