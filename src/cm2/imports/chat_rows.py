"""Rows of the APIs: OpenAI's chat, OpenAI's Responses, Anthropic's messages.

A row is a whole dialogue (`messages`, or `input` items), or one call of the model: a request and its response, under
the names that proxies, batches and wrappers give them. Calls repeat the history; `cm2.imports.threads` puts those of
one conversation together.
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError
from cm2.imports.bodies import Exchange, bookkeeping, read_exchange, read_request
from cm2.imports.dialects import are_messages
from cm2.imports.draft import Draft
from cm2.imports.fields import names
from cm2.imports.notes import Notes, Place
from cm2.imports.outcomes import take_outcomes
from cm2.imports.talk import Talk
from cm2.imports.text import as_dict, as_id, as_list, as_text, unpacked
from cm2.imports.work import seconds

_REQUESTS = ("request", "request_body", "requestBody", "body", "req", "kwargs", "inputs")
_RESPONSES = ("response", "response_body", "responseBody", "completion", "res", "result", "output", "outputs")
IDS = ("id", "uuid", "dialogue_id", "conversation_id", "custom_id", "request_id", "trace_id", "session_id")
_SESSIONS = ("conversation_id", "session_id", "thread_id", "trace_id", "conversation", "chat_id")
_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"})
_OUTER = names("body", "outer")


def call_of(value: dict[str, Any]) -> tuple[Any, Any] | None:
    """The request and the response of a row that is one call of a model, else None."""
    request = next(
        (inner for key in (*_REQUESTS, "input") if isinstance(inner := unpacked(value.get(key)), dict)), None
    )
    response = next((unpacked(value[key]) for key in _RESPONSES if value.get(key) is not None), None)
    if request is not None:
        request = as_dict(unpacked(request.get("body"))) or as_dict(unpacked(request.get("json"))) or request
    else:
        body = {key: one for key, one in value.items() if key not in _RESPONSES and key != "choices"}
        request = body if _has_messages(body) else None
    if response is None and isinstance(value.get("choices"), list):
        response = {key: one for key, one in value.items() if key not in _REQUESTS}
    if isinstance(response, dict):
        response = as_dict(unpacked(response.get("body"))) or response
        if response.get("type") in ("succeeded", "errored") and isinstance(response.get("message"), dict):
            response = response["message"]  # a batch of Anthropic's
    if response is None or isinstance(response, (bool, int, float)):
        return (request, None) if request is not None and not _has_messages(value) else None
    if request is None and not _is_response(response):
        return None
    return request, response


def _has_messages(value: dict[str, Any]) -> bool:
    for key in ("messages", "input", "contents", "prompt"):
        inner = unpacked(value.get(key))
        if isinstance(inner, str) and key in ("input", "prompt") and inner:
            return True
        if are_messages(inner) or (isinstance(inner, list) and inner and isinstance(inner[0], list)):
            return True
    return False


def _is_response(value: Any) -> bool:
    if not isinstance(value, dict):
        return are_messages(value)
    return (
        "choices" in value or value.get("object") == "response" or (value.get("type") == "message" and "role" in value)
    )


def dialect(value: Any) -> str:
    """Which API a row or body speaks: openai, responses or anthropic."""
    inner = as_dict(value)
    found = call_of(inner)
    bodies = [as_dict(one) for one in (found or (inner,))]
    if inner.get("object") == "response":
        return "responses"
    for body in bodies:
        if body.get("object") == "response" or ("input" in body and "messages" not in body):
            return "responses"
        if body.get("type") == "message" and "stop_reason" in body:
            return "anthropic"
    messages = (
        value if isinstance(value, list) else next((unpacked(b["messages"]) for b in bodies if "messages" in b), [])
    )
    if any(isinstance(one, dict) and "role" not in one and "type" in one for one in as_list(messages)):
        return "responses"
    for message in as_list(messages):
        content = as_dict(message).get("content")
        if any(as_text(as_dict(part).get("type")) in _BLOCKS for part in as_list(content)):
            return "anthropic"
    tools = [one for body in bodies for one in as_list(unpacked(body.get("tools")))]
    if any("input_schema" in as_dict(tool) for tool in tools):
        return "anthropic"
    return "anthropic" if any(body.get("system") for body in bodies) and "max_tokens" in bodies[0] else "openai"


def is_row(value: Any) -> bool:
    """Whether a value is a dialogue or a call of one of the APIs."""
    if isinstance(value, list):
        return are_messages(value)
    return isinstance(value, dict) and (_has_messages(value) or "messages" in value or call_of(value) is not None)


def session_of(value: dict[str, Any]) -> str | None:
    """The conversation that a call says it belongs to."""
    request = as_dict((call_of(value) or (None, None))[0])
    for holder in (value, as_dict(value.get("metadata")), request, as_dict(request.get("metadata"))):
        for key in _SESSIONS:
            inner = holder.get(key)
            found = as_id(as_dict(inner).get("id") if isinstance(inner, dict) else inner)
            if found:
                return found
    return None


def read_call(value: dict[str, Any]) -> Exchange:
    """A row that is one call of a model.

    Raises:
        DataError: its messages cannot be read.
    """
    found = call_of(value)
    if found is None:
        raise DataError("the row is no call of a model")
    notes = Notes()
    exchange = read_exchange(found[0], found[1], notes, ("request", "response"))
    exchange.start = time_of(value)
    return exchange


def time_of(value: dict[str, Any]) -> float:
    """When a call was made, as far as its row tells; else 0.0."""
    names = ("timestamp", "created_at", "start_time", "startTime", "created")
    return next((at for name in names if (at := seconds(value.get(name)))), 0.0)


def read_row(value: Any, format: str) -> list[Draft]:
    """A row that is a whole dialogue.

    Raises:
        DataError: its messages cannot be read.
    """
    if isinstance(value, list):
        value = {"messages": value}
    talk, notes = Talk(), Notes()
    place = Place(notes)
    body = {key: one for key, one in value.items() if key in _OUTER and key not in ("meta", "metadata")}
    if "messages" in body:
        body.pop("input", None)
        body["messages"] = unpacked(body["messages"])
        if isinstance(body["messages"], list) and not body["messages"]:
            raise DataError("the row has no messages")
    read_request(body, talk, place, Exchange())
    draft = Draft.of(format, talk, notes)
    describe(value, draft, place)
    return [draft]


def describe(value: dict[str, Any], draft: Draft, place: Place) -> None:
    """A row's id, source, metadata, outcome and unknown fields, into a draft."""
    key = next((key for key in IDS if as_id(value.get(key))), None)
    if key is not None and draft.id is None:
        draft.id = as_id(value[key])
    source = value.get("source")
    if isinstance(source, str):
        draft.source = source
    meta = value.get("meta")
    if isinstance(meta, dict):
        draft.meta |= {name: one for name, one in meta.items() if name != "import"}
    taken = take_outcomes(value, draft)
    metadata = unpacked(value.get("metadata"))
    if isinstance(metadata, dict):
        inner = take_outcomes(metadata, draft)
        place.keep("metadata", {name: one for name, one in metadata.items() if name not in inner})
        taken.add("metadata")
    if isinstance(value.get("model"), str):
        draft.meta.setdefault("model", value["model"])
    if isinstance(meta, dict):
        taken.add("meta")
    known = {*taken, *(_OUTER - {"meta", "metadata"}), "source", "model"} | ({key} if key is not None else set())
    bookkeeping(value, known, place)
