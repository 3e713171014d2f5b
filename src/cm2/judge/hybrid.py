"""HybridJudge: checks decide the items that have one, another judge the rest.

An item whose check is itself broken is left to the other judge too; one for which there is no occasion is not. What
the checks say grounds what the other judge is asked about: an item that depends on what a check denies is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.judge.judge import AsyncJudge, ChecksJudge, about, in_order, judge_dialogue, needs_end, on_door, wait
from cm2.judge.occasion import without_occasion
from cm2.judge.question import Counts
from cm2.verdict import WHOLE, Verdict


class HybridJudge:
    """See the module.

    Args:
        inner: judges what no check decides.
    """

    name = "hybrid"

    def __init__(self, inner: AsyncJudge):
        self.inner, self.checks = inner, ChecksJudge()
        self.identity = self.name

    @property
    def counts(self) -> Counts:
        """Of the inner judge."""
        return getattr(self.inner, "counts", None) or Counts()

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`; not on the door's own event loop."""
        checked = self._checked(dialogue, turn, checklist)
        if len({verdict.item for verdict in checked}) == len({item.id for item in checklist.items}):
            return [verdict for verdict in checked if turn == WHOLE or verdict.step >= since]
        return wait(self.judge_async(dialogue, turn, checklist, since))

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
        said = {verdict.item for verdict in known}
        checked = [verdict for verdict in self._checked(dialogue, turn, checklist) if verdict.item not in said]
        settled = said | {verdict.item for verdict in checked}
        found = [verdict for verdict in checked if turn == WHOLE or verdict.step >= since]
        if any(item.id not in settled for item in checklist.items):
            both = [*known, *checked]
            found += await on_door(self.inner.judge_async(dialogue, turn, checklist, since, both, again))
        return in_order(found, checklist)

    @property
    def needs_end(self) -> bool:
        """Of the inner judge."""
        return needs_end(self.inner)

    async def judge_dialogue_async(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict] = (), again: int = 0
    ) -> list[list[Verdict]]:
        """See `cm2.judge.judge.judge_dialogue`."""
        found: list[list[Verdict]] = []
        for each in checklists:
            said = {verdict.item for verdict in about(known, each)}
            checked = self._checked(dialogue, each.turn, each)
            found.append([verdict for verdict in checked if verdict.item not in said])
        both = [*known, *(verdict for verdicts in found for verdict in verdicts)]
        if any(_open(each, about(both, each)) for each in checklists):
            more = await on_door(judge_dialogue(self.inner, dialogue, checklists, both, again))
            found = [[*a, *b] for a, b in zip(found, more, strict=True)]
        return [in_order(verdicts, each) for verdicts, each in zip(found, checklists, strict=True)]

    def _checked(self, dialogue: Dialogue, turn: int, checklist: Checklist) -> list[Verdict]:
        """The verdicts on the items that their checks decide, and on those for which there is no occasion."""
        items = [item for item in checklist.items if item.check is not None]
        found = self.checks.judge(dialogue, turn, msgspec.structs.replace(checklist, items=items))
        broken = {verdict.item for verdict in found if verdict.met is None and verdict.applies}
        absent = without_occasion(dialogue, turn, checklist, but=(item.id for item in items))
        return [verdict for verdict in found if verdict.item not in broken] + [
            verdict for verdicts in absent.values() for verdict in verdicts
        ]


def _open(checklist: Checklist, verdicts: list[Verdict]) -> bool:
    """Whether the verdicts leave an item of the checklist open."""
    said = {verdict.item for verdict in verdicts}
    return any(item.id not in said for item in checklist.items)
