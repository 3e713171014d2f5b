"""The folder of results: what it says, what it holds, and when a run has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cm2.errors import DataError
from cm2.evals.intervals import Interval
from cm2.harness import results
from cm2.harness.results import Headline, Outcome, Results


def made(**changes: object) -> Results:
    """Results with a score."""
    given = {"benchmark": "bfcl", "harness": "h==1", "tasks": "0f", "model": "m", "endpoint": "http://e/v1"}
    given |= {"headlines": [Headline(name="multi_turn", score=Interval(0.5, 0.4, 0.6, 20))]}
    return Results(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("owner", ["user", "judge", "infrastructure"])
def test_what_others_broke_has_no_score_whatever_the_harness_wrote(owner: str) -> None:
    one = Outcome(task="a", category="c", score=0.0, passed=False, owner=owner)  # type: ignore[arg-type]
    assert one.score is None and one.passed is None and one.lost


def test_what_the_agent_broke_keeps_the_official_score() -> None:
    one = Outcome(task="a", category="c", score=0.0, passed=False, owner="agent", error="no JSON")
    assert one.score == 0.0 and one.passed is False and not one.lost


def test_errors_of_the_agent_do_not_fail_a_run() -> None:
    assert not made(errors={"agent": 9}).failed


@pytest.mark.parametrize("owner", ["user", "judge", "infrastructure"])
def test_one_conversation_lost_to_somebody_else_fails_a_run(owner: str) -> None:
    assert made(errors={owner: 1}).failed
    assert not made(errors={owner: 1}, allowed=1).failed
    assert made(errors={owner: 2}, allowed=1).failed


def test_allowances_are_for_all_owners_together() -> None:
    assert made(errors={"user": 1, "infrastructure": 1}, allowed=1).failed


def test_a_run_in_which_nothing_was_scored_has_failed_whatever_was_allowed() -> None:
    assert made(headlines=[Headline(name="multi_turn")], errors={"user": 3}, allowed=99).failed
    assert made(headlines=[]).failed


def test_owners_are_told_in_a_fixed_order_and_only_where_there_are_any() -> None:
    rows = [Outcome(task=str(n), category="c", owner=who) for n, who in enumerate(["infrastructure", "agent", "agent"])]
    assert list(results.owners(rows).items()) == [("agent", 2), ("infrastructure", 1)]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Outcome(task="a", category="c", score=1.0, passed=True, raw="raw/run-0/x.json"),
        Outcome(task="b", category="c", run=1, owner="user", error="a time-out", groups=["g"]),
    ]
    written = made(errors={"user": 1}, differs=["a subset"])
    results.write(written, rows, tmp_path)
    assert results.is_results(tmp_path)
    assert results.read(tmp_path) == (written, rows)
    assert not list(tmp_path.glob("*.part"))


def test_another_folder_is_refused_with_what_to_give(tmp_path: Path) -> None:
    assert not results.is_results(tmp_path)
    with pytest.raises(DataError, match="cm2 eval"):
        results.read(tmp_path)


def test_a_broken_row_is_told_with_its_line(tmp_path: Path) -> None:
    results.write(made(), [Outcome(task="a", category="c", score=1.0)] * 2, tmp_path)
    path = tmp_path / results.OUTCOMES
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"outcomes\.jsonl:2"):
        results.read(tmp_path)


def test_results_of_another_schema_are_not_read_as_ours(tmp_path: Path) -> None:
    results.write(made(schema=99), [], tmp_path)
    with pytest.raises(DataError, match="schema 99"):
        results.read(tmp_path)


def test_pairs_are_tasks_with_the_mean_of_their_runs() -> None:
    rows = [
        Outcome(task="a", category="c", run=0, score=1.0),
        Outcome(task="a", category="c", run=1, score=0.0),
        Outcome(task="a", category="d", run=0, score=1.0),
        Outcome(task="b", category="c", run=0, owner="user"),
    ]
    assert results.paired(rows) == {"c/a": 0.5, "d/a": 1.0}
