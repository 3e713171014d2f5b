"""What a comparison found: each duty and number under both agents, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from cm2.assure.paired import Contrast
from cm2.checklist import Severity

Change = Literal["better", "worse", "could be chance", "not compared"]


class Flip(msgspec.Struct):
    """A task that came out differently."""

    task: str
    a: float
    b: float
    reason: str
    """Why it failed on the side that is worse."""


class DutyChange(msgspec.Struct, kw_only=True):
    """One duty under both agents."""

    duty: str
    severity: Severity | None = None
    owner: str = ""
    question: str = ""
    change: Change = "not compared"
    contrast: Contrast | None = None
    """None where no task has it scored on both sides."""
    p: float | None = None
    """Corrected: what the change is decided by."""
    correction: Literal["holm", "benjamini-hochberg", ""] = ""
    """Empty where too few tasks differ for any p below alpha."""
    unscored: int = 0
    """Tasks that are left out because a side could not be scored."""
    why_unscored: str = ""
    """Of the first of them, where a judge says it."""
    only_a: int = 0
    """Tasks that are left out because the duty applies under A only, or B only."""
    only_b: int = 0
    redefined: int = 0
    """Tasks that are left out because the duty is not the same."""
    needed: int | None = None
    """Tasks that would show a difference of the size found, with the power asked for."""
    detectable: float | None = None
    """The smallest difference that the tasks at hand show with that power."""
    got_better: list[Flip] = []
    got_worse: list[Flip] = []


class MetricChange(msgspec.Struct, kw_only=True):
    """A number of each task under both agents. It stands alone: its p is not corrected."""

    name: str
    change: Change
    contrast: Contrast
    needed: int | None = None
    detectable: float | None = None


class SideSummary(msgspec.Struct):
    """What there was of one agent."""

    name: str
    source: str
    kind: str
    tasks: int
    runs: int
    unpaired: int
    """Tasks that the other does not have."""
    lost: dict[str, int]
    """Runs that somebody else than the agent lost, by owner."""
    unreadable: int


class Comparison(msgspec.Struct, kw_only=True):
    """What came out. Differences are B minus A."""

    a: SideSummary
    b: SideSummary
    tasks: int
    """Tasks that both have."""
    lost_tasks: int
    """Of those, the ones of which a side has no run that counts: they are in no pair."""
    alpha: float
    power: float
    metrics: list[MetricChange] = []
    duties: list[DutyChange] = []
    not_judged: list[str] = []
    """Duties that are a question, where only checks judged."""
    notes: list[str] = []

    def changed(self, change: Change) -> list[DutyChange]:
        """The duties that came out so."""
        return [duty for duty in self.duties if duty.change == change]
