"""Equations 5, 7 and 8 to 10 against numbers worked out by hand; the failure mask; spreading over tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from credit_builders import checklist, item, one_turn, said

from cm2.credit import Credit, advantages, score, spread
from cm2.credit.advantages import EPSILON, centred, step, trajectory, turn
from cm2.errors import ConfigError, DataError

NAN = math.nan
# Four rollouts of two turns: two reach turn 1. R[i, t]; a turn never reached counts 0.
REWARDS = np.array([[0.5, 1.0], [0.5, 0.5], [1.0, 0.0], [0.8, 0.0]])
REACHED = np.array([[True, True], [True, True], [True, False], [True, False]])


def test_trajectory_subtracts_the_mean_of_the_group():
    # mean (1 + 0 + 0.5 + 0.5) / 4 = 0.5
    assert trajectory(np.array([1.0, 0.0, 0.5, 0.5])).tolist() == [0.5, -0.5, 0.0, 0.0]


def test_std_divides_by_the_sample_deviation_plus_epsilon():
    # deviations 0.5, -0.5, 0, 0: variance (0.25 + 0.25) / 3
    std = math.sqrt(0.5 / 3) + EPSILON
    found = trajectory(np.array([1.0, 0.0, 0.5, 0.5]), "std")
    assert found.tolist() == pytest.approx([0.5 / std, -0.5 / std, 0.0, 0.0], rel=1e-12)


def test_a_group_of_equal_rewards_gives_exactly_nothing_even_divided_by_epsilon():
    assert trajectory(np.array([0.1, 0.1, 0.1]), "std").tolist() == [0.0, 0.0, 0.0]


def test_nan_leaves_mean_and_deviation_and_becomes_zero():
    # mean (1 + 0) / 2 = 0.5, variance (0.25 + 0.25) / 1
    assert centred(np.array([1.0, NAN, 0.0]), "none").tolist() == [0.5, 0.0, -0.5]
    std = math.sqrt(0.5) + EPSILON
    assert centred(np.array([1.0, NAN, 0.0]), "std").tolist() == pytest.approx([0.5 / std, 0.0, -0.5 / std])
    assert centred(np.array([NAN, 0.3]), "std").tolist() == [0.0, 0.0]


def test_turn_own_against_the_group():
    # means: turn 0 (0.5 + 0.5 + 1 + 0.8) / 4 = 0.7; turn 1 (1 + 0.5 + 0 + 0) / 4 = 0.375
    expected = [[-0.2, 0.625], [-0.2, 0.125], [0.3, 0.0], [0.1, 0.0]]
    np.testing.assert_allclose(turn(REWARDS, REACHED), expected, atol=1e-12)


def test_turn_own_against_the_survivors():
    # turn 1: (1 + 0.5) / 2 = 0.75
    expected = [[-0.2, 0.25], [-0.2, -0.25], [0.3, 0.0], [0.1, 0.0]]
    np.testing.assert_allclose(turn(REWARDS, REACHED, baseline="survivors"), expected, atol=1e-12)


def test_turn_to_go_charges_a_turn_for_the_turns_that_it_cost():
    # sums from turn 0 on: 1.5, 1.0, 1.0, 0.8, mean 1.075. The greedy third rollout falls from +0.3 to -0.075.
    expected = [[0.425, 0.625], [-0.075, 0.125], [-0.075, 0.0], [-0.275, 0.0]]
    np.testing.assert_allclose(turn(REWARDS, REACHED, credit="to_go"), expected, atol=1e-12)
    expected = [[0.425, 0.25], [-0.075, -0.25], [-0.075, 0.0], [-0.275, 0.0]]
    np.testing.assert_allclose(turn(REWARDS, REACHED, baseline="survivors", credit="to_go"), expected, atol=1e-12)


def test_turn_std_is_that_of_the_rollouts_compared():
    # turn 1, group: values 1, 0.5, 0, 0, mean 0.375, squares 0.390625 + 0.015625 + 2·0.140625 = 0.6875, over 3
    found = turn(REWARDS, REACHED, "std")[:, 1]
    std = math.sqrt(0.6875 / 3) + EPSILON
    assert found.tolist() == pytest.approx([0.625 / std, 0.125 / std, 0, 0])
    # survivors: 1 and 0.5, squares 2·0.0625, over 1
    found = turn(REWARDS, REACHED, "std", "survivors")[:, 1]
    std = math.sqrt(0.125) + EPSILON
    assert found.tolist() == pytest.approx([0.25 / std, -0.25 / std, 0, 0])


def test_an_unscored_turn_is_no_zero_in_own_and_moves_nothing_in_to_go():
    rewards = np.array([[0.5, NAN], [0.5, 0.5], [1.0, 1.0]])
    everywhere = np.ones((3, 2), dtype=bool)
    # own: turn 1 compares 0.5 and 1 only, mean 0.75
    np.testing.assert_allclose(turn(rewards, everywhere)[:, 1], [0.0, -0.25, 0.25])
    # to go: the gap stands at 0.75: sums 1.25, 1.0, 2.0, mean 4.25 / 3
    mean = 4.25 / 3
    np.testing.assert_allclose(
        turn(rewards, everywhere, credit="to_go")[:, 0], [1.25 - mean, 1.0 - mean, 2.0 - mean], atol=1e-12
    )


@pytest.mark.parametrize("baseline", ["group", "survivors"])
@pytest.mark.parametrize("members", [2, 3, 4])
def test_small_groups_and_few_survivors_still_get_an_advantage(baseline, members):
    rewards = np.array([[1.0, 1.0], [1.0, 0.0]] + [[1.0, 0.0]] * (members - 2))
    reached = np.array([[True, True], [True, True]] + [[True, False]] * (members - 2))
    found = turn(rewards, reached, baseline=baseline)
    assert found[0, 1] > 0 > found[1, 1]


def test_step_level_by_hand():
    # C0 weight 0.4; C1 weight 0.6 rests on C0. Two rollouts of two steps:
    #   first:  C0 at step 0, C1 at step 1.  ever = (1, 1)
    #   second: C0 at step 1, C1 never.      ever = (1, 0)
    # b = (1, 0.5)
    # first,  s=0: E = {C0}: r~ - b = 1 - 1 = 0            -> 0
    #         s=1: E = {C1}: 1 - 0.5                       -> 0.5
    # second, s=0: E = {C0}: 1 - 1                         -> 0
    #         s=1: E = {C0}: 0                             -> 0   (C1 is not eligible before C0 holds in x_s)
    items = (item("C0", 0.4), item("C1", 0.6, ["C0"]))
    group = [one_turn(*items, marks={"C0": "yy", "C1": "ny"}), one_turn(*items, marks={"C0": "ny", "C1": "nn"})]
    found = advantages(group, credit=Credit(level="step"))
    assert found.steps == [{(0, 0): 0.0, (0, 1): 0.5}, {(0, 0): 0.0, (0, 1): 0.0}]


def test_step_level_weighs_the_eligible_items_and_is_zero_without_any():
    # independent items of weights 0.25 and 0.75, three rollouts: ever (1, 1), (1, 0), (0, 0); b = (2/3, 1/3)
    # first,  s=0: both eligible: 0.25·(1 - 2/3) + 0.75·(1 - 1/3) = 0.25/3 + 0.75·2/3 = 1.75/3; s=1: none left -> 0
    # second, s=0: 0.25·(1/3) + 0.75·(-1/3) = -0.5/3; s=1: C0 is satisfied: only C1: -1/3
    # third,  s=0: 0.25·(-2/3) + 0.75·(-1/3) = -1.25/3
    items = (item("C0", 0.25), item("C1", 0.75))
    marks = ({"C0": "yn", "C1": "yn"}, {"C0": "yn", "C1": "nn"}, {"C0": "n", "C1": "n"})
    found = advantages([one_turn(*items, marks=each) for each in marks], credit=Credit(level="step"))
    assert found.steps[0] == pytest.approx({(0, 0): 1.75 / 3, (0, 1): 0.0})
    assert found.steps[1] == pytest.approx({(0, 0): -0.5 / 3, (0, 1): -1 / 3})
    assert found.steps[2] == pytest.approx({(0, 0): -1.25 / 3})


def test_step_level_std_is_that_of_ever_satisfied():
    # ever = 1, 0: b = 0.5, std = sqrt((0.25 + 0.25) / 1)
    group = [one_turn(item("C0", 1.0), marks={"C0": mark}) for mark in "yn"]
    found = advantages(group, credit=Credit(level="step", normalise="std"))
    assert found.steps[0][0, 0] == pytest.approx(0.5 / (math.sqrt(0.5) + EPSILON))


def test_step_level_counts_a_rollout_that_never_reached_the_turn_as_a_no():
    # turn 1 is reached by two of four; one of these satisfies C0: b = 1/4, not 1/2
    lists = [checklist(item("C0", 1.0)), checklist(item("C0", 1.0), turn=1)]
    reaching = [score(lists, said({"C0": "y"}) + said({"C0": mark}, turn=1), [1, 1], 2) for mark in "yn"]
    ended = [score(lists, said({"C0": "n"}), [1], 2)] * 2
    found = advantages([*reaching, *ended], credit=Credit(level="step"))
    assert [each.get((1, 0)) for each in found.steps] == [0.75, -0.25, None, None]


def test_step_level_leaves_an_unscored_item_out_of_baseline_and_average():
    # C1 is unscored in the second rollout: b = ((1 + 0) / 2, 1 / 1)
    # first, s=0: 0.5·(1 - 0.5) + 0.5·(1 - 1) = 0.25; second: only C0: 0 - 0.5
    items = (item("C0", 0.5), item("C1", 0.5))
    group = [one_turn(*items, marks={"C0": "y", "C1": "y"}), one_turn(*items, marks={"C0": "n", "C1": "-"})]
    found = advantages(group, credit=Credit(level="step"))
    assert found.steps == [{(0, 0): 0.25}, {(0, 0): -0.5}]


def test_step_level_averages_over_the_checklists_in_which_something_is_scored():
    # variant 0: ever 1, 0 -> +0.5, -0.5. variant 1: ever 1, 1 -> 0, 0; unscored in the third call's second rollout.
    lists = [checklist(item("C0", 1.0), variant=v) for v in range(2)]

    def rollout(first: str, second: str):
        return score(lists, said({"C0": first}) + said({"C0": second}, variant=1), [1], 1)

    found = advantages([rollout("y", "y"), rollout("n", "y")], credit=Credit(level="step"))
    assert found.steps == [{(0, 0): 0.25}, {(0, 0): -0.25}]
    found = advantages([rollout("y", "y"), rollout("n", "-")], credit=Credit(level="step"))
    assert found.steps == [{(0, 0): 0.25}, {(0, 0): -0.5}]


def test_the_array_function_of_the_step_level_takes_a_whole_group():
    satisfied = np.array([[[0], [1]], [[0], [0]]], dtype=bool)
    found = step(satisfied, np.zeros((1, 1), dtype=bool), np.ones(1), np.ones((2, 1), dtype=bool))
    assert found.tolist() == [[0.5], [-0.5]]


GROUP = [one_turn(item("C0", 0.5), item("C1", 0.5), marks=m) for m in ({"C0": "y", "C1": "y"}, {"C0": "n", "C1": "n"})]


def test_a_failed_rollout_leaves_mean_and_loss():
    # a third, worthless one would pull the mean to 1/3; without it the mean is 0.5
    failed = one_turn(item("C0", 0.5), item("C1", 0.5), marks={"C0": "n", "C1": "n"})
    found = advantages([*GROUP, failed], [True, True, False])
    assert found.steps == [{(0, 0): 0.5}, {(0, 0): -0.5}, {(0, 0): 0.0}]
    assert found.trained == [True, True, False]
    assert found.signal


def test_a_rollout_that_failed_before_it_had_a_task_does_no_harm():
    found = advantages([*GROUP, score([], [], [], 0)], [True, True, False])
    assert found.steps[2] == {} and found.trained == [True, True, False]


def test_a_rollout_in_which_nothing_is_scored_counts_as_failed():
    unscored = one_turn(item("C0", 0.5), item("C1", 0.5), marks={"C0": "-", "C1": "-"})
    found = advantages([*GROUP, unscored])
    assert found.trained == [True, True, False] and found.steps[0] == {(0, 0): 0.5}


@pytest.mark.parametrize("level", ["trajectory", "turn", "step"])
def test_fewer_than_two_valid_members_give_no_signal(level):
    found = advantages(GROUP, [True, False], Credit(level=level, normalise="std"))
    assert found.steps == [{(0, 0): 0.0}, {(0, 0): 0.0}]
    assert not found.signal and found.trained == [True, False]
    assert not advantages([], [], Credit(level=level)).signal


def test_a_group_in_which_all_are_alike_gives_no_signal():
    assert not advantages([GROUP[0]] * 3).signal


def test_scores_of_different_tasks_are_refused():
    with pytest.raises(DataError, match="different tasks"):
        advantages([GROUP[0], one_turn(item("C0", 1.0), marks={"C0": "y"})])


def test_valid_of_another_length_is_refused():
    with pytest.raises(DataError, match="2 scores, but 1 values"):
        advantages(GROUP, [True])


def test_advantages_spread_over_the_sampled_tokens_only():
    found = spread({(0, 0): 0.5, (0, 1): -1.0, (1, 0): 2.0}, [(0, 0, 2), (0, 1, 0), (1, 0, 3)])
    assert found.tolist() == [0.5, 0.5, 2.0, 2.0, 2.0]
    assert spread({}, []).shape == (0,)
    with pytest.raises(DataError, match="step 1: there are tokens of a step that was not scored"):
        spread({(0, 0): 0.5}, [(0, 1, 2)])


def test_an_unknown_setting_fails_when_the_configuration_is_made():
    with pytest.raises(ConfigError, match=r"credit\.level is 'token'"):
        Credit(level="token")
