"""Agreement, kappa, alpha and intervals against textbook numbers, scipy, and judges of known error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cm2.judge.agreement import Confusion, alpha, effective_size, exact, kappa, kappa_intervals, rate, share_of_clusters

counts = st.integers(0, 60)


@pytest.mark.parametrize(
    ("table", "agreement", "expected"),
    [
        # 50 grant proposals, two readers: agreement 0.7, chance 0.5
        ((20, 5, 10, 15), 0.70, 0.40),
        # Feinstein and Cicchetti 1990: the same agreement of 85 %, balanced and one-sided
        ((40, 9, 6, 45), 0.85, 0.70),
        ((80, 10, 5, 5), 0.85, 0.32),
        ((25, 0, 0, 75), 1.00, 1.00),
        ((0, 50, 50, 0), 0.00, -1.00),
    ],
)
def test_kappa_of_textbook_tables(table, agreement, expected):
    found = Confusion(*table)
    assert found.agreement == pytest.approx(agreement)
    assert found.kappa == pytest.approx(expected, abs=0.005)
    assert found.pabak == pytest.approx(2 * agreement - 1)


def test_a_judge_that_always_says_yes_agrees_often_and_is_worth_nothing():
    found = Confusion(tp=95, fp=5)
    assert found.agreement == 0.95
    assert found.base_rate == 0.95
    assert found.kappa == 0.0


def test_kappa_has_no_meaning_where_both_always_say_the_same_one_thing():
    assert Confusion(tp=40).kappa is None
    assert Confusion().kappa is None
    assert Confusion().agreement is None


@given(counts, counts, counts, counts)
def test_kappa_is_the_literal_formula_and_does_not_change_when_yes_and_no_swap(tp, fp, fn, tn):
    found = Confusion(tp, fp, fn, tn)
    n = tp + fp + fn + tn
    if n == 0:
        assert found.kappa is None
        return
    observed = (tp + tn) / n
    chance = ((tp + fp) / n) * ((tp + fn) / n) + ((fn + tn) / n) * ((fp + tn) / n)
    if chance >= 1 - 1e-12:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx((observed - chance) / (1 - chance))
        assert found.kappa == pytest.approx(Confusion(tn, fn, fp, tp).kappa)
        assert found.kappa <= 1


def test_kappa_equals_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (extra 'classifier')")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    tp, fp, fn, tn = (int(((said == s) & (truth == t)).sum()) for s, t in ((1, 1), (1, 0), (0, 1), (0, 0)))
    assert Confusion(tp, fp, fn, tn).kappa == pytest.approx(metrics.cohen_kappa_score(truth, said))


def values_table(rows: list[str]) -> list[list[int]]:
    """Raters as rows of values ("." is missing) to counts by thing and value."""
    columns = zip(*(row.split() for row in rows), strict=True)
    return [[column.count(str(value)) for value in range(6)] for column in columns]


def test_alpha_of_krippendorffs_own_examples():
    binary = ["0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"]
    assert alpha(values_table(binary)) == pytest.approx(0.095, abs=0.0005)
    four = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    assert alpha(values_table(four)) == pytest.approx(0.743, abs=0.0005)
    three = [
        ". . . . . 3 4 1 2 1 1 3 3 . 3",
        "1 . 2 1 3 3 4 3 . . . . . . .",
        ". . 2 1 3 4 4 . 2 1 1 3 3 . 4",
    ]
    assert alpha(values_table(three)) == pytest.approx(0.691, abs=0.0005)


def test_alpha_stands_to_fleiss_kappa_as_it_must():
    """14 raters, 10 patients, 5 diagnoses: kappa 0.210; alpha = kappa + (1 − kappa) / (things·raters)."""
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert alpha(table) == pytest.approx(0.210 + 0.790 / 140, abs=0.0006)


def test_alpha_is_one_for_agreement_zero_by_chance_and_none_without_variation():
    assert alpha([[3, 0], [0, 3], [3, 0]]) == 1.0
    assert alpha([[3, 0], [3, 0]]) is None
    assert alpha([[1, 0], [0, 1]]) is None  # nothing was rated twice
    assert alpha([]) is None
    yes = np.random.default_rng(0).binomial(2, 0.5, size=20_000)
    assert alpha(np.stack([yes, 2 - yes], axis=1)) == pytest.approx(0, abs=0.02)


@given(st.integers(0, 40), st.integers(1, 40))
def test_interval_of_independent_cases_is_clopper_and_pearsons(count, more):
    n = count + more
    found = rate([1] * count + [0] * more)
    other = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert found.effective == n
    assert exact(count, n) == pytest.approx((other.low, other.high), abs=1e-9)


def test_design_effect_by_hand():
    """Ten dialogues of two items that always agree, three of them yes.

    share 0.3; variance of it over clusters 10/9·(3·1.4² + 7·0.6²)/400 = 0.023333; alone 0.21/19 = 0.011053;
    effect 2.1111; 20/2.1111 = 9.4737; times (t_19/t_9)² = (2.0930/2.2622)² = 0.85604.
    """
    assert effective_size([2] * 3 + [0] * 7, [2] * 10) == pytest.approx(9.4737 * 0.85604, abs=0.001)
    assert effective_size([0, 0, 0], [5, 5, 5]) == 15
    assert effective_size([3], [5]) == 5
    assert share_of_clusters([1, 0, 1, 0], [0, 0, 1, 1]) == 1.0  # items of a dialogue differ more than by chance
    assert share_of_clusters([1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3]) < 0.5
    assert rate([], []) is None


def coverage(rho: float, independent: bool, repeats: int = 400) -> float:
    """How often the 95 % interval of a rate of 10 % holds it, over 40 dialogues of 10 items."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(repeats):
        chance = np.full(40, 0.1) if rho == 0 else rng.beta(0.1 * (1 - rho) / rho, 0.9 * (1 - rho) / rho, size=40)
        yes = rng.binomial(10, chance)
        found = rate(np.repeat([1, 0], [yes.sum(), 400 - yes.sum()])) if independent else rate(yes, np.full(40, 10))
        held += found.low <= 0.1 <= found.high
    return held / repeats


def test_intervals_cover_the_rate_of_a_known_judge_and_more_so_when_its_errors_come_in_dialogues():
    assert coverage(0.0, independent=False) >= 0.94
    assert coverage(0.15, independent=False) >= 0.92
    assert coverage(0.15, independent=True) < 0.88, "without the design effect they would be too narrow"


def test_kappa_intervals_cover_kappa_and_widen_when_dialogues_agree():
    rng = np.random.default_rng(3)
    truth_rate, error = 0.7, 0.1
    tp, fp = truth_rate * (1 - error), (1 - truth_rate) * error
    fn, tn = truth_rate * error, (1 - truth_rate) * (1 - error)
    expected = float(kappa([tp, fp, fn, tn]))
    held = 0
    for _ in range(60):
        table = rng.multinomial(5, [tp, fp, fn, tn], size=80)
        low, high = kappa_intervals([table])[0]
        held += low <= expected <= high
    assert held >= 51
    table = rng.multinomial(5, [tp, fp, fn, tn], size=80)
    alone = np.repeat(np.eye(4, dtype=int), table.sum(axis=0), axis=0)
    narrow = kappa_intervals([np.concatenate([alone, alone])])[0]  # every case twice, as if they were independent
    wide = kappa_intervals([2 * alone])[0]  # every case twice, in one dialogue
    assert wide[1] - wide[0] > 1.2 * (narrow[1] - narrow[0])


def test_kappa_interval_is_none_where_nothing_can_vary():
    assert kappa_intervals([np.array([[5, 0, 0, 0]])]) == [None]
    assert kappa_intervals([np.array([[5, 0, 0, 0], [4, 0, 0, 0]])]) == [None]
    assert kappa_intervals([np.array([[3, 0, 0, 2], [1, 0, 0, 4]])]) == [None], "no error was seen: that proves little"
    assert kappa_intervals([]) == []
    assert math.isnan(kappa([0, 0, 0, 0]))
