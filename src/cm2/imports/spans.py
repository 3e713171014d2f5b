"""Spans: the three ways in which a span of OpenTelemetry is written, read into one.

OTLP JSON (`traceId`, attributes as a list of key and typed value), the SDK's own JSON (`context.trace_id`, attributes
as an object) and Phoenix (the same in columns, `attributes.` before each name). Attributes are nested by the dots of
their names, numbers becoming lists: `llm.input_messages.0.message.role` is found at ["llm"]["input_messages"][0].
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from cm2.imports.fields import names
from cm2.imports.notes import Place
from cm2.imports.text import as_dict, as_list, as_text
from cm2.imports.work import seconds


class Event(msgspec.Struct):
    """An event of a span, or a log record that belongs to one."""

    name: str
    attributes: dict[str, Any] = {}
    body: Any = None
    time: float = 0.0


class Span(msgspec.Struct):
    """A span as it was written. `error` is what it says of its failure, "" where it says only that."""

    id: str
    trace: str
    parent: str | None = None
    name: str = ""
    kind: str = ""
    start: float = 0.0
    end: float = 0.0
    attributes: dict[str, Any] = {}
    events: list[Event] = []
    error: str | None = None


def is_span(value: dict[str, Any]) -> bool:
    """Whether an object is a span in one of the three forms."""
    if "context.trace_id" in value or "context.span_id" in value:
        return True
    context = value.get("context")
    if isinstance(context, dict) and "span_id" in context:
        return "attributes" in value or "span_kind" in value
    ids = ("traceId" in value and "spanId" in value) or ("trace_id" in value and "span_id" in value)
    return ids and ("attributes" in value or "startTimeUnixNano" in value or "start_time_unix_nano" in value)


def is_record(value: dict[str, Any]) -> bool:
    """Whether an object is a log record of OpenTelemetry."""
    named = any(key in value for key in ("eventName", "event_name", "observedTimeUnixNano", "severity_number"))
    return named or ("timeUnixNano" in value and "body" in value) or ("body" in value and "trace_flags" in value)


def ids(value: dict[str, Any]) -> tuple[str, str]:
    """The trace's and the span's id, as hexadecimal text without prefix."""
    context = as_dict(value.get("context"))
    trace = _first(value, "traceId", "trace_id", "context.trace_id") or context.get("trace_id")
    span = _first(value, "spanId", "span_id", "context.span_id") or context.get("span_id")
    return _hex(trace), _hex(span)


def _first(value: dict[str, Any], *keys: str) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _hex(value: Any) -> str:
    text = as_text(value)
    if text.startswith("0x"):
        return text[2:]
    if text.endswith("="):  # protobuf's own JSON writes bytes in base 64
        try:
            return base64.b64decode(text, validate=True).hex()
        except (binascii.Error, ValueError):
            return text
    return text


def read_span(value: dict[str, Any]) -> Span:
    """A span from one of its forms."""
    trace, id = ids(value)
    parent = _hex(_first(value, "parentSpanId", "parent_span_id", "parent_id"))
    span = Span(id, trace, parent or None, as_text(value.get("name")))
    span.kind = as_text(_first(value, "span_kind", "kind"))
    span.start = seconds(_first(value, "startTimeUnixNano", "start_time_unix_nano", "start_time"))
    span.end = seconds(_first(value, "endTimeUnixNano", "end_time_unix_nano", "end_time"))
    span.attributes = nested(_attributes(value))
    span.events = [read_event(one) for one in as_list(value.get("events")) if isinstance(one, dict)]
    status = as_dict(value.get("status"))
    code = as_text(_first(status, "code", "status_code") or value.get("status_code"))
    if code.upper() in ("2", "ERROR", "STATUS_CODE_ERROR", "STATUSCODE.ERROR"):
        span.error = as_text(_first(status, "message", "description") or value.get("status_message"))
        for event in span.events:
            exception = as_dict(event.attributes.get("exception"))
            if event.name == "exception" and exception.get("message"):
                span.error = as_text(exception["message"])
    return span


def read_event(value: dict[str, Any]) -> Event:
    """An event of a span, or a log record."""
    attributes = nested(_attributes(value))
    name = as_text(_first(value, "eventName", "event_name", "name") or as_dict(attributes.get("event")).get("name"))
    time = seconds(_first(value, "timeUnixNano", "observedTimeUnixNano", "timestamp", "time_unix_nano"))
    return Event(name, attributes, typed(value.get("body")), time)


def _attributes(value: dict[str, Any]) -> dict[str, Any]:
    found = value.get("attributes")
    if isinstance(found, list):
        pairs = [one for one in found if isinstance(one, dict)]
        return {as_text(one.get("key")): typed(one.get("value")) for one in pairs}
    flat = {key[11:]: one for key, one in value.items() if key.startswith("attributes.") and one is not None}
    return {**flat, **as_dict(found)}


def typed(value: Any) -> Any:
    """An OTLP value as a JSON value; other values as they are."""
    if not isinstance(value, dict):
        return value
    for key, one in value.items():
        if one is None or key not in _TYPED:
            continue
        if key in ("intValue", "int_value"):
            return int(one) if isinstance(one, str) and one.lstrip("-").isdigit() and len(one) < 30 else one
        if key in ("arrayValue", "array_value"):
            return [typed(item) for item in as_list(as_dict(one).get("values"))]
        if key in ("kvlistValue", "kvlist_value"):
            pairs = [pair for pair in as_list(as_dict(one).get("values")) if isinstance(pair, dict)]
            return {as_text(pair.get("key")): typed(pair.get("value")) for pair in pairs}
        return one
    return None if not value or _TYPED.issuperset(value) else value


_TYPED = names("otlp", "typed")


class _Tree(dict[str, Any]):
    """An object that came from the dots of keys, not one that the log wrote."""


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """An object nested by the dots of its keys, inside lists too. Where one key goes on from another, the shorter
    one's value stands under ""."""
    found = _Tree()
    for name, value in flat.items():
        at: dict[str, Any] = found
        *path, last = name.split(".") if isinstance(name, str) else [as_text(name)]
        for part in path:
            inner = at.setdefault(part, _Tree())
            if not isinstance(inner, dict):
                inner = at[part] = _Tree({"": inner})
            at = inner
        value = _inside(value)
        if isinstance(at.get(last), dict):
            at[last].update(value if isinstance(value, dict) else {"": value})
        else:
            at[last] = value
    return {key: _lists(value) for key, value in found.items()}


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return nested(value) if any("." in key for key in value) else {key: _inside(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_inside(one) for one in value]
    return value


def _lists(value: Any) -> Any:
    if not isinstance(value, _Tree):
        return value
    inner = {key: _lists(one) for key, one in value.items()}
    if inner and all(key.isdecimal() and len(key) < 7 for key in inner):
        return [inner[key] for key in sorted(inner, key=int)]
    return inner


_TAKEN, _LEFT = names("span", "taken"), names("span", "left")


def rest(span: Span, place: Place) -> None:
    """Note the attributes that no reader takes: those of the conventions stay in the log, an application's are kept."""
    for name, value in span.attributes.items():
        if name not in _LEFT:
            if name not in _TAKEN:
                place.keep(f"attributes.{name}", value)
        elif isinstance(value, dict):
            for inner in value:
                if f"{name}.{inner}" not in _TAKEN:
                    place.left(f"attributes.{name}.{inner}" if inner else f"attributes.{name}")
        else:
            place.left(f"attributes.{name}")
    for event in span.events:
        if not event.name.startswith("gen_ai."):
            place.left("events")


def at(value: Any, path: str) -> Any:
    """What stands at a dotted path of nested attributes, or None."""
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value
