"""Judge: who says, for each item of a turn's checklist, whether it holds after each step.

A judge gives one verdict an item and step of the turn, about the state after that step. It does not latch and knows
nothing of dependencies: that is the business of `cm2.credit`. `met` is None where the item could not be decided
(unscored): by checks, an item without one, or one whose check is itself broken. Unscored is never a no.
"""

from __future__ import annotations

from typing import Protocol

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.judge.checks import Decision, decide
from cm2.verdict import Verdict


class Judge(Protocol):
    """What judges a turn. The judged dialogue may be another run of the checklist's task: turns line up by index."""

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """One verdict an item and step, in order of step, then item, for the steps from `since` on.

        A turn that the run never reached has no states and so no verdicts.
        """


class ChecksJudge:
    """Judges items by their compiled checks: free, without noise, the same answer every time."""

    name = "checks"

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
        decision = Decision(False, "unscored: the item carries no check")
        if item.check is not None:
            try:
                decision = decide(item.check, dialogue, turn, step)
                met = decision.met
            except DataError as error:
                decision = Decision(False, f"unscored: the check is broken: {error}")
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
        )
