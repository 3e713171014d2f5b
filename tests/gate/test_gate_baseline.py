"""Against what is known: pairs, McNemar by hand, sign flips by a literal enumeration, records and their versions."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.baseline import Line, append_history, chance, compare, pair, read_history, records
from cm2.assure.gate_case import Case, GateResult, read_result, write_result
from cm2.assure.gate_tally import rates
from cm2.errors import DataError


def case(name, passed, failed, duty="d", definition="x", severity="major"):
    return Case(
        name,
        duty,
        severity,
        definition=definition,
        passed=passed,
        failed=failed,
        status="failed" if failed else "passed",
    )


def pairs(*changes):
    return [(case(str(i), *before), case(str(i), *now)) for i, (before, now) in enumerate(changes)]


UP, DOWN, SAME = ((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 0), (1, 0))


def test_mcnemar_by_hand():
    assert chance(pairs(*[DOWN] * 5)) == pytest.approx(1 / 32)
    assert chance(pairs(DOWN, DOWN, DOWN, UP, SAME)) == pytest.approx(5 / 16)
    assert chance(pairs(SAME, SAME)) == 1.0 and chance(pairs(UP)) == 1.0


def test_repeats_of_whole_changes_say_what_mcnemar_says():
    assert chance(pairs(*[((2, 0), (0, 2))] * 5)) == pytest.approx(1 / 32)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=7))
def test_sign_flips_are_enumerated(rates):
    made = pairs(*(((a, 3 - a), (b, 3 - b)) for a, b in rates))
    changes = [a - b for a, b in rates if a != b]
    signs = product((1, -1), repeat=len(changes))
    flips = [sum(sign * change for sign, change in zip(each, changes, strict=True)) for each in signs]
    literal = sum(flip >= sum(changes) for flip in flips) / len(flips)
    found = chance(made)
    assert found == pytest.approx(literal) if sum(changes) > 0 else found == 1.0


def result(cases, **fields):
    return GateResult("s", "passed", cases=cases, **fields)


def test_only_cases_of_one_definition_are_paired_and_the_rest_is_counted():
    old = result([case("a", 1, 0), case("b", 1, 0, definition="y"), case("c", 1, 0)])
    found, skipped = pair([case("a", 0, 1), case("b", 0, 1), case("new", 1, 0)], old)
    assert [(one.duty, one.n, one.before, one.now) for one in found] == [("d", 1, 1.0, 0.0)]
    assert skipped == {"changed": 1, "new": 1, "gone": 1}


def test_duties_are_corrected_together():
    old = [case(str(i), 1, 0, duty) for duty in "de" for i in range(5)]
    now = [case(str(i), 0, 1, duty) for duty in "de" for i in range(5)]
    found, _ = pair(now, result(old))
    assert [one.p for one in found] == pytest.approx([2 / 32, 2 / 32])


def test_a_case_is_new_among_the_failing_where_the_baseline_had_it_pass():
    old = result([case("a", 1, 0), case("b", 0, 1), case("c", 1, 0, definition="y")])
    now = [case("a", 0, 1), case("b", 0, 1), case("c", 0, 1), case("d", 0, 1)]
    compare(now, rates(now, "duty"), old)
    assert [one.dialogue for one in now if one.new] == ["a"]


def line(id, passed, failed, version="", state="passed"):
    return Line(id, "", version, state, [("a", "d", "x", passed, failed)])


def record(*lines, baseline=None):
    return records([case("a", 1, 0)], baseline, lines).get(("a", "d"))


def test_failing_under_one_version_and_passing_under_another_is_a_mended_fault_and_not_flaky():
    found = record(line("1", 0, 1, "v1"), line("2", 1, 0, "v2"))
    assert not found.flaky and (found.passed, found.failed) == (1, 1)
    assert record(line("1", 0, 1, "v1"), line("2", 1, 0, "v1")).flaky
    assert not record(line("1", 0, 1), line("2", 1, 0)).flaky, "without a version each gate is one"


def test_runs_of_a_version_that_no_gate_let_pass_are_in_no_rate():
    found = record(line("1", 0, 9, "v1", "failed"), line("2", 3, 0, "v2"))
    assert (found.passed, found.failed) == (3, 0)
    assert record(line("1", 1, 9, "v1", "failed")).flaky, "but show that it passes and fails"


def test_the_baseline_counts_once_where_the_history_has_it_too():
    old = result([case("a", 2, 1)], id="1")
    found = record(line("1", 2, 1), baseline=old)
    assert (found.passed, found.failed, found.flaky) == (2, 1, True)


def test_a_history_takes_a_result_once_and_keeps_to_its_last_lines(tmp_path):
    path = str(tmp_path / "h.jsonl")
    for id in ("1", "2", "2", "3"):
        append_history(path, result([case("a", 1, 0), Case("b", "d")], id=id))
    assert [one.id for one in read_history(path, 50)] == ["1", "2", "3"]
    assert [one.id for one in read_history(path, 2)] == ["2", "3"]
    assert read_history(path, 1)[0].cases == [("a", "d", "x", 1, 0)]
    with open(path, "a") as file:
        file.write('{"id": "4", "torn')
    assert len(read_history(path, 50)) == 3
    assert read_history(str(tmp_path / "none.jsonl"), 50) == []


def test_a_result_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "r.json")
    old = result([case("a", 2, 1)], id="1", notes=["\x07"])
    write_result(old, path)
    assert read_result(path) == old


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', '{"format": "cm2-gate/1"}', "\x89PNG"])
def test_what_is_no_baseline_is_told(tmp_path, text):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is no baseline"):
        read_result(str(path))
    with pytest.raises(DataError, match="there is no such baseline"):
        read_result(str(tmp_path / "absent.json"))
