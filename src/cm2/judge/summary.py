"""Summary: what a run of judging found, item by item, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cm2.checklist import Checklist
from cm2.judge.question import Counts
from cm2.verdict import WHOLE


class Tally(msgspec.Struct):
    """Items of one kind. `passed` held in some state of its turn, `failed` was judged in none (turns that the run never
    reached included), `unscored` could not be decided, for `not_applicable` there was no occasion; those two count in
    neither."""

    items: int = 0
    passed: int = 0
    failed: int = 0
    not_reached: int = 0
    unscored: int = 0
    not_applicable: int = 0

    @property
    def pass_rate(self) -> float | None:
        """passed / (passed + failed), None where nothing was scored."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None


class Found(msgspec.Struct, frozen=True):
    """What was said of an item after one step."""

    met: bool | None
    kind: str = ""
    """Why it is unscored."""
    failed: bool = False
    """A model or its provider failed."""
    applies: bool = True
    """False: there was no occasion for it."""


class Summary(msgspec.Struct):
    """What a run judged."""

    dialogues: int = 0
    without_checklist: int = 0
    duplicates: int = 0
    unreadable: int = 0
    turns: int = 0
    verdicts: int = 0
    written: int = 0
    total: Tally = msgspec.field(default_factory=Tally)
    by_policy: bool = False
    kinds: dict[str, Tally] = {}
    """By the id of a policy's duty, or by the kind of an item."""
    unscored: dict[str, int] = {}
    """Unscored items by reason."""
    failed: int = 0
    """Of those, the ones that a model or its provider failed to decide; the same command tries them again."""
    counts: Counts = msgspec.field(default_factory=Counts)
    """Calls, money, and what was spared, of this run."""
    problems: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, with the pass rates."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        value |= value.pop("counts")
        value["total"]["pass_rate"] = self.total.pass_rate
        for kind, tally in self.kinds.items():
            value["kinds"][kind]["pass_rate"] = tally.pass_rate
        return value

    def add(self, checklist: Checklist, said: Mapping[str, Sequence[Found]], needs_check: bool) -> None:
        """Count the verdicts of one turn.

        Args:
            checklist: of the turn.
            said: of each item, what was said after each step; nothing where the turn was never reached.
            needs_check: whether the judge can decide only items that carry a check.
        """
        self.turns += checklist.turn != WHOLE
        for item in checklist.items:
            mine = said.get(item.id, ())
            self.verdicts += len(mine)
            lost = next((found for found in mine if found.met is None and found.applies), None)
            passed = any(found.met is True for found in mine)
            absent = bool(mine) and not any(found.applies for found in mine)
            kind = item.id if item.severity else item.kind or "(none)"
            for tally in (self.total, self.kinds.setdefault(kind, Tally())):
                tally.items += 1
                if passed:
                    tally.passed += 1
                elif absent:
                    tally.not_applicable += 1
                elif lost is not None or (item.check is None and needs_check):
                    tally.unscored += 1
                else:
                    tally.failed += 1
                    tally.not_reached += not mine
            if not passed and lost is not None:
                self.unscored[lost.kind] = self.unscored.get(lost.kind, 0) + 1
                self.failed += lost.failed
