"""Comparing two sides: who is paired with whom, what is left out and why, false alarms, power, the score."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cm2.assure.compare import compare_sides
from cm2.assure.compare_side import Cell, DutyInfo, Side, add_run
from cm2.assure.outcomes import Outcome, score
from cm2.assure.power import needed_pairs
from cm2.checklist import Item
from cm2.errors import DataError
from cm2.judge.judge import NO_CHECK
from cm2.verdict import Verdict, unscored

MET = {"pass": True, "fail": False}


def outcome(duty: str, result: str, severity="major", turn=-1, reason="because", owner="judge", id="d") -> Outcome:
    item = Item(duty, "assistant.tool_calls", f"{duty}?", "so", 1.0, severity=severity)
    why = unscored(reason) if result == "unscored" else reason
    verdict = Verdict("d", turn, 0, duty, MET.get(result), reason=why, owner=owner if result == "unscored" else "")
    return Outcome(id, "", 0, turn, item, result, verdict)


def side(name: str, runs: list[tuple[str, dict[str, str]]], **severities: str) -> Side:
    """A side of runs: task and the result of each duty; several results are turns, with spaces."""
    made = Side(name, f"{name}.jsonl", "dialogues")
    for task, results in runs:
        outcomes = [
            outcome(duty, one, severities.get(duty, "major"), turn=turn)
            for duty, told in results.items()
            for turn, one in enumerate(told.split())
        ]
        add_run(made, task, outcomes)
    return made


def both(duty_a: str, duty_b: str):
    """The comparison of one duty in one dialogue."""
    (found,) = compare_sides(side("A", [("t", {"x": duty_a})]), side("B", [("t", {"x": duty_b})])).duties
    return found


def test_dialogues_are_paired_by_id_and_the_others_are_told():
    a = side("A", [("t1", {"x": "pass"}), ("t2", {"x": "pass"}), ("only-a", {"x": "fail"})])
    b = side("B", [("t2", {"x": "fail"}), ("t1", {"x": "pass"}), ("only-b", {"x": "fail"}), ("c", {"x": "fail"})])
    found = compare_sides(a, b)
    (duty,) = found.duties
    assert (found.tasks, found.a.unpaired, found.b.unpaired) == (2, 1, 2)
    assert (duty.contrast.n, duty.contrast.a, duty.contrast.b) == (2, 1.0, 0.5)
    assert [flip.task for flip in duty.got_worse] == ["t2"] and duty.got_better == []
    assert duty.got_worse[0].reason == "turn 0: because"
    assert found.notes[0] == "1 dialogues of A have no partner and are not used"


@pytest.mark.parametrize(("a", "b"), [("unscored", "pass"), ("fail", "unscored"), ("unscored", "not_applicable")])
def test_unscored_on_a_side_is_no_pair_and_no_fail(a, b):
    found = both(a, b)
    assert found.contrast is None and found.change == "not compared"
    assert (found.unscored, found.only_a, found.only_b) == (1, 0, 0)


def test_a_duty_that_applies_under_one_agent_only_is_counted_apart():
    assert (both("fail", "not_applicable").only_a, both("fail", "not_applicable").unscored) == (1, 0)
    assert (both("not_applicable", "pass").only_b, both("not_applicable", "pass").only_a) == (1, 0)
    nothing = both("not_applicable", "not_applicable")
    assert (nothing.only_a, nothing.only_b, nothing.unscored, nothing.contrast) == (0, 0, 0, None)


@pytest.mark.parametrize(
    ("turns", "rate"),
    [
        ("pass pass", 1.0),
        ("pass fail", 0.0),
        ("pass not_applicable", 1.0),
        ("not_applicable", None),
        ("fail unscored", None),
    ],
)
def test_a_duty_counts_once_a_run_and_a_turn_that_nobody_could_judge_takes_the_run_out(turns, rate):
    found = side("A", [("t", {"x": turns})])
    assert found.cell("x", "t").rate == rate


def test_a_judge_that_breaks_down_in_b_makes_b_neither_worse_nor_better():
    """Each run has two turns; in half of B's runs one is unscored: fails must not survive what passes do not."""
    rng = np.random.default_rng(0)
    a_runs, b_runs = [], []
    for number in range(400):
        for runs, broken in ((a_runs, False), (b_runs, number % 2 == 0)):
            turns = ["pass" if ok else "fail" for ok in rng.random(2) < 0.8]
            if broken:
                turns[int(rng.integers(2))] = "unscored"
            runs.append((f"t{number}", {"x": " ".join(turns)}))
    (found,) = compare_sides(side("A", a_runs), side("B", b_runs)).duties
    assert (found.contrast.n, found.unscored) == (200, 200) and found.change == "could be chance"
    assert found.contrast.low < 0 < found.contrast.high


def test_several_runs_of_a_task_are_one_number():
    a = side("A", [(f"t{i}", {"x": "pass"}) for i in range(3) for _ in range(4)])
    b = side("B", [(f"t{i}", {"x": "pass" if k else "fail"}) for i in range(3) for k in range(4)])
    (found,) = compare_sides(a, b).duties
    assert (found.contrast.n, found.contrast.b, found.contrast.test) == (3, 0.75, "sign flips")
    assert found.contrast.p == 2 / 8 and found.change == "could be chance"  # not 12 runs, of which 3 fail


def test_runs_that_somebody_else_lost_are_no_runs_of_the_agent():
    a = side("A", [("t1", {"x": "pass"}), ("t2", {"x": "pass"})])
    b = side("B", [("t1", {"x": "pass"})])
    b.lost = {"t1": ["provider"], "t2": ["provider", "simulator"]}
    found = compare_sides(a, b)
    (duty,) = found.duties
    assert (found.tasks, found.lost_tasks, duty.contrast.n, duty.unscored, duty.contrast.worse) == (2, 1, 1, 1, 0)
    assert found.b.lost == {"provider": 2, "simulator": 1}
    assert "3 runs of B were lost (provider 2, simulator 1): unscored, not failed" in found.notes


def test_a_rewritten_duty_is_not_compared_with_the_old():
    a, b = side("A", []), side("B", [])
    add_run(a, "t", [outcome("x", "pass", "major")], digest=True)
    add_run(b, "t", [outcome("x", "fail", "critical")], digest=True)
    found = compare_sides(a, b)
    assert found.duties[0].redefined == 1 and found.duties[0].contrast is None
    assert not [one for one in found.metrics if one.name == "score"]


def test_what_checks_cannot_decide_is_not_judged():
    a, b = side("A", [("t", {"x": "pass"})]), side("B", [("t", {"x": "pass"})])
    for made in (a, b):
        add_run(made, "u", [outcome("asked", "unscored", reason=NO_CHECK, owner="")])
    found = compare_sides(a, b)
    assert [duty.duty for duty in found.duties] == ["x"] and found.not_judged == ["asked"]


def test_sides_that_share_nothing_are_the_wrong_files():
    with pytest.raises(DataError, match=r"share no dialogue id .*--pair-by"):
        compare_sides(side("A", [("t", {"x": "pass"})]), side("B", [("u", {"x": "pass"})]))


def worse_by(count: int, of: int = 60, duty: str = "x"):
    return [(f"t{i}", {duty: "fail" if i < count else "pass"}) for i in range(of)]


def test_what_changed_is_told_and_what_could_be_chance_too():
    a = side("A", worse_by(0))
    for count, change in ((0, "could be chance"), (5, "could be chance"), (6, "worse"), (20, "worse")):
        (found,) = compare_sides(a, side("B", worse_by(count))).duties
        assert found.change == change, count
        (found,) = compare_sides(side("A", worse_by(count)), a).duties
        assert found.change == change.replace("worse", "better")


def test_too_few_differences_are_in_no_family():
    """Five of one sort cannot be significant. Their duty does not make the others' correction harder."""
    a = side("A", [(f"t{i}", {"x": "pass", "y": "pass"}) for i in range(60)], x="critical", y="critical")
    b_runs = [(f"t{i}", {"x": "fail" if i < 6 else "pass", "y": "fail" if i < 5 else "pass"}) for i in range(60)]
    x, y = compare_sides(a, side("B", b_runs, x="critical", y="critical")).duties
    assert (x.p, x.correction, x.change) == (2 / 64, "holm", "worse")
    assert (y.p, y.correction, y.change) == (1.0, "", "could be chance")


def test_critical_duties_are_corrected_by_holm_and_the_others_by_benjamini_and_hochberg():
    names = {"c1": ("critical", 6), "c2": ("critical", 9), "m1": ("major", 7), "n1": ("minor", 10)}
    severities = {name: severity for name, (severity, _) in names.items()}
    a = side("A", [(f"t{i}", dict.fromkeys(names, "pass")) for i in range(60)], **severities)
    runs = [(f"t{i}", {name: "fail" if i < lost else "pass" for name, (_, lost) in names.items()}) for i in range(60)]
    found = {duty.duty: duty for duty in compare_sides(a, side("B", runs, **severities)).duties}
    p = {name: 2 * 0.5**lost for name, (_, lost) in names.items()}
    assert found["c2"].p == pytest.approx(2 * p["c2"]) and found["c1"].p == pytest.approx(p["c1"])
    assert found["n1"].p == pytest.approx(4 * p["n1"]) and found["m1"].p == pytest.approx(4 * p["m1"] / 3)
    assert [found[name].correction for name in names] == ["holm"] * 2 + ["benjamini-hochberg"] * 2
    assert list(found) == ["c1", "c2", "m1", "n1"]  # the worst severity first


def test_more_duties_make_the_same_difference_less_sure():
    quiet = {f"q{i}": "pass" for i in range(8)}
    noisy = lambda i: {f"q{k}": "fail" if (i + k) % 7 == 0 else "pass" for k in range(8)}  # noqa: E731
    a = side("A", [(f"t{i}", {"x": "pass"} | (noisy(i) if i < 30 else quiet)) for i in range(60)])
    b = side("B", [(f"t{i}", {"x": "fail" if i < 6 else "pass"} | (noisy(i) if i >= 30 else quiet)) for i in range(60)])
    found = {duty.duty: duty for duty in compare_sides(a, b).duties}
    assert found["x"].contrast.p == 2 / 64 and found["x"].p > 0.05 and found["x"].change == "could be chance"


def test_the_score_is_that_of_a_judged_dialogue():
    runs_a = [
        [outcome("c", "pass", "critical"), outcome("m", "fail", "major"), outcome("n", "pass", "minor")],
        [outcome("c", "fail", "critical"), outcome("m", "pass", "major"), outcome("n", "not_applicable", "minor")],
    ]
    runs_b = [
        [outcome("c", "pass", "critical"), outcome("m", "pass", "major", 0), outcome("m", "fail", "major", 1)],
        [outcome("c", "pass", "critical"), outcome("m", "pass", "major"), outcome("n", "fail", "minor")],
    ]
    a, b = side("A", []), side("B", [])
    for number, (one, other) in enumerate(zip(runs_a, runs_b, strict=True)):
        add_run(a, f"t{number}", one)
        add_run(b, f"t{number}", other)
    (metric,) = compare_sides(a, b).metrics
    assert (
        metric.contrast.a
        == pytest.approx((score(runs_a[0]) + score(runs_a[1])) / 2)
        == pytest.approx((5 / 7 + 2 / 6) / 2)
    )
    assert (
        metric.contrast.b
        == pytest.approx((score(runs_b[0]) + score(runs_b[1])) / 2)
        == pytest.approx((6 / 8 + 6 / 7) / 2)
    )


def test_a_duty_that_one_side_lost_is_in_neither_score():
    a = side("A", [("t", {"x": "pass", "y": "fail"})])
    b = side("B", [("t", {"x": "pass", "y": "unscored"})])
    (metric,) = compare_sides(a, b).metrics
    assert (metric.contrast.a, metric.contrast.b) == (1.0, 1.0)


def test_other_numbers_of_a_task_are_compared_where_both_have_them():
    a, b = side("A", worse_by(0)), side("B", worse_by(0))
    a.metrics = {"outcome": {f"t{i}": 1.0 for i in range(40)}, "reward": {"t0": 0.5}}
    b.metrics = {"outcome": {f"t{i}": float(i >= 10) for i in range(50)}}
    found = {one.name: one for one in compare_sides(a, b).metrics}
    assert list(found) == ["score", "outcome"]
    one = found["outcome"]
    assert (one.contrast.n, one.contrast.worse, one.change) == (40, 10, "worse") and one.contrast.p == 2 * 0.5**10


def test_the_number_that_would_show_it_is_told():
    (found,) = compare_sides(side("A", worse_by(0)), side("B", worse_by(3))).duties
    assert found.needed == needed_pairs(0.0, 0.05) and 100 < found.needed < 200
    assert 0.05 < found.detectable < 0.2


def null_side(name: str, values: np.ndarray, severities: list[str]) -> Side:
    """One run a task; `values` is duties by tasks."""
    made = Side(name, name, "dialogues", runs={str(t): 1 for t in range(values.shape[1])})
    for duty, row in enumerate(values):
        made.duties[f"d{duty}"] = DutyInfo(severities[duty])
        made.cells[f"d{duty}"] = {str(t): Cell(passed=int(v), failed=int(not v)) for t, v in enumerate(row)}
    return made


def test_an_agent_against_itself_gives_an_alarm_no_more_often_than_promised():
    """Five critical and five minor duties that fail together, 80 comparisons of an agent with itself. At most 5 % may
    raise an alarm in each family: 4 of 80 are expected at the most, 12 or more come once in a thousand times."""
    rng = np.random.default_rng(3)
    severities = ["critical"] * 5 + ["minor"] * 5
    easy = stats.norm.ppf([0.5, 0.6, 0.7, 0.8, 0.9] * 2)[:, None]
    alarms, uncorrected = {"critical": 0, "minor": 0}, 0
    for _ in range(80):
        hard = 0.6 * rng.normal(size=50)
        a, b = (null_side(name, 0.8 * rng.normal(size=(10, 50)) + hard < easy, severities) for name in "AB")
        found = compare_sides(a, b, examples=0).duties
        for severity in alarms:
            alarms[severity] += any(d.change in ("better", "worse") for d in found if d.severity == severity)
        uncorrected += any(d.contrast.p <= 0.05 for d in found)
    assert alarms["critical"] < 12 and alarms["minor"] < 12
    assert uncorrected > 12  # this is what the correction is for


def test_the_needed_number_of_dialogues_sees_the_difference_about_as_often_as_asked():
    gain, loss = 0.04, 0.14
    n = needed_pairs(gain, loss)
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(100):
        kind = rng.choice(4, n, p=(0.7, loss, gain, 0.3 - loss - gain))
        a, b = (null_side(name, np.isin(kind, (0, only))[None], ["major"]) for name, only in (("A", 1), ("B", 2)))
        seen += compare_sides(a, b, examples=0).duties[0].change == "worse"
    assert 0.66 < seen / 100 < 0.94  # 3.5 standard errors around 0.8
