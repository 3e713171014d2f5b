"""Flaky cases: told apart by counts. Numbers are worked out by hand, or by a second, literal implementation."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.flaky import Record, fell, needed_repeats, power, settle
from cm2.assure.gate_case import Case
from cm2.assure.gate_tally import bounds
from cm2.assure.multiple import holm


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_never_falls_back():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(ps):
    """Holm's own words: go up from the smallest p; stop at the first that is above alpha / (m - i)."""
    alpha, rejected = 0.05, set()
    for i, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        if (len(ps) - i) * ps[index] > alpha:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(ps)) if p <= alpha} == rejected


def test_the_fall_of_a_rate_is_fishers_exact_test():
    assert fell(1, 2, Record(3, 0)) == pytest.approx(4 / 20)
    assert fell(0, 3, Record(3, 0)) == pytest.approx(1 / 20)
    assert fell(3, 0, Record(0, 3)) == 1.0 and fell(0, 9, Record()) == 1.0 and fell(0, 0, Record(3, 0)) == 1.0


def literal_power(before, now, n, m, alpha):
    found = 0.0
    for a in range(n + 1):
        for b in range(m + 1):
            p = sum(comb(m, x) * comb(n, a + b - x) for x in range(b + 1) if 0 <= a + b - x <= n) / comb(n + m, a + b)
            if p <= alpha * (1 + 1e-9):
                found += comb(n, a) * before**a * (1 - before) ** (n - a) * comb(m, b) * now**b * (1 - now) ** (m - b)
    return found


TENTHS = st.integers(0, 10).map(lambda tenth: tenth / 10)


@given(TENTHS, TENTHS, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.05, 0.2]))
def test_power_is_the_sum_over_all_outcomes_that_the_test_rejects(before, now, n, m, alpha):
    assert power(before, now, n, m, alpha) == pytest.approx(literal_power(before, now, n, m, alpha), abs=1e-9)


def test_needed_repeats_by_hand():
    assert needed_repeats(1.0, 0.0, 0.05, 0.8) == 3, "1 / C(6, 3) = 0.05, and 1 / C(4, 2) is above it"
    assert needed_repeats(1.0, 0.0, 0.05, 0.8, runs_before=1) == 19, "1 / (n + 1) must be at most 0.05"
    assert needed_repeats(1.0, 0.0, 0.001, 0.8, runs_before=1) is None, "that would need 999 runs"
    assert needed_repeats(0.5, 0.5, 0.05, 0.8) is None, "nothing fell"


@pytest.mark.parametrize(("before", "now"), [(0.9, 0.4), (0.5, 0.0)])
def test_the_needed_repeats_reach_the_power_and_one_less_does_not(before, now):
    needed = needed_repeats(before, now, 0.05, 0.8)
    assert needed is not None
    assert literal_power(before, now, needed, needed, 0.05) >= 0.8
    assert literal_power(before, now, needed - 1, needed - 1, 0.05) < 0.8


def test_an_interval_of_yes_and_no_is_wilsons():
    assert bounds(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_an_interval_of_shares_is_clopper_and_pearsons_between_the_whole_numbers():
    low, high = bounds(0.5, 1)
    assert low + high == pytest.approx(1) and 0 < low < 0.5
    lower = bounds(0.45, 10)
    assert lower[0] < 0.45 < lower[1] and lower[0] < bounds(0.55, 10)[0]
    assert bounds(0.45, 1000)[1] - bounds(0.45, 1000)[0] < lower[1] - lower[0]


def case(passed, failed, severity="major", name="a"):
    return Case(name, "duty", severity, passed=passed, failed=failed, status="failed" if failed else "passed")


def settled(one, record=None, tolerates="known"):
    found = settle([one], {one.key: record} if record else {}, lambda case: tolerates, 0.05, 0.5, 0.8)
    return one.status, one.worse, found


def test_a_case_that_fails_for_the_first_time_is_not_flaky():
    assert settled(case(0, 1), Record(5, 0))[:2] == ("failed", False)


def test_a_case_that_passes_and_fails_now_is_tolerated_where_any_is():
    assert settled(case(2, 1), Record(3, 0), "any")[0] == "flaky"
    assert settled(case(2, 1), Record(3, 0), "known")[0] == "failed"
    assert settled(case(2, 1), None, "any")[0] == "flaky"


def test_a_known_flaky_case_that_fails_today_is_not_blamed():
    assert settled(case(0, 1), Record(3, 2, flaky=True))[0] == "flaky"
    assert settled(case(0, 1), Record(3, 2, flaky=True), "none")[0] == "failed"


def test_a_known_flaky_case_that_fell_is_blamed():
    status, worse, _ = settled(case(0, 6), Record(16, 4, flaky=True), "any")
    assert (status, worse) == ("failed", True)


def test_many_flaky_cases_are_tested_together():
    alone = case(1, 4)
    assert settled(alone, Record(5, 0, flaky=True), "any")[1], "6 / 252 = 0.024 alone"
    many = [case(1, 4, name="a")] + [case(1, 1, name=str(index)) for index in range(9)]
    found = settle(many, {many[0].key: Record(5, 0, flaky=True)}, lambda case: "any", 0.05, 0.5, 0.8)
    assert not many[0].worse and found.alpha == pytest.approx(0.005)


def test_the_flake_rate_counts_repeated_cases_only():
    cases = [case(2, 1, name="a"), case(3, 0, name="b"), case(0, 3, name="c"), case(1, 0, name="d")]
    found = settle(cases, {}, lambda case: "any", 0.05, 0.5, 0.8)
    assert (found.repeated, found.flaky) == (3, 1) and found.rate == pytest.approx(1 / 3)
    assert list(found.repeats) == ["a: duty"]
