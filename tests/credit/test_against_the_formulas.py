"""The vectorised code against a second implementation: plain loops that follow the formulas word by word, no numpy.

Random tasks: dependencies, several checklists a turn, several judgements an item and step, unscored verdicts, turns
never reached, failed members.
"""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from credit_cases import CASES, READINGS, Case, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.checklist import Checklist, Item
from cm2.credit import Credit, advantages
from cm2.verdict import Verdict

NO, YES, NOBODY = False, True, None


class Turn:
    """One checklist on one turn of one rollout, from the definitions."""

    def __init__(self, each: Checklist, verdicts: list[Verdict], steps: int, reading: str):
        self.items, self.steps, self.reading = each.items, steps, reading
        self.by_id = {one.id: one for one in each.items}
        self.mine = [v for v in verdicts if (v.turn, v.variant) == (each.turn, each.variant)]
        self.assumed: dict[tuple[str, int], bool] = {}

    def met(self, one: Item, step: int) -> bool | None:
        votes = [v.met for v in self.mine if v.item == one.id and v.step == step and v.met is not None]
        if not votes:
            return self.assumed.get((one.id, step), NOBODY)
        return votes.count(True) > votes.count(False)

    def grounded(self, one: Item, state: int) -> bool:
        return all(self.satisfied(self.by_id[id], state) for id in one.depends_on)

    def satisfied(self, one: Item, state: int) -> bool:
        if state == 0:
            return False
        if self.satisfied(one, state - 1):
            return True
        return self.met(one, state - 1) is YES and (self.reading == "strict" or self.grounded(one, state - 1))

    def r(self, step: int, one: Item) -> int:
        before, after = self.satisfied(one, step), self.satisfied(one, step + 1)
        return int(self.grounded(one, step) and not before and after)

    def r_backfilled(self, step: int, one: Item) -> int:
        becomes = any(not self.satisfied(one, s) and self.satisfied(one, s + 1) for s in range(step, self.steps))
        return int(self.grounded(one, step) and not self.satisfied(one, step) and becomes)

    def eligible(self, step: int, one: Item) -> bool:
        return self.grounded(one, step) and not self.satisfied(one, step) and self.scored(one)

    def ever(self, one: Item) -> int:
        return int(self.satisfied(one, self.steps))

    def scored(self, one: Item) -> bool:
        """Every way in which the undecided items could have gone pays this item the same."""
        if self.steps == 0:
            return True
        undecided = [other for other in self.items if all(self.met(other, s) is NOBODY for s in range(self.steps))]
        if one in undecided:
            return False
        places = [(other.id, s) for other in undecided for s in range(self.steps)]
        paid = set()
        for guess in itertools.product([NO, YES], repeat=len(places)):
            self.assumed = dict(zip(places, guess, strict=True))
            paid.add(sum(self.r(s, one) for s in range(self.steps)))
        self.assumed = {}
        return len(paid) == 1

    def reward(self) -> float | None:
        known = [one for one in self.items if self.scored(one)]
        if not known:
            return None
        earned = sum(one.weight * self.r(s, one) for s in range(self.steps) for one in known)
        return earned / sum(one.weight for one in known)


class Rollout:
    def __init__(self, case: Case, index: int, reading: str):
        counts, verdicts = case.rollouts[index]
        self.steps = [*counts, *[0] * (case.turns - len(counts))]
        self.turns = [
            [Turn(each, verdicts, self.steps[t], reading) for each in case.checklists if each.turn == t]
            for t in range(case.turns)
        ]
        self.R_t: list[float | None] = []
        for several in self.turns:
            rewards = [reward for reward in (each.reward() for each in several) if reward is not None]
            self.R_t.append(fmean(rewards) if rewards else None if several else 0.0)
        scored = [
            reward for reward, several in zip(self.R_t, self.turns, strict=True) if several and reward is not None
        ]
        known = [reward for reward in self.R_t if reward is not None]
        self.R = sum(known) / len(known) if scored else None


def f_norm(values: list[float], normalise: str) -> float:
    if normalise == "none":
        return 1.0
    mean, n = fmean(values), len(values)
    return (sum((x - mean) ** 2 for x in values) / (n - 1)) ** 0.5 + 1e-6 if n > 1 else 1e-6


def credit_of(group: list[Rollout], i: int, t: int, setting: Credit) -> float:
    """Eq. 7 for rollout i at turn t."""
    compared = [j for j in range(len(group)) if setting.turn_baseline == "group" or group[j].steps[t] > 0]
    last = t + 1 if setting.turn_credit == "own" else len(group[i].R_t)
    credit = {}
    for j in compared:
        parts = [group[j].R_t[u] for u in range(t, last)]
        if all(part is None for part in parts):
            continue
        for k, u in enumerate(range(t, last)):
            if parts[k] is None:  # an unscored turn inside a sum stands at the mean of those compared
                known = [group[m].R_t[u] for m in compared if group[m].R_t[u] is not None]
                parts[k] = fmean(known) if known else 0.0
        credit[j] = sum(parts)
    if i not in credit:
        return 0.0
    return (credit[i] - fmean(credit.values())) / f_norm(list(credit.values()), setting.normalise)


def by_step(group: list[Rollout], i: int, t: int, s: int, setting: Credit) -> float:
    """Eq. 8 to 10 for rollout i at step s of turn t."""
    averages = []
    for v, mine in enumerate(group[i].turns[t]):
        if not any(mine.scored(one) for one in mine.items):
            continue
        total = weight = 0.0
        for c, one in enumerate(mine.items):
            if mine.eligible(s, one):
                peers = [rollout.turns[t][v] for rollout in group]
                ever = [peer.ever(peer.items[c]) for peer in peers if peer.scored(peer.items[c])]
                total += one.weight * (mine.r_backfilled(s, one) - fmean(ever)) / f_norm(ever, setting.normalise)
                weight += one.weight
        averages.append(total / weight if weight else 0.0)
    return fmean(averages) if averages else 0.0


NORMALISE = st.sampled_from(["none", "std"])


@settings(max_examples=150, deadline=None)
@given(CASES, READINGS)
def test_rewards_follow_the_formulas(case, reading):
    for i, found in enumerate(scores_of(case, reading)):
        expected = Rollout(case, i, reading)
        assert found.as_json()["turns"] == pytest.approx(expected.R_t, abs=1e-12)
        assert found.reward == (None if expected.R is None else pytest.approx(expected.R, abs=1e-12))
        for t, several in enumerate(expected.turns):
            for ledger, mine in zip(found.of_turn(t), several, strict=True):
                outcome = {one.id: bool(mine.ever(one)) if mine.scored(one) else None for one in mine.items}
                assert ledger.outcome == outcome


@settings(max_examples=150, deadline=None)
@given(CASES, READINGS, NORMALISE, st.sampled_from(["group", "survivors"]), st.sampled_from(["own", "to_go"]))
def test_trajectory_and_turn_advantages_follow_the_formulas(case, reading, normalise, baseline, credit):
    group = {i: Rollout(case, i, reading) for i, valid in enumerate(case.valid) if valid}
    group = {i: rollout for i, rollout in group.items() if rollout.R is not None}
    scores = scores_of(case, reading)
    whole = advantages(scores, case.valid, Credit(reading=reading, normalise=normalise))
    setting = Credit(level="turn", reading=reading, normalise=normalise, turn_baseline=baseline, turn_credit=credit)
    by_turn = advantages(scores, case.valid, setting)
    assert whole.trained == by_turn.trained == [i in group for i in range(len(scores))]
    rewards = [rollout.R for rollout in group.values()]
    for i, found in enumerate(scores):
        counts = i in group and len(group) >= 2
        for t, s in ((t, s) for t, steps in enumerate(found.steps) for s in range(steps)):
            expected = (group[i].R - fmean(rewards)) / f_norm(rewards, normalise) if counts else 0.0
            assert whole.steps[i][t, s] == pytest.approx(expected, abs=1e-9)
            members = list(group.values())
            expected = credit_of(members, list(group).index(i), t, setting) if counts else 0.0
            assert by_turn.steps[i][t, s] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(CASES, READINGS, NORMALISE)
def test_step_advantages_follow_the_formulas(case, reading, normalise):
    setting = Credit(level="step", reading=reading, normalise=normalise)
    group = {i: Rollout(case, i, reading) for i, valid in enumerate(case.valid) if valid}
    group = {i: rollout for i, rollout in group.items() if rollout.R is not None}
    found = advantages(scores_of(case, reading), case.valid, setting)
    for i, steps in enumerate(found.steps):
        assert len(steps) == sum(case.rollouts[i][0])
        for (t, s), value in steps.items():
            counts = i in group and len(group) >= 2
            expected = by_step(list(group.values()), list(group).index(i), t, s, setting) if counts else 0.0
            assert value == pytest.approx(expected, abs=1e-9)
