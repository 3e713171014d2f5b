"""Random tasks with their groups of rollouts, for the tests that hold whatever the task."""

from __future__ import annotations

import random

from credit_builders import checklist, item
from hypothesis import strategies as st

from cm2.checklist import Checklist
from cm2.credit import Score, score
from cm2.verdict import Verdict


class Case:
    """A random task and its group of rollouts."""

    def __init__(self, seed: int, members: int, turns: int, items: int, steps: int, variants: int):
        dice = random.Random(seed)
        self.turns = turns
        self.checklists = [
            made(dice, turn, variant, dice.randint(1, items))
            for turn in range(turns)
            for variant in range(dice.randint(0 if dice.random() < 0.1 else 1, variants))
        ]
        unscored, self.rollouts = dice.choice([0.0, 0.2, 0.6]), []
        for _ in range(members):
            reached = dice.randint(1, turns)
            counts = [dice.randint(1, steps) for _ in range(reached)]
            if dice.random() < 0.1:
                counts[-1] = 0
            self.rollouts.append((counts, judged(dice, self.checklists, counts, unscored)))
        self.valid = [dice.random() < 0.8 for _ in range(members)]


def made(dice: random.Random, turn: int, variant: int, count: int) -> Checklist:
    order = [f"C{i}" for i in range(count)]
    dice.shuffle(order)
    weights = [dice.randint(1, 9) for _ in order]
    items = [
        item(id, weights[i] / sum(weights), [other for other in order[:i] if dice.random() < 0.4])
        for i, id in enumerate(order)
    ]
    dice.shuffle(items)
    return checklist(*items, turn=turn, variant=variant)


def judged(dice: random.Random, checklists: list[Checklist], counts: list[int], unscored: float) -> list[Verdict]:
    found = []
    for each in checklists:
        for one in each.items:
            if dice.random() < unscored / 2:
                continue
            for step in range(counts[each.turn] if each.turn < len(counts) else 0):
                for _ in range(dice.choice([1, 1, 1, 2, 3])):
                    met = None if dice.random() < unscored / 2 else dice.random() < 0.5
                    found.append(Verdict("d", each.turn, step, one.id, met, each.variant))
    dice.shuffle(found)
    return found


CASES = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    members=st.integers(1, 4),
    turns=st.integers(1, 3),
    items=st.integers(1, 3),
    steps=st.integers(1, 3),
    variants=st.integers(1, 2),
)
READINGS = st.sampled_from(["gated", "strict"])


def scores_of(case: Case, reading: str) -> list[Score]:
    return [score(case.checklists, verdicts, counts, case.turns, reading) for counts, verdicts in case.rollouts]
