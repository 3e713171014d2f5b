"""Replay: recorded answers, found by what was called and after which writes.

Two calls are the same when tool and arguments are equal as JSON values: key order does not matter and 1 is 1.0. What a
call answers depends on what was written before, so a recording is filed under its call and its *state*: a hash of the
ordered writes that came before it. A session whose writes differ from the reference's still gets the recorded answer of
that call, from the recorded state that its own writes resemble most. A call recorded several times in one state
(polling) is handed out in order of recording, the last one again and again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, Tool, ToolCall, ToolResponse


def canonical(value: Any) -> Any:
    """The same JSON value in one form: whole numbers as integers, so that 1 and 1.0 are written alike."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def call_key(call: ToolCall) -> str:
    """What two equal calls share. A malformed call is only equal to one with the same text."""
    if not call.valid:
        return f"{call.name}!{call.raw}"
    return f"{call.name} {msgspec.json.encode(canonical(call.arguments), order='sorted').decode()}"


class State(msgspec.Struct, frozen=True):
    """The writes that a session has made, in order: their keys' running hash and the tools' names."""

    hash: str = ""
    tools: tuple[str, ...] = ()

    def after(self, key: str, tool: str) -> State:
        """The state after one more write."""
        digest = hashlib.blake2b(f"{self.hash}\n{key}".encode(), digest_size=12).hexdigest()
        return State(digest, (*self.tools, tool))


class Heard(msgspec.Struct):
    """A call that a session made and the answer it got; `writes` is how many writes came before."""

    call: ToolCall
    content: str
    writes: int = 0


class Context(msgspec.Struct):
    """What a backend is told beside the call: the tool, the state, and the writes made so far with their answers.

    Siblings share an answer that depends on nothing else. A backend that also looks at `turn` or `heard` says what it
    made of them (`depends` of `cm2.simulate.world.Responder`), and the answer is shared among those for whom that is
    the same.
    """

    tool: Tool
    state: State
    writes: list[tuple[ToolCall, str]]
    turn: int = 0
    """Which turn of the dialogue is being played."""
    heard: list[Heard] = []
    """Every answer that this session got from the world, in order; the environment's own errors are none."""


class Recordings:
    """Every answered call of a reference, by call and state.

    Args:
        dialogue: the reference.
        changed: whether a call, with its answer, changed the world.
        key: what two equal calls share.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        changed: Callable[[ToolCall, ToolResponse], bool],
        key: Callable[[ToolCall], str] = call_key,
    ):
        self._by_call: dict[str, dict[State, list[str]]] = {}
        state = State()
        for _, _, _, call, response in dialogue.calls():
            if response is None:
                continue
            own = key(call)
            self._by_call.setdefault(own, {}).setdefault(state, []).append(response.content)
            if changed(call, response):
                state = state.after(own, call.name)

    def __contains__(self, key: str) -> bool:
        return key in self._by_call

    def find(self, key: str, state: State, nth: int = 0, exactly: bool = False) -> str | None:
        """The recorded answer to the `nth` (0-based) such call in this state, None where the call is not recorded;
        with `exactly` also where it is recorded in other states only."""
        states = self._by_call.get(key)
        if states is None:
            return None
        answers = states.get(state)
        if answers is None:
            if exactly:
                return None
            answers = states[min(states, key=lambda recorded: _distance(recorded, state))]
        return answers[min(nth, len(answers) - 1)]


def _distance(recorded: State, state: State) -> tuple[bool, int, int]:
    """How little two states resemble each other: other tools wrote, other number of writes, recorded later."""
    return (
        Counter(recorded.tools) != Counter(state.tools),
        abs(len(recorded.tools) - len(state.tools)),
        len(recorded.tools),
    )
