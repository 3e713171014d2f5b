"""The blend level: hand numbers, what it falls back to, that its baseline never looks at its own rollout, and a literal
second implementation."""

from __future__ import annotations

from statistics import fmean, variance

import numpy as np
import pytest
from credit_builders import checklist, item, said
from credit_cases import CASES, Case, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.credit import Credit, advantages, score
from cm2.credit.blend import blend

BLEND = Credit(level="blend")


def one_turn_each(rewards, visits):
    """Rollouts of one turn: their rewards, and the situations that their steps found."""
    longest = max(len(each) for each in visits)
    situations = np.array([[*each, *[-1] * (longest - len(each))] for each in visits])
    rewards = np.array(rewards, dtype=float)[:, None]
    return rewards, np.ones_like(rewards, dtype=bool), situations, np.zeros(longest, dtype=int)


def test_hand_numbers_of_six_rollouts_in_one_turn():
    # Three looked something up (situation 1) and earned 1; three did not (2) and earned 0.
    found = blend(*one_turn_each([1, 1, 1, 0, 0, 0], [[0, 1]] * 3 + [[0, 2]] * 3))
    # Seen from rollout 0 the others earned 1, 1, 0, 0, 0: mean 0.4, sum of squares 1.2, spread 1.2 / 4 = 0.3.
    # The turn's noise: (1.2 + 0.3) / 5 = 0.3. Within situations 1.2 + 0 + 0 with 4 + 1 + 2 degrees of freedom:
    noise = (1.2 + 0.3) / 8
    between = (2 * 0.6**2 + 3 * 0.4**2 - 3 * noise) / (5 + 2 + 3)
    weight = 2 * between / (2 * between + noise)
    assert weight == pytest.approx(0.4047619)
    assert found[0] == pytest.approx([5 / 6 * 0.6, 5 / 6 * (0.6 - weight * 0.6)])
    assert found[:, 0] == pytest.approx([0.5] * 3 + [-0.5] * 3)  # the trajectory's
    assert found[:, 1] == pytest.approx([0.2976190] * 3 + [-0.2976190] * 3)  # by then the end was half known


def test_a_situation_that_all_share_leaves_the_trajectory_s_advantage():
    found = blend(*one_turn_each([1.0, 0.4, 0.0], [[0], [0], [0]]))
    assert found[:, 0] == pytest.approx(np.array([1.0, 0.4, 0.0]) - 1.4 / 3)


def test_a_group_of_two_gets_turn_to_go():
    lists = [checklist(item("C0", 1.0), turn=0), checklist(item("C0", 1.0), turn=1)]
    one = score(lists, [*said({"C0": "ny"}), *said({"C0": "n"}, turn=1)], [2, 1], 2)
    other = score(lists, [*said({"C0": "n"}), *said({"C0": "y"}, turn=1)], [1, 1], 2)
    found = advantages([one, other], credit=BLEND).steps
    expected = advantages([one, other], credit=Credit(level="turn", turn_credit="to_go")).steps
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == {at: pytest.approx(value / 2) for at, value in theirs.items()}  # turn is not divided by L


def test_groups_that_are_alike_give_exactly_nothing():
    lists = [checklist(item("C0", 0.3), item("C1", 0.7))]
    alike = [score(lists, said({"C0": "y", "C1": "y"}), [1], 1) for _ in range(7)]
    assert not advantages(alike, credit=BLEND).signal


def test_in_turns_of_one_step_the_first_turn_is_the_trajectory_s():
    rng = np.random.default_rng(0)
    rewards = rng.random((6, 3))
    found = blend(rewards, np.ones((6, 3), dtype=bool), np.zeros((6, 3), dtype=int), np.arange(3))
    whole = rewards.mean(axis=1)
    assert found[:, 0] == pytest.approx(whole - whole.mean())


def test_std_divides_by_the_deviation_of_the_whole_reward():
    arguments = one_turn_each([1.0, 0.8, 0.2, 0.0], [[0, 1], [0, 1], [0, 2], [0, 2]])
    deviation = np.std([1.0, 0.8, 0.2, 0.0], ddof=1) + 1e-6
    assert blend(*arguments, "std") == pytest.approx(blend(*arguments) / deviation)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 7), st.integers(1, 3))
def test_the_prediction_never_looks_at_the_rollout_s_own_reward_or_future(seed, size, turns):
    """That is what makes it unbiased: A[i, k] moves with the own T one to one, whatever the group is."""
    rng = np.random.default_rng(seed)
    rewards, reached, situations, columns = random_group(rng, size, turns)
    before = blend(rewards, reached, situations, columns)
    changed = rewards.copy()
    last = int(np.flatnonzero(reached[0]).max())
    changed[0, last] += 0.37
    after = blend(changed, reached, situations, columns)
    for k in np.flatnonzero(situations[0] >= 0):
        expected = before[0, k] + (size - 1) / size * 0.37 / turns
        assert after[0, k] == pytest.approx(expected, abs=1e-9)
    # where its later steps went is of no account to its earlier ones either
    moved = situations.copy()
    mine = np.flatnonzero(situations[0] >= 0)
    moved[0, mine[-1]] = 99
    assert blend(rewards, reached, moved, columns)[0, mine[:-1]] == pytest.approx(before[0, mine[:-1]], abs=1e-9)


def random_group(rng: np.random.Generator, size: int, turns: int):
    steps = 3
    reached = np.cumprod(rng.random((size, turns)) < 0.8, axis=1).astype(bool)
    reached[:, 0] = True
    rewards = np.where(reached, rng.integers(0, 5, (size, turns)) / 4, 0.0)
    columns = np.repeat(np.arange(turns), steps)
    situations = rng.integers(0, 3, (size, turns * steps)) + 10 * columns
    count = rng.integers(1, steps + 1, (size, turns))
    there = np.arange(steps)[None, None, :] < count[:, :, None]
    situations = np.where(there.reshape(size, -1) & reached[:, columns], situations, -1)
    return rewards, reached, situations, columns


def literal(group, i: int, t: int, situation: object) -> float:
    """The formulas of the module, word by word. A group: (T[t], situations visited in t, reached t) of each rollout."""
    size, length = len(group), len(group[0]["to_go"])
    rest = [each for j, each in enumerate(group) if j != i]
    coarse = fmean(each["to_go"][t] if each["reached"][t] else 0.0 for each in rest)
    own = group[i]["to_go"][t]
    if size == 2:
        return (size - 1) / size * (own - coarse) / length
    spread = variance([each["to_go"][0] for each in rest])
    there = [each for each in rest if each["reached"][t]]
    if not there:
        return (size - 1) / size * (own - coarse) / length
    mean = fmean(each["to_go"][t] for each in there)
    noise = (sum((each["to_go"][t] - mean) ** 2 for each in there) + spread) / (len(there) - 1 + 1)
    wrong = max((coarse - mean) ** 2 - noise / len(there), 0.0)
    predicted = coarse
    if len(there) * wrong + noise > 1e-12:
        predicted += len(there) * wrong / (len(there) * wrong + noise) * (mean - coarse)
    cells = {}
    for each in there:
        for name in set(each["situations"][t]):
            cells.setdefault(name, []).append(each["to_go"][t])
    within = sum(sum((x - fmean(xs)) ** 2 for x in xs) for xs in cells.values())
    freedom = sum(len(xs) - 1 for xs in cells.values())
    chance = (within + noise) / (freedom + 1)
    visits = sum(len(xs) for xs in cells.values())
    beyond = sum(len(xs) * (fmean(xs) - mean) ** 2 for xs in cells.values()) - len(cells) * chance
    between = max(beyond, 0.0) / visits
    if (xs := cells.get(situation)) and len(xs) * between + chance > 1e-12:
        predicted += len(xs) * between / (len(xs) * between + chance) * (fmean(xs) - mean)
    return (size - 1) / size * (own - predicted) / length


@settings(max_examples=150, deadline=None)
@given(CASES, st.sampled_from(["gated", "strict"]))
def test_blend_follows_the_formulas(case: Case, reading):
    scores = scores_of(case, reading)
    found = advantages(scores, case.valid, Credit(level="blend", reading=reading))
    members = [i for i, valid in enumerate(case.valid) if valid and scores[i].reward is not None]
    group = []
    for i in members:
        one = scores[i]
        group.append(
            {
                "reached": [count > 0 for count in one.steps],
                "rewards": list(one.turn_rewards),
                "situations": [[situation(one, t, s) for s in range(count)] for t, count in enumerate(one.steps)],
            }
        )
    for t in range(case.turns):
        known = [
            each["rewards"][t] for each in group if each["reached"][t] and each["rewards"][t] == each["rewards"][t]
        ]
        for each in group:
            if each["rewards"][t] != each["rewards"][t]:
                each["rewards"][t] = fmean(known) if known else 0.0
    for each in group:
        each["to_go"] = [sum(each["rewards"][t:]) for t in range(case.turns)]
    for i, steps in enumerate(found.steps):
        for (t, s), value in steps.items():
            counts = i in members and len(members) >= 2
            expected = literal(group, members.index(i), t, situation(scores[i], t, s)) if counts else 0.0
            assert value == pytest.approx(expected, abs=1e-9)


def situation(one, t, s):
    return tuple(tuple((ledger.satisfied[s] & ledger.scored).tolist()) for ledger in one.of_turn(t))
