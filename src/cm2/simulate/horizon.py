"""Horizon: what of the reference a simulator may know while a rollout plays.

The reference is the record of another run of the same dialogue. What it says about the world is true, but what comes
later in it is the future: an answer made with it would tell the agent what it has still to find out. So

- a recorded answer is *open*, shown with its values, when it comes from an earlier turn, or from the turn being played
  and this session has made every write that the reference made in that turn before it;
- of every other recorded answer only the *form* may be used: keys and types, never a value;
- people's messages are open up to the turn being played.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, ToolCall
from cm2.judge.text import fold
from cm2.judge.values import is_error, scalar_text, walk
from cm2.simulate.effects import Effects
from cm2.simulate.examples import is_empty
from cm2.simulate.replay import call_key

_WORD = re.compile(r"\w+")


class Record(msgspec.Struct):
    """An answered, well-formed call of the reference."""

    turn: int
    call: ToolCall
    content: str
    value: Any
    error: bool
    after: list[ToolCall]
    """The writes before it."""
    needs: frozenset[str]
    """Of those, the ones of its own turn, by their keys."""

    @property
    def empty(self) -> bool:
        """Whether the answer says that nothing was found."""
        return not self.error and is_empty(self.value)


class Horizon:
    """See the module.

    Args:
        dialogue: the reference.
        effects: which of its calls changed the world.
    """

    def __init__(self, dialogue: Dialogue, effects: Effects):
        self.dialogue = dialogue
        self.records: list[Record] = []
        writes, own, now = list[ToolCall](), frozenset[str](), -1
        for turn, _, _, call, response in dialogue.calls():
            if turn != now:
                own, now = frozenset(), turn
            if response is None:
                continue
            if call.valid:
                error = is_error(response)
                self.records.append(Record(turn, call, response.content, response.value, error, list(writes), own))
            if effects.changed(call, response):
                writes, own = [*writes, call], own | {call_key(call)}
        self._said: dict[int, set[str]] = {}

    def open(self, turn: int, written: set[str]) -> list[Record]:
        """The records whose values are known in a turn to a session that has made these writes (by their keys)."""
        return [one for one in self.records if one.turn < turn or (one.turn == turn and one.needs <= written)]

    def users(self, turn: int) -> list[str]:
        """What the person has said by this turn."""
        return [one.user for one in self.dialogue.turns[: turn + 1]]

    def hidden(self, known: Iterable[Record], turn: int) -> set[str]:
        """Every scalar (as text) that only records beyond the horizon hold, and the words of later messages: an object
        key among them is a value in disguise."""
        known = list(known)
        told = {text for record in known for text in _texts(record)} | self._words(range(turn + 1))
        held = {id(record) for record in known}
        hidden = {text for record in self.records if id(record) not in held for text in _texts(record)}
        return (hidden | self._words(range(turn + 1, len(self.dialogue.turns)))) - told

    def _words(self, turns: Iterable[int]) -> set[str]:
        found: set[str] = set()
        for turn in turns:
            if turn not in self._said:
                texts = [self.dialogue.turns[turn].user if turn < len(self.dialogue.turns) else ""]
                self._said[turn] = {word for text in texts for word in (*_WORD.findall(text), *fold(text).split())}
            found |= self._said[turn]
        return found


def keys_of(writes: list[tuple[ToolCall, str]]) -> set[str]:
    """The keys of a session's writes."""
    return {call_key(call) for call, _ in writes}


def _texts(record: Record) -> set[str]:
    values = [*walk(record.value, keys=False), *walk(record.call.arguments, keys=False)]
    return {scalar_text(value) for value in values}
