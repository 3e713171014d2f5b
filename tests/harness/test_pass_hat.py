"""Scores of a benchmark: pass^k, means over tasks, and the interval of a mean of means."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.evals.intervals import Interval
from cm2.harness.results import Outcome
from cm2.harness.scores import by_task, categories, category, headline, mean_of_means, pass_hat


def outcome(task: str, passed: bool | None, run: int = 0, owner: str | None = None, where: str = "c") -> Outcome:
    """A row of a benchmark that knows yes and no."""
    score = None if passed is None else float(passed)
    return Outcome(task=task, category=where, run=run, score=score, passed=passed, owner=owner)


def table(**tasks: str) -> list[Outcome]:
    """Rows from texts like "10?": passed, failed, lost, one a run."""
    said = {"1": True, "0": False, "?": None}
    return [
        outcome(task, said[sign], run, "user" if sign == "?" else None)
        for task, signs in tasks.items()
        for run, sign in enumerate(signs)
    ]


def test_pass_hat_by_hand() -> None:
    # of 4 runs: a passes 4, b passes 2, c passes 0
    found = pass_hat(table(a="1111", b="1100", c="0000"))
    assert found["1"] == pytest.approx((1 + 2 / 4 + 0) / 3)
    assert found["2"] == pytest.approx((1 + 1 / 6 + 0) / 3)
    assert found["3"] == pytest.approx(1 / 3)
    assert found["4"] == pytest.approx(1 / 3)
    assert list(found) == ["1", "2", "3", "4"]


def test_a_lost_run_is_not_among_the_runs_of_its_task() -> None:
    # a has two runs that count and passed both; b all three
    found = pass_hat(table(a="11?", b="110"))
    assert found["1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["2"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["3"] == pytest.approx(0)  # of b alone: a has no three


def literally(runs: dict[str, list[bool]], k: int) -> float | None:
    """pass^k as it is said: the share of all choices of k runs in which every one passed, averaged over tasks."""
    shares = []
    for passed in runs.values():
        chosen = list(combinations(passed, k))
        if chosen:
            shares.append(sum(all(one) for one in chosen) / len(chosen))
    return sum(shares) / len(shares) if shares else None


@given(st.dictionaries(st.text("abcdef", min_size=1), st.lists(st.booleans(), min_size=1, max_size=6), min_size=1))
def test_pass_hat_is_the_share_of_choices_of_k_runs_that_all_pass(runs: dict[str, list[bool]]) -> None:
    rows = [outcome(task, passed, run) for task, all_runs in runs.items() for run, passed in enumerate(all_runs)]
    found = pass_hat(rows)
    for k in range(1, max(map(len, runs.values())) + 1):
        assert found[str(k)] == pytest.approx(literally(runs, k))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_pass_hat_never_grows_with_k(runs: list[list[bool]]) -> None:
    found = pass_hat([outcome(str(t), passed, run) for t, one in enumerate(runs) for run, passed in enumerate(one)])
    values = [found[str(k)] for k in range(1, 5)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(values))


def test_benchmarks_without_yes_and_no_have_no_pass_hat() -> None:
    assert pass_hat([Outcome(task="a", category="c", score=0.4)]) == {}


def test_the_unit_is_the_task_not_the_run() -> None:
    # a was run four times and b once: both weigh the same
    rows = [*table(a="1111"), outcome("b", False)]
    assert by_task(rows) == {("c", "a"): 1.0, ("c", "b"): 0.0}
    found = category("c", rows, 4)
    assert found.score is not None and found.score.mean == 0.5 and found.score.n == 2
    assert found.scored == 5 and found.n == 2


def test_what_was_lost_is_left_out_and_counted_by_its_owner() -> None:
    rows = [outcome("a", True), outcome("b", None, owner="infrastructure"), outcome("c", None, owner="user")]
    found = category("c", rows, 1)
    assert found.score is not None and found.score.mean == 1.0
    assert (found.n, found.scored, found.errors) == (3, 1, {"user": 1, "infrastructure": 1})


def test_every_run_has_a_number_and_none_where_all_of_it_was_lost() -> None:
    found = category("c", table(a="10?", b="11?"), 3)
    assert found.by_run == [1.0, 0.5, None]


def test_a_group_is_counted_beside_the_category() -> None:
    rows = [
        Outcome(task="a", category="all", score=1.0, groups=["hard"]),
        Outcome(task="b", category="all", score=0.0, groups=["easy"]),
    ]
    found = {one.name: one for one in categories(rows, 1, {"all": 2, "hard": 1, "easy": 1, "absent": 9})}
    assert set(found) == {"all", "hard", "easy"}
    assert found["hard"].score is not None and found["hard"].score.mean == 1.0
    assert found["all"].score is not None and found["all"].score.mean == 0.5


def test_mean_of_means_by_hand() -> None:
    found = mean_of_means([Interval(0.5, 0.4, 0.7, 10), Interval(0.1, 0.02, 0.3, 40)])
    assert found is not None and found.n == 50
    assert found.mean == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - sqrt(0.1**2 + 0.08**2) / 2)
    assert found.high == pytest.approx(0.3 + sqrt(0.2**2 + 0.2**2) / 2)


def test_a_mean_of_means_of_perfect_categories_is_not_certain() -> None:
    perfect = Interval(1.0, 0.981, 1.0, 200)
    found = mean_of_means([perfect] * 4)
    assert found is not None and found.mean == 1.0 and found.high == 1.0
    assert 0.981 < found.low < 1.0


def test_a_mean_of_one_category_is_its_own() -> None:
    one = Interval(0.25, 0.2, 0.4, 7)
    found = mean_of_means([one])
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.2, 0.4))
    assert mean_of_means([]) is None


def test_categories_of_different_size_weigh_the_same_in_a_headline() -> None:
    rows = [outcome(str(n), True, where="small") for n in range(2)]
    rows += [outcome(str(n), False, where="large") for n in range(8)]
    parts = categories(rows, 1, {"small": 2, "large": 8})
    found = headline("both", parts)
    assert found.score is not None and found.score.mean == 0.5
    assert found.by_run == [0.5]
    assert found.pass_hat == {"1": 0.5}


def test_a_headline_has_no_score_where_a_whole_category_was_lost() -> None:
    rows = [outcome("a", True, where="one"), outcome("a", None, owner="user", where="two")]
    found = headline("both", categories(rows, 1, {"one": 1, "two": 1}))
    assert found.score is None and found.by_run == [None]
