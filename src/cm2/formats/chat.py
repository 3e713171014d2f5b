"""Chat messages ⇄ turns and steps: what both formats share.

Messages are cut into units, and each unit becomes one noun: the head (system messages), a user message (`Turn`), and an
assistant action with the tool messages after it (`Step`). Consecutive assistant messages are one action as long as no
tool has answered, so parallel calls may stand in several messages; a reply after an unanswered call is an action of its
own. Messages that have no noun (a system message in the middle) stay in the `wire` of the unit they follow.

Every unit can be written canonically; where that would differ from what was read, the unit's `wire` keeps the messages
as they stood. A writer uses the wire only while it still reads to the unit, so an edited step is never overwritten by
its past.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.dialogue import Step, Turn
from cm2.errors import DataError, Where
from cm2.formats.content import OPEN
from cm2.formats.message_read import calls_of, read_step, read_turn, system_text
from cm2.formats.message_write import Message, Style, write_step, write_system, write_turn
from cm2.formats.wire import named, same

_HEAD, _USER, _STEP = "head", "user", "step"
_ROLES = {
    "system": _HEAD,
    "developer": _HEAD,
    "user": _USER,
    "assistant": _STEP,
    "tool": _STEP,
    "function": _STEP,
}


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
            talk.system = system_text(unit, places)
            talk.head = _wire(write_system(talk.system, talk.style), unit)
        elif kind == _USER:
            turn = read_turn(unit, places)
            turn.wire = _wire(write_turn(turn, talk.style), unit)
            talk.turns.append(turn)
        else:
            step = read_step(unit, places)
            step.wire = _wire(write_step(step, talk.style), unit)
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
    if wires and talk.head is not None and system_text(talk.head) == talk.system:
        messages += talk.head
    elif talk.system is not None:
        messages += write_system(talk.system, style)
    for step in talk.opening:
        messages += _step_messages(step, style, wires)
    for turn in talk.turns:
        held = turn.wire if wires else None
        messages += held if held and read_turn(held).user == turn.user else write_turn(turn, style)
        for step in turn.steps:
            messages += _step_messages(step, style, wires)
    return messages


def _step_messages(step: Step, style: Style, wires: bool) -> list[Message]:
    if wires and step.wire and same(read_step(step.wire), replace(step, wire=None)):
        return step.wire
    return write_step(step, style)


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
    return bool(calls_of(message)) or not any(calls_of(before) for before in unit)


def _uses_tags(messages: list[Any]) -> bool:
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "assistant":
            content = message.get("content")
            if isinstance(message.get("reasoning_content"), str):
                return False
            if isinstance(content, str) and OPEN in content:
                return True
    return False
