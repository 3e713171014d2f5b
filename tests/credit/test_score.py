"""Rewards (eq. 4 and 6) against numbers worked out by hand; unscored is never zero; a bad input is refused."""

from __future__ import annotations

import json

import pytest
from credit_builders import checklist, item, one_turn, said

from cm2.credit import fitting, satisfied, score, unmet_strict
from cm2.errors import DataError

FIRST = checklist(item("C0", 0.2), item("C1", 0.5, ["C0"], strict=True), item("C2", 0.3))
SECOND = checklist(item("C0", 0.4), item("C1", 0.6), turn=1)


def test_the_reward_is_the_mean_over_the_turns_of_the_reference():
    # turn 0: C0 at step 0, C1 at step 1 (C0 in x_1), C2 never: R_0 = 0.2 + 0.5 = 0.7
    # turn 1: only C1 at step 0: R_1 = 0.6. Turn 2 of the reference has no checklist: R_2 = 0.
    # R = (0.7 + 0.6 + 0) / 3
    verdicts = said({"C0": "yy", "C1": "ny", "C2": "nn"}) + said({"C0": "n", "C1": "y"}, turn=1)
    found = score([FIRST, SECOND], verdicts, [2, 1, 1], 3)
    assert found.turn_rewards.tolist() == pytest.approx([0.7, 0.6, 0.0])
    assert found.reward == pytest.approx(1.3 / 3)
    assert found.step_rewards == pytest.approx({(0, 0): 0.2 / 3, (0, 1): 0.5 / 3, (1, 0): 0.6 / 3, (2, 0): 0.0})
    assert found.strict_pass is False


def test_turns_never_reached_count_zero_so_stopping_early_does_not_pay():
    # the same first turn, then the end: R = (0.7 + 0) / 2, not 0.7 / 1
    verdicts = said({"C0": "yy", "C1": "ny", "C2": "nn"})
    found = score([FIRST, SECOND], verdicts, [2], 2)
    assert found.reward == pytest.approx(0.35)
    assert found.ledgers[1, 0].outcome == {"C0": False, "C1": False}
    assert found.strict_pass is False


def test_a_turn_without_duties_beyond_the_end_does_not_spoil_a_pass():
    verdicts = said({"C0": "yy", "C1": "ny", "C2": "ny"})
    assert score([FIRST], verdicts, [2], 2).strict_pass is True


def test_gated_and_strict_differ_only_on_an_early_yes():
    # C1 (0.5) is judged true at step 0, before C0 is: gated pays it at step 1, strict never.
    marks = {"C0": "yy", "C1": "yy", "C2": "ny"}
    assert one_turn(*FIRST.items, marks=marks).reward == pytest.approx(0.2 + 0.5 + 0.3)
    assert one_turn(*FIRST.items, marks=marks, reading="strict").reward == pytest.approx(0.2 + 0.3)


def test_a_judge_that_wavers_pays_once():
    assert one_turn(item("C0", 1.0), marks={"C0": "ynyn"}).step_rewards == {(0, 0): 1, (0, 1): 0, (0, 2): 0, (0, 3): 0}


def test_an_unscored_item_leaves_the_sum_and_the_weight():
    # C2 (0.3) is unscored throughout: R = (0.2 + 0) / (0.2 + 0.5), not 0.2
    found = one_turn(*FIRST.items, marks={"C0": "yy", "C1": "nn", "C2": "--"})
    assert found.reward == pytest.approx(0.2 / 0.7)
    assert found.ledgers[0, 0].outcome == {"C0": True, "C1": False, "C2": None}


def test_an_item_that_hangs_on_an_unscored_one_is_unscored():
    # C0 unscored, C1 judged true at step 1: whether it pays is unknown. R = 0.3 / 0.3
    found = one_turn(*FIRST.items, marks={"C0": "--", "C1": "ny", "C2": "ny"})
    assert found.reward == pytest.approx(1.0)
    assert found.ledgers[0, 0].outcome == {"C0": None, "C1": None, "C2": True}


def test_a_turn_in_which_nothing_is_scored_leaves_the_mean_over_turns():
    # turn 0 unscored, turn 1: 0.6. R = 0.6 / 1
    verdicts = said({"C0": "-", "C1": "-", "C2": "-"}) + said({"C0": "n", "C1": "y"}, turn=1)
    found = score([FIRST, SECOND], verdicts, [1, 1], 2)
    assert found.reward == pytest.approx(0.6)
    assert found.as_json()["turns"] == [None, 0.6]
    assert sum(found.step_rewards.values()) == pytest.approx(0.6)


def test_a_step_without_any_verdict_is_unscored_and_not_a_no():
    assert score([FIRST], [], [2], 1).reward is None
    assert score([FIRST], [], [2], 1).strict_pass is None
    assert score([FIRST], [], [0], 1).reward == 0.0  # no step was taken: nothing was done


def test_rewards_average_over_the_checklists_of_a_turn():
    # variant 0 earns 0.4, variant 1 earns 1.0, variant 2 is unscored: R = (0.4 + 1.0) / 2
    variants = [checklist(item("C0", 0.4), item("C1", 0.6), variant=v) for v in range(3)]
    verdicts = said({"C0": "y", "C1": "n"}) + said({"C0": "y", "C1": "y"}, variant=1) + said({"C0": "-"}, variant=2)
    found = score(variants, verdicts, [1], 1)
    assert found.reward == pytest.approx(0.7)
    assert found.step_rewards == {(0, 0): pytest.approx(0.7)}


def test_weights_that_do_not_quite_sum_to_one_are_normalised():
    assert one_turn(item("C0", 0.3), item("C1", 0.3), marks={"C0": "y", "C1": "y"}).reward == pytest.approx(1.0)


def test_a_score_is_written_as_json():
    found = score([FIRST], said({"C0": "y", "C1": "n", "C2": "-"}), [1], 1)
    value = json.loads(json.dumps(found.as_json()))
    assert value["items"] == [{"turn": 0, "variant": 0, "outcome": {"C0": True, "C1": False, "C2": None}}]
    assert value["reward"] == pytest.approx(0.2 / 0.7)


def test_strict_items_hold_the_conversation_unless_satisfied_or_unscored():
    assert unmet_strict(FIRST, said({"C0": "yn", "C1": "ny", "C2": "nn"})) == []
    assert unmet_strict(FIRST, said({"C0": "ny", "C1": "ny", "C2": "yy"})) == ["C1"]  # C0 only in the same step
    assert unmet_strict(FIRST, said({"C0": "yn", "C1": "--"})) == []
    assert unmet_strict(FIRST, []) == ["C1"]  # no state of the turn at all: never reached
    assert unmet_strict(FIRST, [], steps=2) == []  # two steps that nobody judged
    assert unmet_strict(SECOND, []) == []


def test_satisfied_takes_the_steps_from_the_verdicts_where_they_are_not_given():
    assert satisfied(SECOND, said({"C0": "ny", "C1": "n"}, turn=1)) == {"C0": True, "C1": False}
    assert satisfied(SECOND, said({"C0": "y"})) == {"C0": False, "C1": False}


@pytest.mark.parametrize(
    ("checklists", "turns", "message"),
    [
        ([SECOND], 1, "about turn 1, but the reference has 1 turns"),
        ([FIRST, FIRST], 1, "two checklists of the turn have variant 0"),
        ([checklist(item("C0", 1.0, ["C1"]))], 1, "C1, which is no item"),
    ],
)
def test_checklists_that_cannot_be_scored_are_refused(checklists, turns, message):
    with pytest.raises(DataError, match=message):
        fitting(checklists, turns)
    with pytest.raises(DataError, match=message):
        score(checklists, [], [], turns)


def test_more_turns_than_the_reference_has_are_refused():
    with pytest.raises(DataError, match="the rollout has 2 turns, its reference 1"):
        score([FIRST], [], [1, 1], 1)
