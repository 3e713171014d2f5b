"""Chat messages ⇄ turns and steps: what both formats share.

Messages are cut into units, and each unit becomes one noun: the head (system messages), a user message (`Turn`), and an
assistant action with the tool messages after it (`Step`). Consecutive assistant messages are one action as long as no
tool has answered, so parallel calls may stand in several messages; a reply after an unanswered call is an action of its
own. Messages that have no noun (a system message in the middle) stay in the `wire` of the unit they follow.

Every unit can be written canonically; where that would differ from what was read, the unit's `wire` keeps the messages
as they stood. A writer uses the wire only while it still reads to the unit, so an edited step is never overwritten by
its past.

Thinking is private: it is read from `reasoning_content` (or `reasoning`) and from <think> tags inside the content. A
message without either is a visible reply, never thinking. A `refusal` is a visible reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.dialogue import Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError, Where
from cm2.formats.content import CLOSE, OPEN, are_parts, content_text, split_thinking, tagged
from cm2.formats.wire import named, same

Message = dict[str, Any]
_HEAD, _USER, _STEP = "head", "user", "step"
_ROLES = {
    "system": _HEAD,
    "developer": _HEAD,
    "user": _USER,
    "assistant": _STEP,
    "tool": _STEP,
    "function": _STEP,
}


class Style(msgspec.Struct, frozen=True):
    """How a dialogue writes messages canonically."""

    tags: bool = False
    """Thinking as <think> tags in the content instead of `reasoning_content`."""
    bare: bool = False
    """The Nemotron form: content is always text, every message has `tool_calls`, tool messages carry no call id."""


class Conversation(msgspec.Struct):
    """What a list of messages says. `head` is the wire of the system messages."""

    style: Style
    system: str | None = None
    opening: list[Step] = []
    turns: list[Turn] = []
    head: list[Message] | None = None


def read_talk(row: dict[str, Any], where: Where, bare: bool = False) -> Conversation:
    """The messages of a row to turns and steps.

    Raises:
        DataError: `messages` is no list of objects with known roles, none is of the user, or a content is neither text,
            parts nor null.
    """
    if "messages" not in row:
        raise DataError("the row has no 'messages'", where=where, fix="expected a list of chat messages")
    messages = row["messages"]
    if not isinstance(messages, list):
        fix = "expected a list of chat messages"
        raise DataError(f"'messages' is {named(messages)}, not a list", where=where.but(path="messages"), fix=fix)
    talk = Conversation(Style(tags=bare or _uses_tags(messages), bare=bare))
    first = 0
    for kind, unit in _units(messages, where):
        places = [where.but(path=f"messages[{first + i}]") for i in range(len(unit))]
        first += len(unit)
        if kind == _HEAD:
            talk.system = _system_text(unit, places)
            talk.head = _wire(write_system(talk.system, talk.style), unit)
        elif kind == _USER:
            turn = read_turn(unit, places)
            turn.wire = _wire(_write_turn(turn, talk.style), unit)
            talk.turns.append(turn)
        else:
            step = read_step(unit, places)
            step.wire = _wire(_write_step(step, talk.style), unit)
            (talk.turns[-1].steps if talk.turns else talk.opening).append(step)
    if not talk.turns:
        fix = "a dialogue needs a message of the user"
        raise DataError("no message has the role 'user'", where=where.but(path="messages"), fix=fix)
    return talk


def write_messages(talk: Conversation, wires: bool = True) -> list[Message]:
    """Turns and steps to messages: each unit's wire while it still holds, else its canonical form. Without `wires`
    (they are of another format) the canonical form throughout."""
    style = talk.style
    messages: list[Message] = []
    if wires and talk.head is not None and _system_text(talk.head) == talk.system:
        messages += talk.head
    elif talk.system is not None:
        messages += write_system(talk.system, style)
    for step in talk.opening:
        messages += _step_messages(step, style, wires)
    for turn in talk.turns:
        held = turn.wire if wires else None
        messages += held if held and read_turn(held).user == turn.user else _write_turn(turn, style)
        for step in turn.steps:
            messages += _step_messages(step, style, wires)
    return messages


def _step_messages(step: Step, style: Style, wires: bool) -> list[Message]:
    if wires and step.wire and same(read_step(step.wire), replace(step, wire=None)):
        return step.wire
    return _write_step(step, style)


def _wire(canonical: list[Message], unit: list[Message]) -> list[Message] | None:
    return None if same(canonical, unit) else unit


def _units(messages: list[Any], where: Where) -> list[tuple[str, list[Message]]]:
    units: list[tuple[str, list[Message]]] = []
    for index, message in enumerate(messages):
        here = where.but(path=f"messages[{index}]")
        if not isinstance(message, dict):
            raise DataError(f"the message is {named(message)}, not an object", where=here)
        role = message.get("role")
        kind = _ROLES.get(role) if isinstance(role, str) else None
        if kind is None:
            fix = "use system, developer, user, assistant or tool"
            raise DataError(f"the role is {role!r}" if "role" in message else "no role", where=here, fix=fix)
        last = units[-1] if units else None
        if last is None or kind == _USER:
            units.append((kind, [message]))
        elif kind == _HEAD or (last[0] == _STEP and (role != "assistant" or _continues(last[1], message))):
            last[1].append(message)
        else:
            units.append((kind, [message]))
    return units


def _continues(unit: list[Message], message: Message) -> bool:
    """Whether a further assistant message belongs to the same action: no tool has answered, and it does not leave a
    call behind unanswered (a reply after a call ends the turn; that step must not hide in the call's)."""
    if any(before["role"] in ("tool", "function") for before in unit):
        return False
    return bool(_calls_of(message)) or not any(_calls_of(before) for before in unit)


def _calls_of(message: Message) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        return [calls]
    return calls if message.get("function_call") is None else [*calls, {"function": message["function_call"]}]


def _system_text(unit: list[Message], places: list[Where] | None = None) -> str:
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
            step.calls += [_read_call(call, where) for call in _calls_of(message)]
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


def loads(text: str) -> Any:
    """Strict JSON: no NaN, no white space but JSON's, integers of any size that Python reads.

    Raises:
        ValueError: it is not JSON. RecursionError: it nests too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except UnicodeEncodeError:  # lone surrogates: only Python's own reader takes them
        return json.loads(text, parse_constant=_no_constant)
    except msgspec.DecodeError:
        if "\\u" not in text:
            raise
        return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_response(message: Message, where: Where) -> ToolResponse:
    content = message.get("content")
    if isinstance(content, dict) or (isinstance(content, list) and not are_parts(content)):
        text = msgspec.json.encode(content).decode()
    else:
        text = content_text(content, where)
    id, name = message.get("tool_call_id"), message.get("name")
    return ToolResponse(text, None if id is None else str(id), name if isinstance(name, str) else None)


def write_system(system: str, style: Style) -> list[Message]:
    """The canonical system message."""
    return [_finish({"role": "system", "content": system}, style)]


def _write_turn(turn: Turn, style: Style) -> list[Message]:
    return [_finish({"role": "user", "content": turn.user}, style)]


def _write_step(step: Step, style: Style) -> list[Message]:
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


def _uses_tags(messages: list[Any]) -> bool:
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "assistant":
            content = message.get("content")
            if isinstance(message.get("reasoning_content"), str):
                return False
            if isinstance(content, str) and OPEN in content:
                return True
    return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
