"""Side: one of the two agents of a comparison, as counts by duty and task, wherever it comes from.

Of each run a duty counts once, however many turns or items show it: unscored if any of them could not be decided, else
failed if any failed, else passed if any passed. (Were a run that failed in one turn and is unscored in another called
failed, an agent whose judge breaks down would keep its failures and lose its passes.) What a judge cannot decide at all
(a question, by checks) is not judged, and is in no count.

A run that somebody else than the agent lost (provider, simulator, judge, data) is no run: only its owner is counted.
"""

from __future__ import annotations

import hashlib

import msgspec

from cm2.assure.outcomes import Outcome
from cm2.checklist import Severity
from cm2.judge.judge import NO_CHECK
from cm2.llm.scrub import scrub
from cm2.verdict import UNSCORED

LONGEST = 300
"""Characters of a reason that are kept."""


class Cell(msgspec.Struct, gc=False):
    """One duty in one task: how many of its runs came out how, and what that weighs."""

    passed: int = 0
    failed: int = 0
    unscored: int = 0
    not_applicable: int = 0
    won: float = 0.0
    """Weight of what passed, of what was scored."""
    weight: float = 0.0
    definition: str = ""
    reason: str = ""
    """Why it failed, of the first run that did; where none did, why it is unscored."""

    @property
    def rate(self) -> float | None:
        """Share of its scored runs that passed."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None


class DutyInfo(msgspec.Struct):
    """What there is to know of a duty."""

    severity: Severity | None = None
    owner: str = ""
    question: str = ""


class Side(msgspec.Struct):
    """See the module."""

    name: str
    source: str
    kind: str
    """dialogues, rollouts or gate."""
    runs: dict[str, int] = {}
    """Runs of each task."""
    lost: dict[str, list[str]] = {}
    """Of each task, whose failure each run was that is lost."""
    cells: dict[str, dict[str, Cell]] = {}
    """By duty and task."""
    duties: dict[str, DutyInfo] = {}
    metrics: dict[str, dict[str, float]] = {}
    """What else is known of a task: mean over its runs, by name."""
    unjudged: set[str] = set()
    """Duties that the judge cannot decide."""
    unreadable: int = 0
    problems: list[str] = []

    def cell(self, duty: str, task: str) -> Cell | None:
        """The counts of a duty in a task."""
        return self.cells.get(duty, {}).get(task)


def add_run(side: Side, task: str, outcomes: list[Outcome], digest: bool = False) -> None:
    """Count one run.

    Args:
        side: what to add it to.
        task: which task it is a run of.
        outcomes: of all duties in it.
        digest: remember what the duties were, so that a rewritten one is not compared with the old.
    """
    side.runs[task] = side.runs.get(task, 0) + 1
    by_duty: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if _not_asked(outcome):
            side.unjudged.add(outcome.duty)
        else:
            by_duty.setdefault(outcome.duty, []).append(outcome)
    for duty, mine in by_duty.items():
        if duty not in side.duties:
            item = mine[0].item
            side.duties[duty] = DutyInfo(item.severity, item.owner, item.question)
        cell = side.cells.setdefault(duty, {}).get(task)
        if cell is None:
            cell = side.cells[duty][task] = Cell(definition=_digest(mine) if digest else "")
        _count(cell, mine)


def _count(cell: Cell, outcomes: list[Outcome]) -> None:
    results = {outcome.result for outcome in outcomes}
    if "unscored" in results:
        cell.unscored += 1
        cell.reason = cell.reason or _reason(next(one for one in outcomes if one.result == "unscored"))
        return
    for outcome in outcomes:
        if outcome.result in ("pass", "fail"):
            cell.weight += outcome.weight
            cell.won += outcome.weight if outcome.result == "pass" else 0.0
    if "fail" in results:
        cell.failed += 1
        if cell.failed == 1:
            cell.reason = _reason(next(outcome for outcome in outcomes if outcome.result == "fail"))
    elif "pass" in results:
        cell.passed += 1
    else:
        cell.not_applicable += 1


def _reason(outcome: Outcome) -> str:
    at = f"turn {outcome.turn}: " if outcome.turn >= 0 else ""
    return scrub(f"{at}{outcome.reason.removeprefix(UNSCORED)}")[:LONGEST]


def _not_asked(outcome: Outcome) -> bool:
    """Whether it is unscored because there is a question and nobody to ask."""
    verdict = outcome.verdict
    return outcome.result == "unscored" and verdict is not None and not verdict.owner and NO_CHECK in verdict.reason


def _digest(outcomes: list[Outcome]) -> str:
    items = sorted({msgspec.json.encode(outcome.item) for outcome in outcomes})
    return hashlib.blake2b(b"\n".join(items), digest_size=6).hexdigest()
