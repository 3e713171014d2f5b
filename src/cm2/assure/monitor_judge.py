"""How a monitor judges: a dialogue in, its verdicts and how each duty came out over the whole of it.

The unit that is counted is the dialogue, whatever the scope of a duty: turns of one dialogue are alike, and a test that
took them for independent would be surer than it may be. Over a dialogue a duty *failed* where it failed anywhere; else
it is *unscored* where it could not be decided somewhere; else it *passed* where it applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec

from cm2.assure.monitor_log import Result, Why
from cm2.assure.outcomes import Outcome, decide_outcomes
from cm2.checklist import Checklist, Severity, Task
from cm2.judge.job import Job, judge_job
from cm2.judge.judge import AsyncJudge, Judge
from cm2.judge.stored import Stored
from cm2.llm.flow import ordered
from cm2.llm.scrub import scrub
from cm2.policy import Policy
from cm2.verdict import Verdict

T = TypeVar("T")
MANY = 500
"""Duties that are told apart; of a reference's items there may be any number of sorts."""
OTHER = "(other)"
_REASON = 300


class Found(msgspec.Struct):
    """What a dialogue came to."""

    verdicts: list[Verdict]
    results: dict[str, Result]
    why: dict[str, Why]
    severities: dict[str, Severity | None]
    lost: dict[str, int]
    cost: float


class Judges:
    """Who judges, and by what.

    Args:
        judge: gives the verdicts.
        policy: the duties.
        lent: checklists by dialogue id, where there is no policy. None: those on the rows.
    """

    def __init__(self, judge: Judge, policy: Policy | None = None, lent: dict[str, list[Checklist]] | None = None):
        self.judge, self.policy, self._lent = judge, policy, lent
        self.severities: dict[str, Severity | None] = {}
        if policy is not None:
            self.severities = {duty.id: duty.severity for duty in policy.active}
        self._empty = Stored()
        self._empty.seal()

    @property
    def name(self) -> str:
        """Who judges, for the record."""
        return str(getattr(self.judge, "identity", "") or getattr(self.judge, "name", type(self.judge).__name__))

    @property
    def digests(self) -> dict[str, str]:
        """Of each duty of the policy, a digest of how it is decided."""
        if self.policy is None:
            return {}
        return {
            duty.id: hashlib.blake2b(
                msgspec.json.encode([duty.item(), duty.scope], order="sorted"), digest_size=8
            ).hexdigest()
            for duty in self.policy.active
        }

    def checklists(self, task: Task) -> list[Checklist]:
        """The checklists of a dialogue."""
        if self.policy is not None:
            return self.policy.checklists(task.dialogue)
        return task.checklists if self._lent is None else self._lent.get(task.dialogue.id, [])

    def run(
        self, items: Iterable[T], task: Callable[[T], tuple[Task, str] | None], width: int
    ) -> Iterator[tuple[T, Found | None]]:
        """Judge items in their order, some at once where a model is asked. One without a task comes back in its place.

        Raises:
            ProviderError: fatal: every further call would fail likewise.
            BudgetReached: there is no money left.
        """
        if not hasattr(self.judge, "judge_async"):
            for item in items:
                work = task(item)
                if work is None:
                    yield item, None
                    continue
                mine, rollout = work
                checklists = self.checklists(mine)
                verdicts = [
                    verdict
                    for checklist in checklists
                    for verdict in self.judge.judge(mine.dialogue, checklist.turn, checklist)
                ]
                yield item, self._found(mine, rollout, checklists, verdicts)
            return

        async def one(item: T) -> Found | None:
            work = task(item)
            if work is None:
                return None
            mine, rollout = work
            job = Job(mine, rollout, self.checklists(mine))
            asked = cast(AsyncJudge, self.judge)
            turns = await judge_job(job, asked, self._empty)
            return self._found(mine, rollout, job.checklists, [verdict for turn in turns for verdict in turn.new])

        yield from ordered(items, one, width)

    def _found(self, task: Task, rollout: str, checklists: list[Checklist], verdicts: list[Verdict]) -> Found:
        for verdict in verdicts:
            verdict.rollout = rollout
        outcomes = decide_outcomes(task.dialogue, rollout, checklists, verdicts)
        lost: dict[str, int] = {}
        for verdict in verdicts:
            if verdict.met is None and verdict.applies and verdict.owner:
                lost[verdict.owner] = lost.get(verdict.owner, 0) + 1
        named: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            name = outcome.duty
            if name not in self.severities:
                if len(self.severities) >= MANY:
                    name = OTHER
                self.severities.setdefault(name, outcome.item.severity)
            named.setdefault(name, []).append(outcome)
        results, why = {}, {}
        for name, mine in named.items():
            results[name], deciding = over(mine)
            if results[name] in ("fail", "unscored"):
                owner = deciding.verdict.owner if deciding.verdict is not None else ""
                why[name] = Why(deciding.turn, scrub(deciding.reason)[:_REASON], owner)
        cost = sum(verdict.cost for verdict in verdicts)
        return Found(verdicts, results, why, {name: self.severities[name] for name in named}, lost, cost)


_ORDER: tuple[Result, ...] = ("fail", "unscored", "pass", "not_applicable")


def over(outcomes: Sequence[Outcome]) -> tuple[Result, Outcome]:
    """How a duty came out over a dialogue, and the outcome that says so; see the module."""
    deciding: Any = min(outcomes, key=lambda outcome: _ORDER.index(outcome.result))
    return deciding.result, deciding
