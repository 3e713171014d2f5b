"""Reading messages: the unit that stands for a turn or a step, to what was said in it.

Thinking is private: it is read from `reasoning_content` (or `reasoning`) and from <think> tags inside the content. A
message without either is a visible reply, never thinking. A `refusal` is a visible reply.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import msgspec

from cm2.dialogue import Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError, Where
from cm2.formats.content import CLOSE, OPEN, are_parts, content_text, split_thinking
from cm2.formats.json_text import loads
from cm2.formats.message_write import Message
from cm2.formats.wire import named


def calls_of(message: Message) -> list[Any]:
    """The calls of an assistant message as they stand in it, the older `function_call` among them."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        return [calls]
    return calls if message.get("function_call") is None else [*calls, {"function": message["function_call"]}]


def system_text(unit: list[Message], places: list[Where] | None = None) -> str:
    """The text of the system messages at the head of a dialogue."""
    return "\n\n".join(content_text(m.get("content"), where) for m, where in _placed(unit, places))


def _placed(unit: list[Message], places: list[Where] | None) -> Iterator[tuple[Message, Where]]:
    return zip(unit, places or repeat(Where()), strict=False)


def read_turn(unit: list[Message], places: list[Where] | None = None) -> Turn:
    """A user message (and foreign messages that follow it) to a turn without steps."""
    texts = (content_text(m.get("content"), where) for m, where in _placed(unit, places) if m["role"] == "user")
    return Turn("\n".join(texts))


def read_step(unit: list[Message], places: list[Where] | None = None) -> Step:
    """Assistant and tool messages to a step, without wire. `places` says where each message stands."""
    thinking: list[str] = []
    replies: list[str] = []
    step = Step(calls=[], responses=[])
    for message, where in _placed(unit, places):
        if message["role"] in ("tool", "function"):
            step.responses.append(_read_response(message, where))
        elif message["role"] == "assistant":
            private, visible = _split(message, where)
            thinking += private
            if visible is not None:
                replies.append(visible)
            step.calls += [_read_call(call, where) for call in calls_of(message)]
    step.thinking = "\n".join(part for part in thinking if part) if thinking else None
    step.reply = "\n".join(replies) if replies else None
    return step


def _split(message: Message, where: Where) -> tuple[list[str], str | None]:
    """The private parts and the visible reply (None where there is none) of one assistant message."""
    private = []
    for key in ("reasoning_content", "reasoning"):
        if isinstance(message.get(key), str):
            private.append(message[key])
            break
    content = message.get("content")
    if content is None:
        refusal = message.get("refusal")
        return private, refusal if isinstance(refusal, str) else None
    text = content_text(content, where)
    if OPEN in text or CLOSE in text:
        parts, visible = split_thinking(text)
        return private + parts, visible or None
    if not text and (message.get("tool_calls") or private):
        return private, None
    return private, text


def _read_call(call: Any, where: Where) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f"a tool call is not {{'function': {{'name', 'arguments'}}}}: {_short(call)}", where=where)
    id = call.get("id")
    name, id = function["name"], None if id is None else str(id)
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        if isinstance(arguments, dict):
            return ToolCall(name, arguments, id)
        return ToolCall(name, arguments, id, error=f"the arguments are {named(arguments)}, not an object")
    try:
        value = loads(arguments)
    except (ValueError, RecursionError) as error:
        return ToolCall(name, None, id, raw=arguments, error=f"the arguments are not JSON: {error}")
    if not isinstance(value, dict):
        return ToolCall(name, value, id, raw=arguments, error=f"the arguments are {named(value)}, not an object")
    return ToolCall(name, value, id)


def _read_response(message: Message, where: Where) -> ToolResponse:
    content = message.get("content")
    if isinstance(content, dict) or (isinstance(content, list) and not are_parts(content)):
        text = msgspec.json.encode(content).decode()
    else:
        text = content_text(content, where)
    id, name = message.get("tool_call_id"), message.get("name")
    return ToolResponse(text, None if id is None else str(id), name if isinstance(name, str) else None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
