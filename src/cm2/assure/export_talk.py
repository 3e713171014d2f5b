"""Talk: a dialogue as the chat messages that trainers read, and which of them are to be learnt.

Every call has an id of its own and every response names the call that it answers. Only what the agent did is learnt:
system, user and tool messages never are, and of the agent's own not those of a turn in which some duty failed that the
export lets pass (a minor one). A dialogue that cannot be said so is `Unsayable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, Step, Tool

Message = dict[str, Any]


class Unsayable(ValueError):
    """The dialogue cannot be written as messages for training; the text is the reason, for counting."""


class Talk(msgspec.Struct):
    """Messages, and which of them are learnt (`learn[i]` is about `messages[i]`)."""

    messages: list[Message]
    learn: list[bool]
    tools: list[dict[str, Any]]


def talk_of(
    dialogue: Dialogue, turns: int | None = None, steps: int | None = None, spoilt: Collection[int] = ()
) -> Talk:
    """The messages of a dialogue, up to a place.

    Args:
        dialogue: what happened.
        turns: so many turns; None: all.
        steps: of the turn after these, the user's message and so many steps; None: nothing of it.
        spoilt: turns of which nothing is learnt.

    Raises:
        Unsayable: a call is malformed or has no response.
    """
    talk = Talk([], [], tools_of(dialogue.tools))
    if dialogue.system is not None:
        _add(talk, {"role": "system", "content": dialogue.system}, False)
    for number, step in enumerate(dialogue.opening):
        _step(talk, step, f"call_o_{number}", False)
    whole = len(dialogue.turns) if turns is None else turns
    for number, turn in enumerate(dialogue.turns[: whole + (steps is not None)]):
        _add(talk, {"role": "user", "content": turn.user}, False)
        for at, step in enumerate(turn.steps if number < whole else turn.steps[:steps]):
            _step(talk, step, f"call_{number}_{at}", number not in spoilt)
    return talk


def action_of(dialogue: Dialogue, turn: int, step: int) -> Message:
    """One step of the agent as a message.

    Raises:
        Unsayable: a call is malformed.
    """
    return _message(dialogue.turns[turn].steps[step], f"call_{turn}_{step}")[0]


def tools_of(tools: list[Tool]) -> list[dict[str, Any]]:
    """Function schemas."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def _add(talk: Talk, message: Message, learn: bool) -> None:
    talk.messages.append(message)
    talk.learn.append(learn)


def _step(talk: Talk, step: Step, name: str, learn: bool) -> None:
    message, ids = _message(step, name)
    _add(talk, message, learn)
    for index, id in enumerate(ids):
        response = step.response_to(index)
        if response is None:
            raise Unsayable("a call has no response")
        _add(talk, {"role": "tool", "tool_call_id": id, "content": response.content}, False)


def _message(step: Step, name: str) -> tuple[Message, list[str]]:
    message: Message = {"role": "assistant", "content": step.reply}
    if not step.calls and not (step.reply or "").strip():
        raise Unsayable("a step says and does nothing")
    if step.thinking is not None:
        message["reasoning_content"] = step.thinking
    ids: list[str] = []
    calls = []
    for index, call in enumerate(step.calls):
        if not call.valid:
            raise Unsayable("a call is malformed")
        id = call.id if call.id and call.id not in ids else f"{name}_{index}"
        ids.append(id)
        calls.append({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
    if calls:
        message["tool_calls"] = calls
    return message, ids
