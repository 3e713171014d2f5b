"""Paired statistics: hand-computed numbers, literal second implementations, exact coverage, properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cm2.assure.multiple import benjamini_hochberg, holm
from cm2.assure.paired import contrast, mcnemar, newcombe, smallest
from cm2.evals import intervals
from cm2.evals.intervals import bootstrap, sign_flips


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[list[float], list[float]]:
    a = [1.0] * both + [1.0] * lost + [0.0] * gained + [0.0] * neither
    b = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return a, b


def test_mcnemar_by_hand():
    """Of 12 discordant pairs 2 or fewer one way: (1 + 12 + 66) / 4096, twice."""
    assert mcnemar(2, 10) == pytest.approx(2 * 79 / 4096)
    assert mcnemar(10, 2) == pytest.approx(2 * 79 / 4096)
    assert mcnemar(0, 6) == pytest.approx(2 / 64) and mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0


@given(st.integers(0, 25), st.integers(0, 25))
def test_mcnemar_is_the_sum_of_both_tails(lost, gained):
    m, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(m, k) for k in range(fewer + 1)) / 2**m
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail))


def test_newcombes_published_example():
    """Statistics in Medicine 17 (1998), p. 2635: 36, 12, 2 and 0 pairs; method 10 gives 0.0569 to 0.3404."""
    assert newcombe(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert newcombe(36, 12, 2, 0) == pytest.approx((-0.3404, -0.0569), abs=5e-5)


def literal_newcombe(e: int, f: int, g: int, h: int) -> tuple[float, float]:
    """The formula as it is written, for p1 - p2, from Wilson's closed form."""
    n, z = e + f + g + h, stats.norm.ppf(0.975)

    def wilson(k):
        middle, half = 2 * k + z * z, z * math.sqrt(z * z + 4 * k * (1 - k / n))
        return (middle - half) / (2 * (n + z * z)), (middle + half) / (2 * (n + z * z))

    p1, p2 = (e + f) / n, (e + g) / n
    (l1, u1), (l2, u2) = wilson(e + f), wilson(e + g)
    a = (e + f) * (g + h) * (e + g) * (f + h)
    top = e * h - f * g
    top = top - n / 2 if top > n / 2 else 0 if top >= 0 else top
    phi = top / math.sqrt(a) if a else 0
    d = p1 - p2
    low = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    high = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    return d - math.sqrt(max(low, 0)), d + math.sqrt(max(high, 0))


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_newcombe_agrees_with_the_formula_as_written(table):
    both, lost, gained, neither = table
    low, high = literal_newcombe(both, gained, lost, neither)
    assert newcombe(both, lost, gained, neither) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-9)


@pytest.mark.parametrize("chances", [(0.85, 0.02, 0.08, 0.05), (0.5, 0.1, 0.1, 0.3), (0.94, 0.01, 0.04, 0.01)])
def test_newcombes_interval_covers_the_truth_about_as_often_as_promised(chances):
    """Exactly: over every table of 14 pairs, by its probability."""
    n, truth, covered = 14, chances[2] - chances[1], 0.0
    for both in range(n + 1):
        for lost in range(n + 1 - both):
            for gained in range(n + 1 - both - lost):
                table = (both, lost, gained, n - both - lost - gained)
                low, high = literal_newcombe(both, gained, lost, table[3])
                covered += stats.multinomial.pmf(table, n, chances) * (low <= truth <= high)
    assert 0.93 <= covered <= 1.0


def test_rare_differences_do_not_make_the_interval_sure_of_itself():
    """Nothing differs in 20 pairs: a bootstrap has no width there."""
    found = contrast(*pairs(19, 0, 0, 1))
    assert found.difference == 0 and found.low < -0.1 and found.high > 0.1 and found.p == 1.0
    assert bootstrap(np.zeros(20)) == (0.0, 0.0)


def test_yes_and_no_have_mcnemar_and_newcombe():
    found = contrast(*pairs(36, 2, 12, 0))
    assert (found.n, found.better, found.worse, found.moved) == (50, 12, 2, 14)
    assert (found.a, found.b, found.difference) == pytest.approx((0.76, 0.96, 0.2))
    assert (found.test, found.interval, found.discordance) == ("mcnemar", "newcombe", 0.28)
    assert found.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)


def test_shares_have_sign_flips_and_a_bootstrap():
    found = contrast([0.5, 1.0, 0.25, 0.0], [0.75, 1.0, 0.75, 0.5])
    assert (found.test, found.interval, found.better, found.worse) == ("sign flips", "bootstrap", 3, 0)
    assert found.p == pytest.approx(2 / 8) and found.difference == pytest.approx(1.25 / 4)
    assert contrast([], []) is None
    with pytest.raises(ValueError, match="no pairs"):
        contrast([1.0], [])


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-0.5, -0.25, 0.25, 0.5, 1.0]), min_size=2, max_size=9))
def test_sign_flips_enumerate_every_pattern(values):
    observed = abs(sum(values))
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    extreme = sum(abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= observed - 1e-12 for signs in patterns)
    assert sign_flips(np.array(values)) == pytest.approx(extreme / len(patterns))


@settings(max_examples=30)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
def test_sign_flips_of_ones_are_mcnemar(lost, gained, same):
    differences = np.array([-1.0] * lost + [1.0] * gained + [0.0] * same)
    assert sign_flips(differences) == pytest.approx(mcnemar(lost, gained))


def test_many_drawn_patterns_and_the_limit_agree_with_each_other(monkeypatch):
    values = np.random.default_rng(0).normal(0.1, 1.0, 300)
    drawn, (low, high) = sign_flips(values), bootstrap(values)
    monkeypatch.setattr(intervals, "LARGE", 299)
    assert 0.01 < drawn < 0.5 and sign_flips(values) == pytest.approx(drawn, abs=0.02)
    assert bootstrap(values) == pytest.approx((low, high), abs=0.01)


def test_the_bootstrap_by_hand():
    """Of differences 0 and 1 the resampled mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4: 95 % is all of it."""
    assert bootstrap(np.array([0.0, 1.0])) == (0.0, 1.0)


def test_the_bootstrap_agrees_with_one_written_down():
    data = np.random.default_rng(1).choice([0.0, 0.0, 0.25, -0.5, 1.0], 60)
    drawn = np.random.default_rng(2).choice(data, (20_000, 60)).mean(axis=1)
    assert bootstrap(data) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.02)
    assert bootstrap(data) == bootstrap(data)


def test_holm_and_benjamini_hochberg_by_hand():
    ps = [0.01, 0.04, 0.03, 0.005]
    assert holm(ps) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(ps) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm([]) == [] and benjamini_hochberg([]) == []
    assert holm([0.2]) == [0.2] and benjamini_hochberg([0.2]) == [0.2]


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=12))
def test_corrections_agree_with_their_definitions(ps):
    """Holm: reject in order while p(i) <= alpha / (m - i). The other: all up to the last p(i) <= i alpha / m."""
    for alpha in (0.05, 0.2):
        order = np.argsort(ps, kind="stable")
        m, rejected = len(ps), set()
        for rank, index in enumerate(order):
            if ps[index] > alpha / (m - rank):
                break
            rejected.add(int(index))
        margin = [i for i, p in enumerate(holm(ps)) if abs(p - alpha) > 1e-9]
        assert {i for i in margin if holm(ps)[i] <= alpha} == {i for i in rejected if i in margin}
        last = max((rank for rank, i in enumerate(order, 1) if ps[i] <= rank * alpha / m), default=0)
        corrected = benjamini_hochberg(ps)
        margin = [i for i in range(m) if abs(corrected[i] - alpha) > 1e-9]
        assert {i for i in margin if corrected[i] <= alpha} == {int(i) for i in order[:last] if int(i) in margin}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=12))
def test_swapping_the_agents_turns_everything_round(values):
    a, b = zip(*values, strict=True)
    one, other = contrast(a, b), contrast(b, a)
    assert (one.better, one.worse, one.p) == pytest.approx((other.worse, other.better, other.p))
    assert one.difference == pytest.approx(-other.difference)
    if one.interval == "newcombe":
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    reversed_ = contrast(a[::-1], b[::-1])
    assert (reversed_.p, reversed_.difference) == pytest.approx((one.p, one.difference))


@given(st.integers(0, 30))
def test_no_p_is_below_the_smallest_that_so_many_differences_can_give(moved):
    assert mcnemar(0, moved) == pytest.approx(smallest(moved))
    assert all(mcnemar(lost, moved - lost) >= smallest(moved) - 1e-12 for lost in range(moved + 1))
