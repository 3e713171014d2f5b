"""Intervals and paired differences: hand-computed numbers, coverage, and what is not claimed."""

import numpy as np
import pytest
from scipy import stats

from cm2.evals.intervals import difference, interval, sign_flips


def test_a_share_has_wilsons_interval():
    found = interval([1.0] * 7 + [0.0] * 3)
    n, p, z = 10, 0.7, stats.norm.ppf(0.975)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.mean == pytest.approx(0.7) and found.n == 10
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_everybody_right_is_not_certainty():
    assert interval([1.0] * 20).low < 0.9


def test_a_mean_of_other_numbers_has_a_bootstrap_interval_near_the_normal_one():
    values = np.random.default_rng(0).normal(0.5, 0.1, 200).tolist()
    found = interval(values)
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_nothing_measured_is_no_number():
    assert interval([]) is None and difference({"a": 1.0}, {"b": 1.0}) is None


def test_a_difference_is_paired_by_task():
    """Tasks differ a lot, the agents by a little on each: only pairing sees it."""
    base = {str(i): float(value) for i, value in enumerate(np.random.default_rng(1).uniform(0, 1, 60))}
    better = {id: value + 0.02 for id, value in base.items()} | {"60": 0.0}
    found = difference(base, better)
    assert found.n == 60 and found.difference == pytest.approx(0.02)
    assert found.low > 0 and found.significant and found.p < 0.01


def test_no_difference_is_not_significant():
    same = {str(i): float(i % 2) for i in range(40)}
    found = difference(same, same)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1) and not found.significant


def test_sign_flips_agree_with_the_exact_test():
    """Six tasks, all better by one: of 64 sign patterns two are as extreme, so p is 1/32."""
    found = difference({str(i): 0.0 for i in range(6)}, {str(i): 1.0 for i in range(6)})
    assert found.p == pytest.approx(2 / 64)


def test_false_alarms_are_about_as_rare_as_promised():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(60):
        a, b = rng.integers(0, 2, (2, 80)).astype(float)
        pairs = [dict(enumerate(values.tolist())) for values in (a, b)]
        alarms += difference(*({str(k): v for k, v in one.items()} for one in pairs)).significant
    assert alarms <= 9  # 3 expected; 10 or more happen once in a thousand times


def test_sign_flips_one_sided_count_the_patterns_that_rise_as_much():
    """Of eight patterns of three equal differences one reaches their sum, two are as far from 0; zeros do not count."""
    three = np.array([0.5, 0.0, 0.5, 0.5])
    assert sign_flips(three, "greater") == 1 / 8
    assert sign_flips(three) == 1 / 4
    assert sign_flips(-three, "greater") == 1.0
    assert sign_flips(np.array([0.5]), "greater") == 0.5 and sign_flips(np.array([-0.5]), "greater") == 1.0
    many = np.tile([0.5, -0.25], 600)  # beyond the enumerated and the drawn: the normal limit
    assert sign_flips(many, "greater") < 1e-6 < 1 - 1e-6 < sign_flips(-many, "greater")
