"""What docs/method.md says about the estimators, as exact statements: all groups of three, no sampling."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cm2.credit import Credit

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "turn_baseline.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("turn_baseline", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["turn_baseline"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["conflict", "aligned"])
def groups(bench, request):
    made = bench.Groups(bench.Problem(bench.TASKS[request.param]), 3)
    made.task = request.param
    return made


THETA = np.random.default_rng(7).normal(scale=0.7, size=(6, 2))


def expected(groups, credit: Credit) -> np.ndarray:
    factors = np.tensordot(groups.probabilities(THETA), groups.factors(credit), axes=1)
    return np.tensordot(factors, groups.problem.log_gradients(THETA), axes=2)


def cosine(one, other) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_enumerated_gradient_is_the_slope_of_the_expected_reward(groups):
    problem, exact = groups.problem, groups.problem.gradient(THETA)
    for i in range(THETA.size):
        nudge = np.zeros(THETA.size)
        nudge[i] = 1e-5
        nudge = nudge.reshape(THETA.shape)
        slope = (problem.value(THETA + nudge) - problem.value(THETA - nudge)) / 2e-5
        assert slope == pytest.approx(exact[i], abs=1e-9)


def test_the_groups_are_all_there_is(groups):
    assert groups.probabilities(THETA).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "credit",
    [Credit(), Credit(level="turn", turn_credit="to_go"), Credit(level="blend")],
    ids=["trajectory", "to_go", "blend"],
)
def test_trajectory_turn_to_go_against_the_group_and_blend_follow_the_gradient_exactly(groups, credit):
    np.testing.assert_allclose(expected(groups, credit), groups.problem.gradient(THETA), atol=1e-12)


@pytest.mark.parametrize("baseline", ["group", "survivors"])
def test_a_turn_s_own_credit_pushes_towards_the_reply_that_ends_the_rollout_where_that_pays_at_once(groups, baseline):
    # state 1 is "looked up, about to reply", parameter [1, 0] the logit of the reply that lets the conversation go on
    found = expected(groups, Credit(level="turn", turn_baseline=baseline)).reshape(THETA.shape)[1, 0]
    exact = groups.problem.gradient(THETA).reshape(THETA.shape)[1, 0]
    assert exact > 0
    assert (found < 0) == (groups.task == "conflict")


def test_survivors_make_late_turns_count_less_and_leave_their_direction(groups):
    exact = groups.problem.gradient(THETA).reshape(THETA.shape)
    found = expected(groups, Credit(level="turn", turn_baseline="survivors", turn_credit="to_go")).reshape(THETA.shape)
    np.testing.assert_allclose(found[:3], exact[:3], atol=1e-12)  # turn 0: everybody is a survivor
    assert cosine(found[3:].ravel(), exact[3:].ravel()) == pytest.approx(1.0)
    assert 0.2 < np.linalg.norm(found[3:]) / np.linalg.norm(exact[3:]) < 0.9
