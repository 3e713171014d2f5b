"""Judge: who says, for each item of a turn's checklist, whether it holds after each step.

A judge gives one verdict an item and step of the turn, about the state after that step. It does not latch and knows
nothing of dependencies: that is the business of `cm2.credit`. `met` is None where the item could not be decided
(unscored): by checks, an item without one, or one whose check is itself broken; by a model, where it failed or its
provider did (`Verdict.owner`). Unscored is never a no.

A judge that asks a model also has `judge_async`. Its calls live on the door's event loop (`cm2.llm.flow`), whatever
loop or thread it is asked from.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.judge.checks import Decision, decide
from cm2.verdict import Verdict, unscored

R = TypeVar("R")
NO_CHECK = "the item carries no check"
BROKEN_CHECK = "the check is broken"


class Judge(Protocol):
    """What judges a turn. The judged dialogue may be another run of the checklist's task: turns line up by index."""

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """One verdict an item and step, in order of step, then item, for the steps from `since` on.

        A turn that the run never reached has no states and so no verdicts.
        """


class AsyncJudge(Judge, Protocol):
    """A judge whose verdicts must be waited for."""

    async def judge_async(
        self,
        dialogue: Dialogue,
        turn: int,
        checklist: Checklist,
        since: int = 0,
        known: Sequence[Verdict] = (),
        again: int = 0,
    ) -> list[Verdict]:
        """As `Judge.judge`, awaited, from any event loop.

        Args:
            dialogue, turn, checklist, since: see `Judge.judge`.
            known: verdicts on some of the items, from step 0 on: those items are not judged and not in the result, but
                what depends on them is judged accordingly.
            again: which further try this is of items that could not be decided; a further try is a new draw.

        Raises:
            ProviderError: fatal: every further call would fail likewise.
            BudgetReached: there is no money left.
        """


def wait(work: Coroutine[Any, Any, R]) -> R:
    """Run a judge's work on the door's event loop and wait for it.

    Raises:
        RuntimeError: this is that loop, which would wait for itself for ever.
    """
    from cm2.llm import flow  # not above: checks need no model

    if _running() is flow.loop():
        work.close()
        raise RuntimeError("judge() was called on the event loop of cm2.llm; await judge_async() there")
    return flow.wait(work)


async def on_door(work: Coroutine[Any, Any, R]) -> R:
    """Await a judge's work, which is done on the door's event loop, from any loop."""
    from cm2.llm import flow

    if _running() is flow.loop():
        return await work
    return await asyncio.wrap_future(flow.submit(work))


class OnDoor(ABC):
    """Both ways of calling a judge that asks a model, made of its `_judge`, which runs on the door's event loop."""

    @abstractmethod
    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        """The arguments of `AsyncJudge.judge_async`."""

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`; not on the door's own event loop."""
        return wait(self._judge(dialogue, turn, checklist, since, (), 0))

    async def judge_async(
        self,
        dialogue: Dialogue,
        turn: int,
        checklist: Checklist,
        since: int = 0,
        known: Sequence[Verdict] = (),
        again: int = 0,
    ) -> list[Verdict]:
        """See `AsyncJudge.judge_async`."""
        return await on_door(self._judge(dialogue, turn, checklist, since, known, again))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class ChecksJudge:
    """Judges items by their compiled checks: free, without noise, the same answer every time."""

    name = "checks"
    identity = ""
    """What tells its verdicts from other judges'; see `cm2.judge.run`."""

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`."""
        if turn >= len(dialogue.turns):
            return []
        steps = range(since, len(dialogue.turns[turn].steps))
        return [
            self._verdict(dialogue, turn, step, item, checklist.variant) for step in steps for item in checklist.items
        ]

    def _verdict(self, dialogue: Dialogue, turn: int, step: int, item: Item, variant: int) -> Verdict:
        met: bool | None = None
        decision = Decision(False, unscored(NO_CHECK))
        owner = ""
        if item.check is not None:
            try:
                decision = decide(item.check, dialogue, turn, step)
                met = decision.met
            except DataError as error:
                decision, owner = Decision(False, unscored(BROKEN_CHECK, str(error))), "data"
        return Verdict(
            dialogue=dialogue.id,
            turn=turn,
            step=step,
            item=item.id,
            met=met,
            variant=variant,
            reason=decision.reason,
            evidence=decision.evidence,
            judge=self.name,
            owner=owner,
        )
