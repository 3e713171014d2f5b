"""Rates of duties with their intervals: hand-computed, clustered by dialogue, with the four results kept apart."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_logs import item, judged, outcome, sample, verdicts, write
from judged_logs import row as log
from scipy.stats import binomtest

from cm2.assure.outcomes import read_judged
from cm2.assure.tables import DUTIES, OTHERS, Diagnosing
from cm2.assure.tables_shape import Diagnosis, Row, share, wilson
from cm2.errors import DataError
from cm2.judge.agreement import effective_size
from cm2.policy import load_policy


def diagnose(*dialogues) -> Diagnosis:
    found = Diagnosing()
    for number, outcomes in enumerate(dialogues):
        found.add(judged(outcomes, f"d{number}", number + 1))
    return found.finish()


def duty(found: Diagnosis, name: str = "confirm") -> Row:
    return next(row for row in found.duties if row.duty == name)


@pytest.mark.parametrize(("passed", "n"), [(0, 9), (1, 9), (7, 10), (10, 10), (990, 1000)])
def test_the_interval_is_wilsons(passed, n):
    expected = binomtest(passed, n).proportion_ci(method="wilson")
    assert wilson(passed / n, n) == pytest.approx((expected.low, expected.high))


def test_a_duty_judged_once_a_dialogue_has_the_plain_interval():
    found = share(Counter({(1, 1): 7, (0, 1): 3}))
    expected = binomtest(7, 10).proportion_ci(method="wilson")
    assert (found.passed, found.n, found.rate, found.effective) == (7, 10, 0.7, 10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_outcomes_of_one_dialogue_are_worth_less_than_as_many_of_different_ones():
    """Ten turns a dialogue, all alike within it: each dialogue is worth about one outcome."""
    alike = share(Counter({(10, 10): 10, (0, 10): 10}))
    mixed = share(Counter({(5, 10): 20}))
    assert (alike.n, alike.rate) == (mixed.n, mixed.rate) == (200, 0.5)
    assert alike.effective == pytest.approx(effective_size([10] * 10 + [0] * 10, [10] * 20))
    assert alike.effective < 20 < mixed.effective == 200
    assert alike.high - alike.low > 3 * (mixed.high - mixed.low)


def test_nothing_scored_has_no_rate():
    assert share(Counter()) is None
    assert duty(diagnose([outcome("unscored", owner="judge")], [outcome("not_applicable")])).rate is None


def test_the_four_results_are_counted_apart_and_only_two_are_in_the_rate():
    found = diagnose(
        [outcome("pass")], [outcome("pass")], [outcome("fail")],
        [outcome("not_applicable")], [outcome("not_applicable")],
        [outcome("unscored", reason="unscored: timeout: after 3 tries", owner="provider")],
    )  # fmt: skip
    row = duty(found)
    assert (row.passed, row.failed, row.not_applicable, row.unscored) == (2, 1, 2, 1)
    assert (row.rate.passed, row.rate.n, row.applicable, row.applies) == (2, 3, 4, 4 / 6)
    assert row.unscored_because == found.unscored_because == {"timeout (provider)": 1}
    assert (found.passed, found.failed, found.not_applicable, found.unscored) == (2, 1, 2, 1)
    assert (row.dialogues, row.dialogues_failed) == (3, 1)


def test_base_rates_by_severity_and_the_dialogues_in_which_nothing_failed():
    critical, minor = item("a", "critical"), item("b", "minor")
    found = diagnose(
        [outcome("pass", critical), outcome("fail", minor)],
        [outcome("fail", critical), outcome("fail", minor)],
        [outcome("pass", critical), outcome("pass", minor)],
        [outcome("not_applicable", critical), outcome("pass", minor)],
        [outcome("not_applicable", critical), outcome("unscored", minor)],
    )
    assert {name: (one.passed, one.n) for name, one in found.severities.items()} == {
        "critical": (2, 3),
        "minor": (2, 4),
    }
    assert (found.overall.passed, found.overall.n) == (4, 7)
    assert (found.dialogues_passed.passed, found.dialogues_passed.n) == (2, 4)
    assert (found.dialogues_not_critical.passed, found.dialogues_not_critical.n) == (2, 3)


def test_scores_weigh_by_severity_and_are_counted_in_bins():
    """Weights 4, 2, 1: a critical pass and a minor fail score 4/5; a critical fail and a major pass 2/6."""
    critical, major, minor = (item(name, name) for name in ("critical", "major", "minor"))
    found = diagnose(
        [outcome("pass", critical), outcome("fail", minor)],
        [outcome("fail", critical), outcome("pass", major)],
        [outcome("pass", critical)],
        [outcome("unscored", critical)],
    )
    assert found.scores.n == 3
    assert found.scores.mean == pytest.approx((4 / 5 + 2 / 6 + 1) / 3)
    assert [n for n, count in enumerate(found.scores.bins) if count] == [3, 8, 10]
    assert found.scores.low < found.scores.mean < found.scores.high


def test_costs_add_up_by_duty():
    found = diagnose(
        [outcome("pass", cost=0.25), outcome("fail", item("b"), cost=0.5)], [outcome("unscored", cost=1.0)]
    )
    assert (duty(found).cost, duty(found, "b").cost, found.cost) == (1.25, 0.5, 1.75)


def test_duties_stand_by_severity_and_first_what_is_surest_to_be_low():
    few, many, fine, minor = item("few"), item("many"), item("fine"), item("minor", "minor")
    found = diagnose(
        *[[outcome("fail", many), outcome("pass", fine), outcome("fail", minor)]] * 20, [outcome("fail", few)]
    )
    assert [row.duty for row in found.duties] == ["many", "few", "fine", "minor"]


def test_more_duties_than_have_rows_are_counted_together():
    found = diagnose([outcome("pass", item(f"duty{n}")) for n in range(DUTIES + 5)])
    assert len(found.duties) == DUTIES + 1
    assert duty(found, OTHERS).passed == 5
    assert found.passed == DUTIES + 5


RESULT = st.sampled_from(["pass", "fail", "not_applicable", "unscored"])
DIALOGUES = st.lists(st.lists(RESULT, min_size=1, max_size=6), min_size=1, max_size=12)


@given(DIALOGUES, st.randoms(use_true_random=False))
def test_the_order_of_dialogues_changes_no_number(dialogues, draw):
    made = [[outcome(result, turn=turn) for turn, result in enumerate(results)] for results in dialogues]
    mixed = draw.sample(made, len(made))
    first, second = diagnose(*made), diagnose(*mixed)
    assert duty(first).rate == duty(second).rate
    assert first.scores.bins == second.scores.bins
    assert first.overall == second.overall


@given(DIALOGUES)
def test_rates_are_those_of_a_plain_count_and_ignore_what_is_not_scored(dialogues):
    made = [[outcome(result, turn=turn) for turn, result in enumerate(results)] for results in dialogues]
    found = duty(diagnose(*made))
    flat = [result for results in dialogues for result in results]
    counts = [flat.count(name) for name in ("pass", "fail", "not_applicable", "unscored")]
    assert [found.passed, found.failed, found.not_applicable, found.unscored] == counts
    if counts[0] + counts[1]:
        assert found.rate.rate == counts[0] / (counts[0] + counts[1])
        assert 0 <= found.rate.low <= found.rate.rate <= found.rate.high <= 1
        padded = [[*outcomes, outcome("unscored"), outcome("not_applicable")] for outcomes in made]
        assert duty(diagnose(*padded)).rate == found.rate


def read(files) -> Diagnosis:
    found = Diagnosing()
    for one in read_judged(files.logs, files.verdicts, policy=load_policy(files.policy)):
        found.add(one)
    return found.finish()


def test_files_are_diagnosed_by_their_policy(tmp_path):
    found = read(sample(tmp_path, 6, 2))
    assert {row.duty: (row.passed, row.failed, row.not_applicable) for row in found.duties} == {
        "confirm": (4, 2, 0),
        "polite": (10, 2, 0),
        "escalate": (0, 0, 6),
    }
    assert (duty(found).owner, duty(found).severity, duty(found).scope) == ("Ann", "critical", "dialogue")
    assert duty(found, "polite").scope == "turn"
    assert found.judges == {"llm": 12, "checks": 12}


def test_verdicts_of_other_dialogues_are_refused_with_the_command_that_helps(tmp_path):
    files = write(tmp_path, [log("a")], verdicts("another"))
    with pytest.raises(DataError, match=r"no verdict on any duty of these dialogues.*cm2 judge"):
        read(files)


def test_some_dialogues_without_verdicts_are_told_and_unscored_not_failed(tmp_path):
    found = read(write(tmp_path, [log("a"), log("b")], verdicts("a")))
    assert found.without_verdicts == 1
    assert duty(found).unscored == 1 and duty(found).failed == 0
    assert found.unscored_because == {"not judged": 4}
    assert any("1 dialogue without any verdict" in note for note in found.notes)


def test_a_duty_that_was_never_judged_is_named(tmp_path):
    duties = [{"id": name, "question": f"{name}?"} for name in ("confirm", "new-one")]
    found = read(write(tmp_path, [log("a"), log("b")], [*verdicts("a"), *verdicts("b")], duties))
    assert any("Never judged: new-one." in note for note in found.notes)


def test_no_checklists_at_all_is_an_error_that_says_what_to_pass(tmp_path):
    files = write(tmp_path, [log("a")], verdicts("a"))
    found = Diagnosing()
    for one in read_judged(files.logs, files.verdicts):
        found.add(one)
    with pytest.raises(DataError, match=r"no dialogue has a checklist.*--policy"):
        found.finish()
