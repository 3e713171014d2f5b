"""Votes: binomial and beta-binomial by hand, by scipy, and on judges whose correlation is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from trust_builders import runs_of

from cm2.judge.agreement import rate
from cm2.judge.majority import floor_error, majority_error, posterior, quantile, smallest, votes


def test_three_votes_of_a_judge_wrong_in_five_percent():
    assert majority_error(0.05, 1) == pytest.approx(0.05)
    assert majority_error(0.05, 3) == pytest.approx(3 * 0.05**2 * 0.95 + 0.05**3)
    assert majority_error(0.05, 3) == pytest.approx(0.00725)


@given(st.floats(0, 1), st.integers(0, 12).map(lambda k: 2 * k + 1))
def test_independent_vote_is_the_literal_sum(error, n):
    literal = sum(math.comb(n, k) * error**k * (1 - error) ** (n - k) for k in range(n // 2 + 1, n + 1))
    assert majority_error(error, n) == pytest.approx(literal, abs=1e-9)


@given(st.floats(0.01, 0.6), st.floats(0.02, 0.9), st.integers(0, 8).map(lambda k: 2 * k + 1))
def test_correlated_vote_is_scipys_beta_binomial(error, rho, n):
    a, b = error * (1 - rho) / rho, (1 - error) * (1 - rho) / rho
    assert majority_error(error, n, rho) == pytest.approx(stats.betabinom.sf(n // 2, n, a, b), abs=1e-8)


def test_correlated_vote_is_the_mean_over_items_of_the_independent_one():
    error, rho, n = 0.2, 0.25, 5
    a, b = error * (1 - rho) / rho, (1 - error) * (1 - rho) / rho
    mean, _ = integrate.quad(lambda p: float(majority_error(p, n)) * stats.beta.pdf(p, a, b), 0, 1)
    assert majority_error(error, n, rho) == pytest.approx(mean, abs=1e-6)


def test_correlation_takes_from_a_vote_and_full_correlation_takes_all():
    alone = [float(majority_error(0.1, 5, rho)) for rho in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert alone == sorted(alone)
    assert alone[-1] == pytest.approx(0.1)
    assert majority_error(0.1, 1, 0.4) == pytest.approx(0.1), "one judgement is what it is"


def test_floor_is_where_large_votes_end():
    assert floor_error(0.1, 0.3) == pytest.approx(float(majority_error(0.1, 1001, 0.3)), abs=1e-3)
    assert floor_error(0.1, 0.0) == 0
    assert floor_error(0.7, 0.0) == 1


@pytest.mark.parametrize(("error", "target", "n"), [(0.04, 0.05, 1), (0.1, 0.05, 3), (0.1, 0.01, 5), (0.5, 0.05, None)])
def test_smallest_vote_by_hand(error, target, n):
    """0.1: three are wrong in 0.028, five in 0.00856. A coin is never brought to any target."""
    assert smallest([float(majority_error(error, n)) for n in range(1, 32, 2)], target) == n
    cases = np.repeat([1, 0], [int(error * 10_000), 10_000 - int(error * 10_000)])
    assert votes(rate(cases), target).independent.n == n


def test_advice_of_one_run_knows_nothing_of_correlation():
    advice = votes(rate([1] * 10 + [0] * 90), 0.05)
    assert advice.correlated is None
    assert advice.rho is None
    assert advice.independent.hopeful <= advice.independent.n <= advice.independent.safe


def test_correlation_of_a_known_judge_is_found_and_asks_for_larger_votes():
    truth = np.zeros(3000, dtype=int)
    rng = np.random.default_rng(1)
    for rho, low, high in ((0.0, 0.0, 0.05), (0.4, 0.3, 0.5)):
        said = runs_of(truth, 0.1, 0.0, rng, rho, runs=4)
        advice = votes(rate(said.ravel()), 0.02, said.sum(axis=0), np.full(len(truth), 4))
        assert low <= advice.rho <= high
        assert advice.rho_low <= max(rho, 0.01)
        assert advice.rho_high >= rho
        assert advice.independent.n == 5
        if rho:
            assert advice.correlated.n is None, "an item in twenty is misread most of the time: voting cannot mend it"
            assert advice.floor == pytest.approx(float(floor_error(0.1, 0.4)), abs=0.015)
        else:
            assert advice.correlated.n == 5


def test_posterior_covers_what_a_vote_of_five_will_do():
    rng = np.random.default_rng(11)
    held, repeats = 0, 80
    expected = float(majority_error(0.12, 5, 0.2))
    for _ in range(repeats):
        said = runs_of(np.zeros(300, dtype=int), 0.12, 0.0, rng, 0.2, runs=3)
        e, rho, weight = posterior(said.sum(axis=0), np.full(300, 3))
        assert weight.sum() == pytest.approx(1)
        after = majority_error(e, 5, rho)
        held += quantile(after, weight, 0.025) <= expected <= quantile(after, weight, 0.975)
    assert held / repeats >= 0.88


def test_items_that_say_the_same_as_their_dialogue_count_less():
    wrong = np.array([0] * 40 + [3] * 10)
    runs = np.full(50, 3)
    full, half = (posterior(wrong, runs, share) for share in (1.0, 0.3))
    width = [quantile(e, w, 0.975) - quantile(e, w, 0.025) for e, _, w in (full, half)]
    assert width[1] > 1.3 * width[0]


def test_items_judged_in_no_run_say_nothing():
    one = posterior([1, 0, 0], [2, 2, 0])
    two = posterior([1, 0], [2, 2])
    assert np.allclose(one[2], two[2])
