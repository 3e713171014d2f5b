"""Judge: who says, for each item of a turn's checklist, whether it holds after each step.

A judge gives one verdict an item and step of the turn, about the state after that step. It does not latch and knows
nothing of dependencies: that is the business of `cm2.credit`. `met` is None where the item could not be decided
(unscored): by checks, an item without one, or one whose check is itself broken; by a model, where it failed or its
provider did (`Verdict.owner`). Unscored is never a no. It is None too where there was no occasion for the duty
(`cm2.judge.occasion`), which is nobody's failure.

Items about the whole dialogue (turn `WHOLE`, -1) get one verdict each, whose step is -1 too.

A judge may need dialogues that are over (`needs_end`): it judges all their turns at once (`judge_dialogue`). Asked
about one turn it takes that for the dialogue's last.

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
from cm2.judge.checks import decide_in
from cm2.judge.judging import not_during
from cm2.judge.occasion import broken, last_state, states_of, without_occasion
from cm2.judge.scope import Decision, State, state_of
from cm2.verdict import WHOLE, Verdict, unscored

R = TypeVar("R")
NO_CHECK = "the item carries no check"


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


def needs_end(judge: object) -> bool:
    """Whether a judge is one for dialogues that are over, all turns of which it judges at once."""
    return bool(getattr(judge, "needs_end", False))


def during(judge: object) -> None:
    """Make sure that a judge can tell after each turn what became of it, as a rollout needs.

    Raises:
        ConfigError: it judges dialogues that are over.
    """
    if needs_end(judge):
        raise not_during()


async def judge_dialogue(
    judge: AsyncJudge,
    dialogue: Dialogue,
    checklists: Sequence[Checklist],
    known: Sequence[Verdict] = (),
    again: int = 0,
) -> list[list[Verdict]]:
    """The verdicts on a dialogue that is over, by checklist: at once where the judge can, else turn by turn.

    Args:
        judge, dialogue, checklists: who judges, what, by what.
        known, again: see `AsyncJudge.judge_async`; of all turns.
    """
    if needs_end(judge):
        whole: Any = judge
        found: list[list[Verdict]] = await whole.judge_dialogue_async(dialogue, checklists, known, again)
        return found
    return [
        await judge.judge_async(dialogue, checklist.turn, checklist, 0, about(known, checklist), again)
        for checklist in checklists
    ]


def about(known: Sequence[Verdict], checklist: Checklist) -> list[Verdict]:
    """Those of the verdicts that are about items of this checklist."""
    return [verdict for verdict in known if (verdict.turn, verdict.variant) == (checklist.turn, checklist.variant)]


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
    """Both ways of calling a judge that asks a model, made of its `_judge`, which runs on the door's event loop.

    Items for which there is no occasion are known before it is called, so that nobody is asked about them.
    """

    @abstractmethod
    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        """The arguments of `AsyncJudge.judge_async`."""

    async def _judge_dialogue(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], again: int
    ) -> list[list[Verdict]]:
        """The verdicts by checklist; turn by turn, unless somebody knows better."""
        return [
            await self._judge(dialogue, each.turn, each, 0, about(known, each), again)
            if each.turn < len(dialogue.turns)
            else []
            for each in checklists
        ]

    async def judge_dialogue_async(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict] = (), again: int = 0
    ) -> list[list[Verdict]]:
        """See `judge_dialogue`."""
        return await on_door(self._all_with_occasion(dialogue, checklists, known, again))

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`; not on the door's own event loop."""
        return wait(self._with_occasion(dialogue, turn, checklist, since, (), 0))

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
        return await on_door(self._with_occasion(dialogue, turn, checklist, since, known, again))

    async def _with_occasion(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        absent = without_occasion(dialogue, turn, checklist, but={verdict.item for verdict in known})
        if not absent:
            return await self._judge(dialogue, turn, checklist, since, known, again)
        settled = [verdict for verdicts in absent.values() for verdict in verdicts]
        found = [verdict for verdict in settled if verdict.step >= since or turn == WHOLE]
        said = {*absent, *(verdict.item for verdict in known)}
        if any(item.id not in said for item in checklist.items):
            found += await self._judge(dialogue, turn, checklist, since, [*known, *settled], again)
        return in_order(found, checklist)

    async def _all_with_occasion(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], again: int
    ) -> list[list[Verdict]]:
        settled = []
        for checklist in checklists:
            said = {verdict.item for verdict in about(known, checklist)}
            absent = without_occasion(dialogue, checklist.turn, checklist, but=said)
            settled.append([verdict for verdicts in absent.values() for verdict in verdicts])
        before = [*known, *(verdict for verdicts in settled for verdict in verdicts)]
        found = await self._judge_dialogue(dialogue, checklists, before, again)
        return [in_order([*a, *b], each) if a else b for a, b, each in zip(settled, found, checklists, strict=True)]


def in_order(verdicts: list[Verdict], checklist: Checklist) -> list[Verdict]:
    """The verdicts on a checklist in order of step, then item."""
    place = {item.id: number for number, item in enumerate(checklist.items)}
    return sorted(verdicts, key=lambda verdict: (verdict.step, place[verdict.item]))


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
        steps = [step for step in states_of(dialogue, turn) if turn == WHOLE or step >= since]
        if not steps:
            return []
        last = last_state(dialogue, turn)
        absent = without_occasion(dialogue, turn, checklist, last)
        found = []
        for step in steps:
            final = turn == WHOLE or (step == steps[-1] and last.reply is not None)  # the same state: made once
            state = last if final else state_of(dialogue, turn, step)
            for item in checklist.items:
                known = absent.get(item.id)
                found.append(self._verdict(state, step, item, checklist.variant) if known is None else known[step])
        return found

    def _verdict(self, state: State, step: int, item: Item, variant: int) -> Verdict:
        met: bool | None = None
        decision = Decision(False, unscored(NO_CHECK))
        owner = ""
        if item.check is not None:
            try:
                decision = decide_in(item.check, state)
                met = decision.met
            except DataError as error:
                decision, owner = Decision(False, broken(error)), "data"
        return Verdict(
            dialogue=state.dialogue.id,
            turn=state.turn,
            step=step,
            item=item.id,
            met=met,
            variant=variant,
            reason=decision.reason,
            evidence=decision.evidence,
            judge=self.name,
            owner=owner,
        )
