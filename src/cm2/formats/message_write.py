"""Writing messages: what is said in a turn or a step, in the canonical form of its dialogue."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from cm2.dialogue import Step, ToolCall, ToolResponse, Turn
from cm2.formats.content import tagged

Message = dict[str, Any]


class Style(msgspec.Struct, frozen=True):
    """How a dialogue writes messages canonically."""

    tags: bool = False
    """Thinking as <think> tags in the content instead of `reasoning_content`."""
    bare: bool = False
    """The Nemotron form: content is always text, every message has `tool_calls`, tool messages carry no call id."""


def write_system(system: str, style: Style) -> list[Message]:
    """The canonical system message."""
    return [_finish({"role": "system", "content": system}, style)]


def write_turn(turn: Turn, style: Style) -> list[Message]:
    """The canonical user message of a turn, without its steps."""
    return [_finish({"role": "user", "content": turn.user}, style)]


def write_step(step: Step, style: Style) -> list[Message]:
    """The canonical messages of a step: what the agent said and called, and the responses of the tools."""
    messages: list[Message] = []
    if step.calls or step.reply is not None or step.thinking is not None or not step.responses:
        message: Message = {"role": "assistant", "content": step.reply}
        if step.thinking is not None and style.tags:
            message["content"] = tagged(step.thinking, step.reply)
        elif step.thinking is not None:
            message["reasoning_content"] = step.thinking
        if step.calls:
            message["tool_calls"] = [_write_call(call) for call in step.calls]
        messages.append(_finish(message, style))
    for response, call_id in _answers(step, style.bare):
        message = {"role": "tool", "content": response.content}
        if call_id is not None:
            message["tool_call_id"] = call_id
        if response.name is not None and not style.bare:
            message["name"] = response.name
        messages.append(_finish(message, style))
    return messages


def _answers(step: Step, bare: bool) -> list[tuple[ToolResponse, str | None]]:
    """The responses with the call ids to write. Bare they stand in the order of the calls, without ids where that order
    says it all; else each has its own, or that of the call at its position where no response of the step has one."""
    given = [response.call_id for response in step.responses]
    if not bare:
        if any(given) or len(given) > len(step.calls):
            return list(zip(step.responses, given, strict=True))
        return [(response, call.id) for response, call in zip(step.responses, step.calls, strict=False)]
    paired = [step.response_to(i) for i in range(len(step.calls))]
    answers = [response for response in paired if response is not None]
    missing = paired.index(None) if None in paired else len(paired)
    loose = [response for response in step.responses if not any(response is answer for answer in answers)]
    if len(answers) == missing and (not loose or missing == len(paired)):
        return [(response, None) for response in [*answers, *loose]]
    return list(zip(step.responses, given, strict=True))


def _write_call(call: ToolCall) -> dict[str, Any]:
    text = call.raw if call.raw is not None else json.dumps(call.arguments, ensure_ascii=False)
    written: dict[str, Any] = {} if call.id is None else {"id": call.id}
    return {**written, "type": "function", "function": {"name": call.name, "arguments": text}}


def _finish(message: Message, style: Style) -> Message:
    if style.bare:
        message["content"] = message["content"] or ""
        message.setdefault("tool_calls", [])
    return message
