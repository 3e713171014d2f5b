"""Sources: what the tools of a reference had answered, and where a value came from.

A value *came from* a response when it stands there and the call that asked for it did not already carry it: an order id
comes from the call that made the order, not from the look-up that was given the id and repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, ToolCall, ToolResponse
from cm2.judge.text import fold, holds
from cm2.judge.values import is_error, parsed, scalar_text, walk
from cm2.label.paths import Leaf, is_map_key, scalars

LONG_TEXT = 24


class Source:
    """One call of the reference with its response.

    Args:
        turn, step, index: where it stands.
        call: the call.
        response: what the tool answered, or None.
    """

    def __init__(self, turn: int, step: int, index: int, call: ToolCall, response: ToolResponse | None):
        self.turn, self.step, self.index, self.call, self.response = turn, step, index, call, response
        self.failed = not call.valid or (response is not None and is_error(response))

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.call.name

    @property
    def empty(self) -> bool:
        """Whether the answer holds nothing: no list item, no text, only nulls, zeros and flags."""
        return not any(each not in ("", 0) and not isinstance(each, bool) for each in walk(self.value, keys=False))

    @property
    def answered(self) -> bool:
        """Whether the tool gave an answer that is no error."""
        return self.response is not None and not self.failed

    @cached_property
    def value(self) -> Any:
        """The response as a JSON value (None without a good answer)."""
        return parsed(self.response.content) if self.response is not None and self.answered else None

    @cached_property
    def leaves(self) -> list[Leaf]:
        """The scalars of the response; keys that are ids themselves count as values."""
        found = list(scalars(self.value))
        keys = {
            leaf.keys[: at + 1]
            for leaf in found
            for at, key in enumerate(leaf.keys)
            if isinstance(key, str) and is_map_key(key)
        }
        return found + [Leaf(each, each[-1]) for each in sorted(keys, key=str)]

    @cached_property
    def given(self) -> frozenset[str]:
        """The scalars of the call's own arguments, folded."""
        return frozenset(fold(scalar_text(each)) for each in walk(self.call.arguments, keys=False))

    @cached_property
    def by_text(self) -> dict[str, Leaf]:
        """The first leaf of each value, by its text."""
        found: dict[str, Leaf] = {}
        for leaf in self.leaves:
            if not isinstance(leaf.value, bool):
                found.setdefault(scalar_text(leaf.value), leaf)
        return found

    def find(self, value: Any) -> Leaf | None:
        """Where the value stands in the response: as a scalar, else as words of a longer text."""
        text = scalar_text(value)
        leaf = self.by_text.get(text)
        if leaf is not None or not isinstance(value, str) or len(fold(text)) < 3:
            return leaf
        folded = fold(text)
        for each in self.leaves:
            long = isinstance(each.value, str) and (" " in each.value or len(each.value) > LONG_TEXT)
            if long and holds(fold(each.value), folded):
                return each
        return None

    def echoes(self, value: Any) -> bool:
        """Whether the call already carried the value."""
        return fold(scalar_text(value)) in self.given


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from."""

    source: Source
    leaf: Leaf


class Sources:
    """Every call of a reference, in order.

    Args:
        dialogue: the reference.
    """

    def __init__(self, dialogue: Dialogue):
        self.all = [Source(*each) for each in dialogue.calls()]

    def of(self, turn: int) -> list[Source]:
        """The calls of one turn."""
        return [source for source in self.all if source.turn == turn]

    def before(self, turn: int, step: int) -> Iterator[Source]:
        """Answered calls from before a step, latest first."""
        for source in reversed(self.all):
            if source.answered and (source.turn, source.step) < (turn, step):
                yield source

    def origin(self, value: Any, turn: int, step: int) -> Origin | None:
        """Where a value first stood before a step, in that tool's latest answer that holds it.

        The first: an agent that skips a later look-up which shows the value again has it all the same. Answers to calls
        that already carried the value only repeat it; one that a call carried first came from no tool. A boolean comes
        from nowhere: every response has its like.
        """
        if isinstance(value, bool) or value in (None, ""):
            return None
        found = [Origin(source, leaf) for source in self.before(turn, step) if (leaf := source.find(value)) is not None]
        fresh = [origin for origin in found if not origin.source.echoes(value)]
        if not fresh or found[-1].source.echoes(value):
            return None
        return next(origin for origin in fresh if origin.source.tool == fresh[-1].source.tool)
