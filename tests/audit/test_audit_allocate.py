"""How reviews are shared out among strata."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.audit.allocate import allocate, floor, weight
from cm2.assure.audit.strata import Cell, plan
from cm2.errors import ConfigError


def test_neyman_by_hand():
    # √4·√100·√(.05·.95) = 4.3589; √1·√400·√(.35·.65) = 9.5394; shares of 60: 18.82 and 41.18
    weights = [weight(100, "checked", "critical"), weight(400, "split", "minor")]
    assert weights == pytest.approx([2 * 10 * math.sqrt(0.0475), 20 * math.sqrt(0.2275)])
    assert allocate([100, 400], weights, 60) == [19, 41]


def test_small_strata_are_taken_whole_and_the_rest_goes_to_the_others():
    assert allocate([1, 3, 1000], [1.0, 100.0, 1.0], 50) == [1, 3, 46]


def test_every_stratum_has_two_however_small_its_weight():
    assert allocate([500, 500, 500], [1e-9, 1.0, 1.0], 20) == [2, 9, 9]


strata = st.lists(st.tuples(st.integers(1, 300), st.floats(0.01, 100)), min_size=1, max_size=12)


@given(strata, st.integers(0, 600))
def test_shares_are_whole_within_bounds_and_sum_up(given, extra):
    sizes, weights = [size for size, _ in given], [w for _, w in given]
    n = floor(sizes) + extra
    found = allocate(sizes, weights, n)
    assert sum(found) == min(n, sum(sizes))
    assert all(min(2, size) <= count <= size for count, size in zip(found, sizes, strict=True))


@given(strata, st.integers(0, 200))
def test_more_weight_never_means_fewer(given, extra):
    sizes, weights = [size for size, _ in given], [w for _, w in given]
    found = allocate(sizes, weights, floor(sizes) + extra)
    for a in range(len(sizes)):
        for b in range(len(sizes)):
            if sizes[a] >= sizes[b] and weights[a] >= weights[b]:
                assert found[a] >= found[b] - 1  # rounding


def cells(duties, levels=("checked", "alone"), size=30):
    return {
        Cell(f"duty-{d}", verdict, level): size + d
        for d in range(duties)
        for verdict in ("pass", "fail")
        for level in levels
    }


def test_with_few_duties_strata_are_by_duty_verdict_and_level():
    planned = plan(cells(3), {}, 100, {})
    assert len(planned.strata) == 12 and all(one.duty and one.level for one in planned.strata)


def test_levels_are_given_up_before_duties():
    planned = plan(cells(10), {}, 100, {})
    assert len(planned.strata) == 20 and all(one.duty and not one.level for one in planned.strata)


def test_small_duties_share_a_stratum_but_verdicts_never_do():
    found = cells(30)
    planned = plan(found, {}, 24, {})
    assert sum(one.drawn for one in planned.strata) == 24
    assert {cell: planned.strata[at].verdict for cell, at in planned.of.items()} == {c: c.verdict for c in found}
    for stratum in planned.strata:
        assert stratum.size == sum(found[cell] for cell, at in planned.of.items() if at == stratum.id)


@given(
    st.dictionaries(
        st.builds(
            Cell,
            st.sampled_from([f"d{n}" for n in range(9)]),
            st.sampled_from(["pass", "fail", "unscored", "not_applicable"]),
            st.sampled_from(["checked", "alone", "split"]),
        ),
        st.integers(1, 50),
        min_size=1,
    ),
    st.integers(4, 80),
)
def test_every_scored_outcome_can_be_drawn(found, n):
    planned = plan(found, {}, n, {"unscored": 2, "not_applicable": 0})
    for cell in found:
        if cell.verdict in ("pass", "fail"):
            assert planned.strata[planned.of[cell]].drawn >= 1
        elif cell.verdict == "not_applicable":
            assert cell not in planned.of


def test_too_few_reviews_are_refused():
    with pytest.raises(ConfigError, match="too few"):
        plan(cells(2), {}, 3, {})
