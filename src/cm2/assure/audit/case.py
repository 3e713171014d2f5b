"""Case: one outcome that people look at, and what they say about it.

A case is an outcome (one duty in one dialogue, see `cm2.assure.outcomes`) that was drawn from a stratum with a known
probability. A review is what one person says about it: that the duty holds, that it does not, that it does not apply,
or that it cannot be told. Reviews of one case by several people are votes; a tie leaves the truth unknown.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cm2.checklist import Item
from cm2.verdict import Verdict

Kind = Literal["pass", "fail", "unscored", "not_applicable"]
Decision = Literal["pass", "fail", "not_applicable", "cannot_tell"]
ALL = ""
"""The population of all duties together."""
SCORED: tuple[Kind, Kind] = ("pass", "fail")
Action = Literal["edit", "approve", "retire", "restore"]


class Stratum(msgspec.Struct):
    """Outcomes that are drawn with one probability."""

    id: int
    verdict: Kind
    duty: str
    """"" where small duties were put together."""
    level: str
    """How sure the judge is (see `cm2.assure.audit.doubt`); "" where levels were put together."""
    size: int
    """Outcomes in the logs."""
    drawn: int
    """Of these, cases."""

    @property
    def name(self) -> str:
        """For a person."""
        return " · ".join(part for part in (self.duty or "several duties", self.verdict, self.level) if part)


class Said(msgspec.Struct):
    """All outcomes of a duty with one verdict, as the judge gave them: how many, and its certainty of a yes."""

    size: int = 0
    total: float = 0.0
    """Sum of the certainties (`cm2.assure.audit.doubt.certainty`)."""
    squares: float = 0.0
    """Sum of their squares."""

    def add(self, certainty: float) -> None:
        """Count one more."""
        self.size += 1
        self.total += certainty
        self.squares += certainty * certainty


class Population(msgspec.Struct):
    """What the judge said of one duty in all of the logs."""

    duty: str
    severity: str = ""
    passed: Said = msgspec.field(default_factory=Said)
    failed: Said = msgspec.field(default_factory=Said)
    unscored: int = 0
    not_applicable: int = 0
    not_judged: int = 0
    """Without any verdict: a turn that the run did not reach, or a store that is not complete."""
    spread: list[tuple[int, int, int]] = []
    """(passed, scored, in how many dialogues), for intervals that know dialogues."""


class Case(msgspec.Struct, kw_only=True):
    """See the module."""

    id: int
    """Also its place in the queue, which is random: whoever stops early has reviewed a random part of the sample."""
    stratum: int
    dialogue: int
    """The number of the dialogue in the book."""
    duty: str
    """The name under which outcomes are counted."""
    subject: str
    """What is edited when the duty is: a policy's duty by its id, an item of a checklist by its place."""
    turn: int
    variant: int
    item: Item
    """As it was judged."""
    kind: Kind
    verdict: Verdict | None
    probability: float
    """With which it was drawn."""
    certainty: float
    """How far the judge said yes, from 0 to 1."""
    wanted: int = 1
    """How many people should review it."""


class Review(msgspec.Struct, kw_only=True):
    """What one person says about one case."""

    case: int
    reviewer: str
    decision: Decision
    reason: str = ""
    blind: bool = False
    """Whether the person decided without seeing the verdict."""
    version: int = 1
    at: str = ""


class Subject(msgspec.Struct, kw_only=True):
    """A duty of a policy, or an item of a checklist, as it stands in the audit."""

    key: str
    name: str
    """Of the duty that it is counted under."""
    kind: Literal["duty", "item"]
    spec: dict[str, Any]
    source: dict[str, Any]
    """As it was when the sample was drawn."""
    status: Literal["open", "approved", "retired"] = "open"
    version: int = 1

    @property
    def edited(self) -> bool:
        """Whether it differs from what was judged."""
        return self.spec != self.source


class Change(msgspec.Struct, kw_only=True):
    """One entry of the log, which only grows."""

    id: int
    at: str
    reviewer: str
    what: Literal["duty", "review"]
    target: str
    action: str
    reason: str = ""
    before: Any = None
    after: Any = None


def opinion(decisions: list[Decision]) -> Decision | None:
    """What several people say together: the one that most chose of those who could tell; None where they tie.

    Nobody who could tell: `cannot_tell`.
    """
    told = [one for one in decisions if one != "cannot_tell"]
    if not told:
        return "cannot_tell" if decisions else None
    counts = {one: told.count(one) for one in dict.fromkeys(told)}
    best = [one for one, count in counts.items() if count == max(counts.values())]
    return best[0] if len(best) == 1 else None
