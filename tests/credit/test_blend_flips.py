"""What a turn is worth to a judge that errs: unbiased whatever the number of steps, where latched verdicts are not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from credit_builders import checklist, item, one_turn, said

from cm2.credit import Credit, advantages, score
from cm2.credit.flips import corrected, flip_of, held, rests_on
from cm2.credit.satisfaction import latch
from cm2.errors import ConfigError

ALONE = np.zeros((1, 1), dtype=bool)
CHAIN = np.array([[False, False, False], [True, False, False], [False, True, False]])
"""C1 depends on C0, C2 on C1."""


def expectation(truth: np.ndarray, depends: np.ndarray, flip: float, estimate) -> np.ndarray:
    """Over every way in which the judge can err about these states, with its probability."""
    total = np.zeros(truth.shape[1])
    for errors in itertools.product((False, True), repeat=truth.size):
        wrong = np.array(errors).reshape(truth.shape)
        chance = np.prod(np.where(wrong, flip, 1 - flip))
        total += chance * estimate(np.where(wrong, 1 - truth, truth), depends)
    return total


@pytest.mark.parametrize("flip", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_item_that_never_held_is_worth_nothing_on_average_however_long_the_turn(flip, steps):
    truth = np.zeros((steps, 1))
    found = expectation(truth, ALONE, flip, lambda met, depends: held(met[None], depends, flip)[0])
    assert found == pytest.approx([0.0], abs=1e-12)
    latched = expectation(truth, ALONE, flip, lambda met, depends: latch(met, depends, "gated")[-1].astype(float))
    assert latched == pytest.approx([1 - (1 - flip) ** steps])  # the ratchet: dawdling pays


@pytest.mark.parametrize("starts", [(0, 1, 2), (0, 0, 1), (1, 1, 0), (0, 3, 1), (0, 1, 3)])
def test_with_dependencies_the_mean_is_what_a_perfect_judge_says(starts):
    truth = (np.arange(3)[:, None] >= np.array(starts)[None, :]).astype(float)  # item c holds from step starts[c] on
    found = expectation(truth, CHAIN, 0.2, lambda met, depends: held(met[None], depends, 0.2)[0])
    assert found == pytest.approx(latch(truth, CHAIN, "gated")[-1].astype(float), abs=1e-12)


def test_chains_reach_back_one_step_for_each_dependency():
    assert sorted(rests_on(CHAIN, 2)) == [(0, 2), (1, 1), (2, 0)]
    assert rests_on(CHAIN, 0) == [(0, 0)]


def test_rollouts_of_different_length_are_read_at_their_own_last_step():
    met = np.array([[[1.0], [0.0], [0.0]], [[0.0], [1.0], [0.0]]])
    assert held(met, ALONE, 0.25, np.array([1, 3])).ravel() == pytest.approx([1.5, -0.5])


def test_hand_numbers_of_a_score():
    # C0 weighs 0.25 and was said to hold at the end, C1 0.75 and was not: (0.8 − 0.2)·… with f = 0.2.
    found = one_turn(item("C0", 0.25), item("C1", 0.75), marks={"C0": "ny", "C1": "yn"})
    assert found.reward == 1.0  # latched
    assert corrected(found, 0.2) == pytest.approx([0.25 * (0.8 / 0.6) + 0.75 * (-0.2 / 0.6)])


def test_an_unscored_item_leaves_sum_and_weight_and_an_unscored_state_takes_its_neighbour_s_verdict():
    found = one_turn(item("C0", 0.25), item("C1", 0.75), marks={"C0": "y-", "C1": "--"})
    assert corrected(found, 0.2) == pytest.approx([0.8 / 0.6])
    nothing = one_turn(item("C0", 1.0), marks={"C0": "--"})
    assert np.isnan(corrected(nothing, 0.2)).all()


def test_a_turn_never_reached_is_worth_nothing_for_certain():
    lists = [checklist(item("C0", 1.0), turn=0), checklist(item("C0", 1.0), turn=1)]
    assert corrected(score(lists, said({"C0": "y"}), [1], 2), 0.1)[1] == 0.0


def test_the_flip_rate_decides_who_is_paid():
    lists = [checklist(item("C0", 1.0))]
    dawdler = score(lists, said({"C0": "nynn"}), [4], 1)
    worker = score(lists, said({"C0": "ny"}), [2], 1)
    plain = advantages([dawdler, worker], credit=Credit())
    assert not plain.signal
    for level in ("trajectory", "turn", "blend"):
        found = advantages([dawdler, worker], credit=Credit(level=level, judge_flip=0.1))
        assert found.steps[1][0, 0] == pytest.approx(0.5 / 0.8) and found.steps[0][0, 0] == pytest.approx(-0.5 / 0.8)


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.37])
def test_repeatability_gives_the_flip_rate(flip):
    assert flip_of((1 - flip) ** 2 + flip**2) == pytest.approx(flip, abs=1e-9)


def test_settings_without_a_meaning_are_refused():
    for wrong in ({"judge_flip": 0.5}, {"judge_flip": -0.1}, {"judge_flip": 0.1, "level": "step"}):
        with pytest.raises(ConfigError):
            Credit(**wrong)
    with pytest.raises(ConfigError):
        flip_of(0.5)
