"""Scope: what a check looks at, which is one turn so far, or a whole dialogue that is over.

The state after step `upto` of a turn (x_{s+1} of the method, section 3) is everything said in earlier turns plus steps
0 … upto of this turn, with their tool responses. Leaves look at the steps of the turn; what lies before serves to say
where a value came from.

A whole dialogue is one long turn: its steps are those of all turns, numbered through, and `place` gives each its true
turn and step back. It is over, so what must not happen is settled in it, once anything was done at all. It has several
final replies: one for each turn that got one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, Step, ToolResponse
from cm2.judge.text import clean
from cm2.judge.values import is_error
from cm2.verdict import WHOLE, Pointer


class Decision(msgspec.Struct):
    """Whether a check holds, why in one sentence, and the places in the judged trajectory that it rests on."""

    met: bool
    reason: str
    evidence: list[Pointer] = []


class State(msgspec.Struct, frozen=True, dict=True):
    """The transcript up to and with step `upto` of `turn`."""

    dialogue: Dialogue
    turn: int
    upto: int
    over: bool = False
    """Nothing follows: the turn was broken off here, or the dialogue ended."""

    @property
    def steps(self) -> list[Step]:
        """The steps that have happened, of the turn or of the whole dialogue."""
        return self.dialogue.turns[self.turn].steps[: self.upto + 1]

    @property
    def reply(self) -> str | None:
        """The visible reply that ended the turn, or None while the agent still acts or where it said nothing."""
        return final_reply(self.steps)

    @property
    def settled(self) -> bool:
        """Whether what has not happened will not happen any more."""
        return self.over or self.reply is not None

    def place(self, step: int) -> tuple[int, int]:
        """Turn and step of one of `steps`, as the dialogue counts them."""
        return self.turn, step

    def past(self, upto: int) -> State:
        """The same scope at an earlier step."""
        return State(self.dialogue, self.turn, upto, self.over and upto == self.upto)

    def earlier(self, step: int, tool: str | None) -> Iterator[tuple[int, int, ToolResponse]]:
        """Responses, errors left out, from before step `step`: (turn, step, response), latest first."""
        for t in range(self.turn, -1, -1):
            steps = self.dialogue.turns[t].steps
            for s in range(min(step, len(steps)) - 1 if t == self.turn else len(steps) - 1, -1, -1):
                for response in answers(steps[s], tool):
                    yield t, s, response

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What its readers make of it once, by name: the same state is read by every item of a checklist."""
        return {}


class Whole(State, frozen=True, dict=True):
    """A whole dialogue, up to and with step `upto` of `flat`, its steps numbered through."""

    flat: list[Step] = []
    places: list[tuple[int, int]] = []

    @property
    def steps(self) -> list[Step]:
        """See `State.steps`."""
        return self.flat[: self.upto + 1]

    @property
    def settled(self) -> bool:
        """Whether the dialogue is over and anything was done in it."""
        return self.over and bool(self.flat)

    def place(self, step: int) -> tuple[int, int]:
        """See `State.place`."""
        return self.places[step]

    def past(self, upto: int) -> Whole:
        """See `State.past`; the dialogue is over after its last step only."""
        over = upto == len(self.flat) - 1
        return Whole(self.dialogue, self.turn, upto, over, self.flat, self.places)

    @property
    def final_replies(self) -> list[int]:
        """The steps whose reply ended a turn."""
        turns = self.dialogue.turns
        return [
            at
            for at, (t, s) in enumerate(self.places[: self.upto + 1])
            if s == len(turns[t].steps) - 1 and final_reply(turns[t].steps) is not None
        ]

    def earlier(self, step: int, tool: str | None) -> Iterator[tuple[int, int, ToolResponse]]:
        """See `State.earlier`."""
        for at in range(min(step, self.upto + 1) - 1, -1, -1):
            for response in answers(self.flat[at], tool):
                yield *self.places[at], response


def whole(dialogue: Dialogue) -> Whole:
    """The dialogue as one long turn that is over."""
    places = [(t, s) for t, turn in enumerate(dialogue.turns) for s in range(len(turn.steps))]
    flat = [step for turn in dialogue.turns for step in turn.steps]
    return Whole(dialogue, WHOLE, len(flat) - 1, True, flat, places)


def state_of(dialogue: Dialogue, turn: int, upto: int) -> State:
    """The state after step `upto` of turn `turn` (both 0-based; -1 is before the first step), or the whole dialogue
    where the turn is `WHOLE`.

    Raises:
        IndexError: the dialogue has no such turn or step.
    """
    if turn == WHOLE:
        return whole(dialogue)
    if not 0 <= turn < len(dialogue.turns) or not -1 <= upto < len(dialogue.turns[turn].steps):
        raise IndexError(f"dialogue {dialogue.id} has no step {upto} in turn {turn}")
    return State(dialogue, turn, upto)


def final_reply(steps: list[Step]) -> str | None:
    """The visible reply that ends these steps, or None where the last of them calls tools or says nothing."""
    if not steps or steps[-1].calls or not steps[-1].reply:
        return None
    return steps[-1].reply if clean(steps[-1].reply).strip() else None


def answers(step: Step, tool: str | None) -> Iterator[ToolResponse]:
    """The responses of a step to calls of a tool (any where None), errors left out, latest first."""
    for i in range(len(step.calls) - 1, -1, -1):
        if tool is None or step.calls[i].name == tool:
            response = step.response_to(i)
            if response is not None and not is_error(response):
                yield response
