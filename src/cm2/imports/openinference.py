"""OpenInference: spans of Arize's conventions, from OpenTelemetry exports and from Phoenix.

`openinference.span.kind` says what a span is. The messages stand twice: in `input.value` and `output.value` as they
were sent, and in `llm.input_messages` and `llm.output_messages`, one attribute a field. What was sent says more (which
tool failed, thinking), so it is read where it can be.
"""

from __future__ import annotations

from typing import Any

from cm2.imports.bodies import Exchange
from cm2.imports.fields import names
from cm2.imports.notes import Place
from cm2.imports.otel import ran, session_of
from cm2.imports.schemas import read_tools
from cm2.imports.spans import Span, at, rest
from cm2.imports.text import as_dict, as_id, as_list, as_text, unpacked
from cm2.imports.work import Kind, Work

_KINDS: dict[str, Kind] = {"LLM": "llm", "TOOL": "tool", "AGENT": "agent", "CHAIN": "agent"}
KINDS = names("openinference", "kinds")
_SENT = ("messages", "input", "contents", "prompt")


def is_openinference(span: Span) -> bool:
    """Whether a span follows these conventions."""
    told = ("openinference.span.kind", "llm.input_messages")
    return span.kind in KINDS or any(at(span.attributes, path) is not None for path in told)


def read_work(span: Span) -> Work:
    """What a span recorded."""
    found = span.attributes
    kind = (as_text(at(found, "openinference.span.kind")) or (span.kind if span.kind in KINDS else "")).upper()
    work = Work(_KINDS.get(kind, "other"), span.id, span.parent, span.trace, span.name, span.start, span.end)
    if not kind and at(found, "llm.input_messages") is not None:
        work.kind = "llm"
    work.error, work.session, work.user = span.error, session_of(found), as_id(at(found, "user.id"))
    place = Place(work.notes, f"span[{span.id}]")
    rest(span, place)
    told, said = at(found, "input.value"), at(found, "output.value")
    if work.kind == "tool":
        name = as_text(at(found, "tool.name")) or span.name
        given = unpacked(told)
        parameters = unpacked(at(found, "tool.parameters"))
        if not isinstance(given, dict) and isinstance(parameters, dict) and "properties" not in parameters:
            given = parameters
        work.ran = ran(name, given, said, span.error, place, as_id(at(found, "tool_call.id")))
    elif work.kind == "llm":
        _read(found, told, said, work, place)
        if work.exchange is not None:
            _complete(work.exchange, found, place)
    elif work.kind == "agent":
        work.request, work.response = told, said
    metadata = unpacked(at(found, "metadata"))
    if isinstance(metadata, dict):
        place.keep("metadata", metadata)
    return work


def _read(found: dict[str, Any], told: Any, said: Any, work: Work, place: Place) -> None:
    sent = unpacked(told)
    paths = (f"{place.path}.input.value", f"{place.path}.output.value")
    # Where it is what a wrapper was given, not what was sent, the attributes tell.
    if isinstance(sent, dict) and any(isinstance(sent.get(key), (list, str)) for key in _SENT):
        work.read(sent, said, paths)
    before, after = (_messages(at(found, f"llm.{way}_messages")) for way in ("input", "output"))
    if work.exchange is None and (before or after):
        listed = (f"{place.path}.llm.input_messages", f"{place.path}.llm.output_messages")
        work.read({"messages": before} if before else None, after or None, listed)
    elif work.exchange is None and told is None and said is None:
        work.silent = True
    elif work.exchange is None and work.broken is None:
        work.read(told, said, paths)


def _complete(exchange: Exchange, found: dict[str, Any], place: Place) -> None:
    exchange.model = as_text(at(found, "llm.model_name")) or exchange.model
    counts = as_dict(at(found, "llm.token_count"))
    for name, key in (("input", "prompt"), ("output", "completion")):
        if isinstance(counts.get(key), (int, float)) and counts[key] >= 0:
            exchange.tokens = {**exchange.tokens, name: int(counts[key])}
    if not exchange.tools:
        listed = at(found, "llm.tools") or as_dict(unpacked(at(found, "llm.invocation_parameters"))).get("tools")
        if listed:
            exchange.tools = read_tools(listed, place.at("llm.tools"))


def _messages(values: Any) -> list[dict[str, Any]]:
    """Messages of the attributes as chat messages."""
    found = []
    for value in as_list(unpacked(values)):
        message = as_dict(value)
        message = as_dict(message.get("message")) or message
        calls = [_call(one) for one in as_list(message.get("tool_calls"))]
        name = message.get("function_call_name")
        if not calls and isinstance(name, str):
            calls = [{"name": name, "arguments": message.get("function_call_arguments_json", {})}]
        content = message.get("content")
        if content is None:
            content = [
                part for one in as_list(message.get("contents")) if (part := _part(one, bool(calls))) is not None
            ]
        read = {"role": message.get("role"), "content": content, "tool_calls": calls}
        for key in ("tool_call_id", "name"):
            if message.get(key) is not None:
                read[key] = message[key]
        found.append(read)
    return found


def _call(value: Any) -> dict[str, Any]:
    call = as_dict(as_dict(value).get("tool_call")) or as_dict(value)
    function = as_dict(call.get("function"))
    return {"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments", {})}


def _part(value: Any, called: bool) -> dict[str, Any] | None:
    part = as_dict(as_dict(value).get("message_content")) or as_dict(value)
    if part.get("type") == "tool_use":
        return None if called else {"type": "tool_use", **_call(part)}
    return part
