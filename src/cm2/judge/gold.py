"""Gold: a better judge looks again at some of what the training judge paid for.

Of every update a seeded sample of the rollouts is judged by the gold judge too: a larger model, a vote, or the checks
where training pays by a model. Both rewards of a rollout are made from the same items, those that both judges scored,
by the same credit; so their difference is about the judges and about nothing else. Nothing of it is ever a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from cm2.checklist import Checklist
from cm2.credit import Score, score
from cm2.credit.config import Reading
from cm2.dialogue import Dialogue
from cm2.judge.judge import Judge, judge_dialogue
from cm2.llm import flow
from cm2.verdict import Verdict

WIDTH = 16
"""Rollouts that are judged at once."""


class Judged(Protocol):
    """What is looked at again: a `cm2.rollout.trace.Rollout`."""

    dialogue: Dialogue
    checklists: list[Checklist]
    verdicts: list[Verdict]
    reference_turns: int

    @property
    def valid(self) -> bool:
        """Whether it says anything."""


class Second(msgspec.Struct):
    """Both rewards of one rollout over the items that both judges scored; None where there is no such item."""

    training: float | None
    gold: float | None
    items: int = 0
    """Scored by both."""
    differ: int = 0
    """Of these, on which the judges do not agree."""
    unscored: int = 0
    """Items that the gold judge did not decide."""

    @property
    def counts(self) -> bool:
        """Whether there is anything to compare."""
        return self.training is not None and self.gold is not None


def sample(count: int, fraction: float, update: int, seed: int = 0) -> list[int]:
    """Which of `count` rollouts of an update are looked at again, in order: `fraction` of them, one at least."""
    if fraction <= 0 or count == 0:
        return []
    take = min(count, max(1, round(count * fraction)))
    rng = np.random.default_rng([seed % 2**32, update % 2**32, 0x601D])
    return sorted(rng.choice(count, size=take, replace=False).tolist())


def second_opinions(rollouts: Sequence[Judged], judge: Judge, reading: Reading = "gated") -> list[Second]:
    """The gold judge's view of these rollouts, in their order.

    Raises:
        ProviderError: fatal: the gold judge cannot be reached at all.
        BudgetReached: there is no money left.
    """
    if not hasattr(judge, "judge_async"):
        return [_compare(rollout, _again(rollout, judge), reading) for rollout in rollouts]

    async def again(rollout: Judged) -> list[Verdict]:
        asked: Any = judge
        found = await judge_dialogue(asked, rollout.dialogue, _reached(rollout))
        return [verdict for verdicts in found for verdict in verdicts]

    return [_compare(rollout, found, reading) for rollout, found in flow.ordered(rollouts, again, WIDTH)]


def _again(rollout: Judged, judge: Judge) -> list[Verdict]:
    return [
        verdict
        for checklist in _reached(rollout)
        for verdict in judge.judge(rollout.dialogue, checklist.turn, checklist)
    ]


def _reached(rollout: Judged) -> list[Checklist]:
    turns = rollout.dialogue.turns
    return [each for each in rollout.checklists if each.turn < len(turns) and turns[each.turn].steps]


def _compare(rollout: Judged, gold: list[Verdict], reading: Reading) -> Second:
    first, other = (_scored(rollout, verdicts, reading) for verdicts in (rollout.verdicts, gold))
    undecided = _undecided(first) | _undecided(other)
    if undecided:  # what only one of them scored leaves both
        first = _scored(rollout, _without(rollout.verdicts, undecided), reading)
        other = _scored(rollout, _without(gold, undecided), reading)
    found = Second(first.reward, other.reward, unscored=len(_undecided(_scored(rollout, gold, reading))))
    for place, ledger in first.ledgers.items():
        for id, met in ledger.outcome.items():
            also = other.ledgers[place].outcome[id]
            if met is not None and also is not None:
                found.items += 1
                found.differ += met != also
    return found


def _scored(rollout: Judged, verdicts: list[Verdict], reading: Reading) -> Score:
    steps = [len(turn.steps) for turn in rollout.dialogue.turns]
    return score(rollout.checklists, verdicts, steps, rollout.reference_turns, reading)


def _undecided(found: Score) -> set[tuple[int, int, str]]:
    return {
        (turn, variant, id)
        for (turn, variant), ledger in found.ledgers.items()
        for id, met in ledger.outcome.items()
        if met is None
    }


def _without(verdicts: list[Verdict], places: set[tuple[int, int, str]]) -> list[Verdict]:
    return [v for v in verdicts if (v.turn, v.variant, v.item) not in places]
