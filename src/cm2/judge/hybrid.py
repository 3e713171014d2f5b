"""HybridJudge: checks decide the items that have one, another judge the rest.

An item whose check is itself broken is left to the other judge too. What the checks say grounds what the other judge is
asked about: an item that depends on what a check denies is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.judge.judge import AsyncJudge, ChecksJudge, on_door, wait
from cm2.judge.question import Counts
from cm2.verdict import Verdict


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
            return [verdict for verdict in checked if verdict.step >= since]
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
        found = [verdict for verdict in checked if verdict.step >= since]
        if any(item.id not in settled for item in checklist.items):
            both = [*known, *checked]
            found += await on_door(self.inner.judge_async(dialogue, turn, checklist, since, both, again))
        place = {item.id: number for number, item in enumerate(checklist.items)}
        return sorted(found, key=lambda verdict: (verdict.step, place[verdict.item]))

    def _checked(self, dialogue: Dialogue, turn: int, checklist: Checklist) -> list[Verdict]:
        """The verdicts on the items that their checks decide."""
        items = [item for item in checklist.items if item.check is not None]
        found = self.checks.judge(dialogue, turn, msgspec.structs.replace(checklist, items=items))
        broken = {verdict.item for verdict in found if verdict.met is None}
        return [verdict for verdict in found if verdict.item not in broken]
