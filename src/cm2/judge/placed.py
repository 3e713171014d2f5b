"""Placed: an item of one turn among those of other turns, and what a question about all of them shows.

In a question about a dialogue that is over, items of several turns stand side by side. Each says whose it is (`turn`)
and has an id that no item of another turn has. It may hold only at steps of its own turn, whatever follows; the items
about the whole dialogue (turn `WHOLE`) hold anywhere.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from cm2.checklist import Checklist, Item
from cm2.dialogue import Step
from cm2.judge.scope import final_reply, whole
from cm2.judge.view import View
from cm2.verdict import WHOLE


class Placed(Item):
    """An item that says which turn it is about."""

    turn: int = 0


def placed(item: Item, checklist: Checklist, copy: int = 0) -> Placed:
    """The item as it stands among those of other turns: `C1` of turn 3 is `t3.C1`, of the whole dialogue `all.C1`.
    `copy` tells checklists of one turn and variant apart."""
    where = "all" if checklist.turn == WHOLE else f"t{checklist.turn}"
    variant = f"v{checklist.variant}" if checklist.variant else ""
    told: dict[str, Any] = {name: getattr(item, name) for name in Item.__struct_fields__}
    number = f"n{copy}" if copy else ""
    return Placed(**told | {"id": f"{where}{variant}{number}.{item.id}", "turn": checklist.turn})


class DialogueView(View, frozen=True, dict=True):
    """A dialogue up to the end of its turn `turn`, with the thinking of some turns or without any.

    `upto` is the last step of that turn, -1 where it has none.
    """

    minds: tuple[int, ...] = ()
    """Turns whose thinking is shown."""

    @cached_property
    def _flat(self) -> list[tuple[int, int]]:
        return [place for place in whole(self.dialogue).places if place[0] <= self.turn]

    @property
    def steps(self) -> list[Step]:
        """The steps of all turns that are shown."""
        return [self.dialogue.turns[t].steps[s] for t, s in self._flat]

    @cached_property
    def thinking(self) -> list[str]:
        """The thinking of those turns, a block a step."""
        return [
            self.fence.block(f"private thinking of the agent in turn {t} step {s}", step.thinking)
            for t in self.minds
            for s, step in enumerate(self.dialogue.turns[t].steps)
            if step.thinking
        ]

    @property
    def ending(self) -> str:
        """Which turns an agent that was cut off left open."""
        turns = self.dialogue.turns[: self.turn + 1]
        open_ = [str(t) for t, turn in enumerate(turns) if turn.steps and final_reply(turn.steps) is None]
        if not open_:
            return "Every turn in which the agent did anything ended with a reply to the user."
        which = f"Turn {open_[0]}" if len(open_) == 1 else f"Turns {', '.join(open_)}"
        return f"{which} broke off without a final reply to the user; every other turn ended with one."

    def places(self, item: Item, first: int | None) -> list[tuple[int, int]]:
        """See `View.places`; `first` counts the steps of the item's turn, or of all turns for the whole dialogue."""
        turn = turn_of(item)
        if turn == WHOLE:
            return self._flat if first is None else [self._flat[first]]
        last = len(self.dialogue.turns[turn].steps) if first is None else first + 1
        return [(turn, s) for s in range(last)]

    def first(self, item: Item, turn: int, step: int) -> int | None:
        """The step that an answer names, as `places` counts it; None where the item cannot hold there."""
        if (turn, step) not in self._flat:
            return None
        if turn_of(item) == WHOLE:
            return self._flat.index((turn, step))
        return step if turn == turn_of(item) else None

    @cached_property
    def key(self) -> bytes:
        """See `View.key`: everything that is shown, later turns too."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (str(("dialogue", self.turn, self.minds)), self.ending, self.record, *self.thinking):
            digest.update(part.encode(errors="surrogatepass") + b"\0")
        return digest.digest()


def turn_of(item: Item) -> int:
    """The turn that a placed item is about."""
    assert isinstance(item, Placed)
    return item.turn
