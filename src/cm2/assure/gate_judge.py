"""Judging runs: every run by every checklist that it has, in order, many at once where a model is asked.

What a judge or its provider does not decide is unscored, with the owner of the failure. A lost run is not judged: all
of its duties are unscored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from cm2.assure.gate_runs import Run, Shown
from cm2.assure.outcomes import Outcome, decide_outcomes
from cm2.checklist import Checklist
from cm2.errors import CM2Error, told
from cm2.judge import Judge
from cm2.judge.judge import AsyncJudge, judge_dialogue, needs_end
from cm2.llm import BudgetReached, ProviderError
from cm2.llm.flow import ordered
from cm2.verdict import WHOLE, Verdict, unscored


def judge_runs(runs: Iterable[Run], judge: Judge, width: int, problems: list[str]) -> Iterator[Shown]:
    """The runs with how their duties came out, in order.

    A judge that fails for good (a refused key, no money left) is asked no more; what it did not decide is unscored.
    """
    if not hasattr(judge, "judge_async"):
        for run in runs:
            yield _shown(run, lambda checklist, run=run: judge.judge(run.dialogue, checklist.turn, checklist))  # type: ignore[misc]
        return
    asking, broken = cast(AsyncJudge, judge), list[CM2Error]()

    async def work(run: Run) -> dict[int, list[Verdict]]:
        said: dict[int, list[Verdict]] = {}
        every = [one for group in run.checklists for one in group]
        # At once where the judge takes a whole dialogue in one question, else one turn after the other.
        for together in [every] if needs_end(asking) else [[one] for one in every]:
            if run.lost or broken:
                break
            try:
                found = await judge_dialogue(asking, run.dialogue, together)
                said |= {id(checklist): mine for checklist, mine in zip(together, found, strict=True)}
            except (ProviderError, BudgetReached) as error:
                if isinstance(error, BudgetReached) or error.fatal:
                    broken.append(error)
                    problems.append(f"the judge was asked no more: {told(error)}")
        return said

    for run, said in ordered(runs, work, width):
        yield _shown(run, lambda checklist, said=said: said.get(id(checklist)))  # type: ignore[misc]


def _shown(run: Run, judged: Callable[[Checklist], list[Verdict] | None]) -> Shown:
    outcomes: list[Outcome] = []
    for group in run.checklists:
        if run.lost:
            outcomes += _nothing(run, group, run.lost, run.lost_by)
            continue
        said = {index: judged(checklist) for index, checklist in enumerate(group)}
        for index, checklist in enumerate(group):
            verdicts = said[index]
            if verdicts is None:
                outcomes += _nothing(run, [checklist], "the judge gave no verdict", "provider")
            else:
                outcomes += decide_outcomes(run.dialogue, "", [checklist], verdicts)
    return Shown(run, outcomes)


def _nothing(run: Run, checklists: list[Checklist], why: str, owner: str) -> Iterator[Outcome]:
    for checklist in checklists:
        for item in checklist.items:
            place = (run.dialogue.id, checklist.turn, WHOLE, item.id)
            verdict = Verdict(*place, None, checklist.variant, unscored(why), owner=owner)
            yield Outcome(run.dialogue.id, "", checklist.variant, checklist.turn, item, "unscored", verdict)
