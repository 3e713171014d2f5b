"""How duties come out of a store of verdicts, and the reading of it dialogue by dialogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.outcomes import Judged, decide_outcomes, duty_name, read_judged, score
from cm2.check import Called, NotCalled
from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import DataError
from cm2.formats import RowWriter
from cm2.judge.run import JudgeConfig, judge_file
from cm2.policy import Duty, Policy
from cm2.verdict import WHOLE, Verdict


def item(id: str = "C0", severity: Any = None, weight: float = 1.0, **more: Any) -> Item:
    return Item(id, "tool.content", "Does it hold?", "it does", weight, severity=severity, **more)


def verdict(step: int, met: bool | None, **more: Any) -> Verdict:
    return Verdict("d", more.pop("turn", 0), step, more.pop("item", "C0"), met, **more)


DIALOGUE = Dialogue("d", [Turn("hello", [Step(reply="a"), Step(reply="b")])])


def result(verdicts: list[Verdict], turn: int = 0) -> tuple[str, Verdict | None]:
    (outcome,) = decide_outcomes(DIALOGUE, "", [Checklist(turn, [item()])], verdicts)
    return outcome.result, outcome.verdict


def test_an_item_passes_where_it_held_in_some_state():
    assert result([verdict(0, False), verdict(1, True)])[0] == "pass"
    assert result([verdict(0, True), verdict(1, False)]) == ("pass", verdict(0, True))


def test_an_item_fails_where_it_was_judged_and_never_held():
    assert result([verdict(0, False, reason="one"), verdict(1, False, reason="two")])[1].reason == "two"


def test_what_could_not_be_decided_is_unscored_even_beside_a_no():
    assert result([verdict(0, None, owner="provider"), verdict(1, False)])[0] == "unscored"
    assert result([])[0] == "unscored"


def test_not_applicable_is_neither_a_fail_nor_unscored():
    assert result([verdict(0, None, applies=False), verdict(1, None, applies=False)])[0] == "not_applicable"
    assert result([verdict(0, None, applies=False), verdict(1, False)])[0] == "fail"


def test_a_turn_that_was_never_reached_fails():
    assert result([], turn=3) == ("fail", None)


def test_of_several_verdicts_with_one_key_the_last_counts():
    assert result([verdict(0, None, owner="judge"), verdict(0, True)])[0] == "pass"


def test_the_score_weighs_severities_four_two_one():
    checklist = Checklist(WHOLE, [item("a", "critical"), item("b", "major"), item("c", "minor"), item("n", "critical")])
    verdicts = [
        verdict(-1, True, turn=WHOLE, item="a"),
        verdict(-1, False, turn=WHOLE, item="b"),
        verdict(-1, None, turn=WHOLE, item="c", owner="judge"),
        verdict(-1, None, turn=WHOLE, item="n", applies=False),
    ]
    outcomes = decide_outcomes(DIALOGUE, "", [checklist], verdicts)
    judged = Judged(1, DIALOGUE, "", outcomes)
    assert judged.score == pytest.approx(4 / 6)
    assert (judged.penalty, judged.critical_failures, judged.badness) == (2.0, 0, (0, 2.0))


def test_nothing_scored_has_no_score():
    assert score([]) is None
    assert score(decide_outcomes(DIALOGUE, "", [Checklist(0, [item()])], [])) is None


def test_a_critical_failure_outweighs_a_major_and_a_minor_one():
    def badness(*failed: str) -> tuple[int, float]:
        checklist = Checklist(WHOLE, [item(name, name) for name in ("critical", "major", "minor")])
        said = [verdict(-1, name not in failed, turn=WHOLE, item=name) for name in ("critical", "major", "minor")]
        return Judged(1, DIALOGUE, "", decide_outcomes(DIALOGUE, "", [checklist], said)).badness

    assert badness("critical") > badness("major", "minor") > badness("major") > badness("minor") > badness()


def test_a_duty_is_named_by_its_id_and_an_item_by_what_it_is_of_which_tool():
    assert duty_name(item("confirm", "major")) == "confirm"
    assert duty_name(item(kind="call", check=Called("book"))) == "call book"
    assert duty_name(item(kind="refusal")) == "refusal" and duty_name(item()) == "tool.content"


POLICY = Policy(
    "p",
    [
        Duty(id="looked", question="?", check=Called("get")),
        Duty(id="kept", question="?", scope="turn", check=NotCalled(["drop"])),
    ],
)


def rows(names: list[str], calls: list[str]) -> list[dict[str, Any]]:
    """A dialogue of one turn for each name; calls[n] is what its agent calls."""
    found = []
    for name, called in zip(names, calls, strict=True):
        call = {"id": "c", "type": "function", "function": {"name": called, "arguments": "{}"}}
        messages = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "{}"},
            {"role": "assistant", "content": "Done."},
        ]
        found.append({"id": name, "messages": messages, "tools": []})
    return found


def judged_file(folder: Path, found: list[dict[str, Any]]) -> tuple[str, str]:
    logs, store = folder / "logs.jsonl", folder / "verdicts.jsonl"
    with RowWriter(logs) as writer:
        for row in found:
            writer.write(row)
    policy = folder / "policy.json"
    policy.write_bytes(msgspec.json.encode(POLICY))
    judge_file(JudgeConfig(str(logs), str(store), policy=str(policy)))
    return str(logs), str(store)


def results(logs: str, store: str) -> list[tuple[str, str, str, str]]:
    found = read_judged(logs, store, policy=POLICY)
    return [(one.dialogue.id, one.rollout, out.duty, out.result) for one in found for out in one.outcomes]


def test_a_store_is_read_dialogue_by_dialogue_and_repeated_ids_stay_apart(tmp_path: Path):
    logs, store = judged_file(tmp_path, rows(["a", "b", "a"], ["get", "drop", "drop"]))
    assert results(logs, store) == [
        ("a", "", "looked", "pass"),
        ("a", "", "kept", "pass"),
        ("b", "", "looked", "fail"),
        ("b", "", "kept", "fail"),
        ("a", "2", "looked", "fail"),
        ("a", "2", "kept", "fail"),
    ]


def test_lines_of_a_dialogue_may_stand_anywhere_and_the_last_of_a_key_counts(tmp_path: Path):
    logs, store = judged_file(tmp_path, rows(["a", "b"], ["get", "get"]))
    lines = Path(store).read_text().splitlines()
    late = json.loads(lines[0]) | {"met": None, "reason": "unscored: lost", "owner": "provider"}
    Path(store).write_text("\n".join([*lines, json.dumps(late)]) + "\n")
    assert results(logs, store)[0] == ("a", "", "looked", "unscored")
    assert results(logs, store)[2] == ("b", "", "looked", "pass")


def test_a_torn_last_line_is_left_out_and_half_a_surrogate_pair_is_read(tmp_path: Path):
    logs, store = judged_file(tmp_path, rows(["a", "b"], ["get", "get"]))
    lines = Path(store).read_text().splitlines()
    odd = json.dumps(json.loads(lines[0]) | {"reason": "\ud800"})
    assert "\\ud800" in odd
    Path(store).write_text("\n".join([odd, *lines[1:], lines[0][:20]]))
    assert [each[3] for each in results(logs, store)] == ["pass"] * 4


def test_a_row_that_does_not_read_is_told_of_and_raises_where_nobody_listens(tmp_path: Path):
    logs, store = judged_file(tmp_path, rows(["a"], ["get"]))
    Path(logs).write_text(Path(logs).read_text() + "{no json\n")
    told: list[Any] = []
    found = list(read_judged(logs, store, policy=POLICY, on_error=told.append))
    assert [one.dialogue.id for one in found] == ["a"] and [row.line for row in told] == [2]
    with pytest.raises(DataError, match=r"logs\.jsonl:2"):
        results(logs, store)


def test_a_store_of_another_kind_is_told_with_its_line(tmp_path: Path):
    logs, store = judged_file(tmp_path, rows(["a"], ["get"]))
    Path(store).write_text(Path(store).read_text() + "[]\n")
    with pytest.raises(DataError, match=r"verdicts\.jsonl:\d+: this is no verdict"):
        results(logs, store)
    with pytest.raises(DataError, match="judge first"):
        results(logs, str(tmp_path / "absent.jsonl"))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([True, False, None])), max_size=8), st.randoms())
def test_order_of_steps_does_not_matter_and_three_values_stay_apart(said: list[Any], random: Any):
    verdicts = [verdict(step, met) for step, met in dict(said).items()]
    mixed = list(verdicts)
    random.shuffle(mixed)
    met = [one.met for one in verdicts]
    wanted = "pass" if True in met else "unscored" if None in met or not met else "fail"
    assert result(mixed)[0] == result(verdicts)[0] == wanted
