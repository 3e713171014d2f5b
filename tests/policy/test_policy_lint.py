"""Linting a policy: its duties come out on their tests as their owner says, or it is told which does not and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cm2.cli import main
from cm2.errors import DataError
from cm2.policy import load_policy
from cm2.policy.lint import lint_policy
from cm2.policy.load import is_policy, read_policy

RUN = CliRunner()
USER = {"role": "user", "content": "Pay it."}
PAY = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}],
}
PAID = {"role": "tool", "tool_call_id": "1", "content": '{"ok": true}'}
SAY = {"role": "assistant", "content": "Done."}
CALLED = {"type": "called", "tool": "pay"}


def test(expect: str, *messages: Any, name: str = "t") -> dict[str, Any]:
    return {"name": name, "expect": expect, "messages": list(messages)}


test.__test__ = False  # type: ignore[attr-defined]


def duty(**more: Any) -> dict[str, Any]:
    return {"id": "d", "question": "Was it paid?", "check": CALLED} | more


def report(*duties: dict[str, Any]) -> Any:
    return lint_policy(read_policy({"name": "p", "duties": list(duties)}))


def test_tests_that_come_out_as_expected_pass() -> None:
    found = report(duty(tests=[test("pass", USER, PAY, PAID, SAY), test("fail", USER, SAY)]))
    assert found.ok(strict=True) and (found.duties[0].tests, found.duties[0].run) == (2, 2)


@pytest.mark.parametrize(
    ("expect", "messages", "came"),
    [("fail", (USER, PAY, PAID, SAY), "pass"), ("pass", (USER, SAY), "fail"), ("not_applicable", (USER, SAY), "fail")],
)
def test_a_test_that_comes_out_otherwise_is_a_failure_with_the_reason(expect: str, messages: Any, came: str) -> None:
    (found,) = report(duty(tests=[test(expect, *messages, name="case")])).duties
    assert len(found.failures) == 1
    assert found.failures[0].startswith(f"test 'case': {came}, and should be {expect} (")


def test_an_occasion_that_does_not_hold_is_not_applicable() -> None:
    found = report(duty(applies_when={"type": "called", "tool": "refund"}, tests=[test("not_applicable", USER, SAY)]))
    assert found.ok() and found.duties[0].warnings == ["it applies to none of its tests"]


def test_of_several_turns_one_failure_is_a_failure() -> None:
    messages = (USER, PAY, PAID, SAY, USER, SAY)
    assert report(duty(scope="turn", tests=[test("fail", *messages)])).ok()
    when = {"type": "called", "tool": "pay"}
    assert report(duty(scope="turn", applies_when=when, tests=[test("pass", *messages)])).ok()


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"type": "expression", "cel": "calls.nix("}, "broken"),
        ({"type": "expression", "cel": "calls.size()"}, "gives int"),
        ({"type": "reply", "pattern": "("}, "no RE2"),
        ({"type": "response", "tool": "x", "path": "]["}, "no JMESPath"),
        ({"type": "all", "checks": [{"type": "not", "check": {"type": "expression", "cel": "nix"}}]}, "undeclared"),
        ({"type": "called", "tool": "x", "arguments": {"a": {"op": "pattern", "pattern": "["}}}, "no RE2"),
    ],
)
def test_a_check_that_does_not_compile_is_a_failure_without_any_test(check: dict[str, Any], says: str) -> None:
    for field in ("check", "applies_when"):
        (found,) = report(duty(**{field: check})).duties
        assert len(found.failures) == 1 and found.failures[0].startswith(f"{field}: ") and says in found.failures[0]


def test_a_check_that_fails_on_a_test_is_no_fail() -> None:
    broken = {"type": "expression", "cel": "calls[3].ok"}
    (found,) = report(duty(check=broken, tests=[test("fail", USER, SAY)])).duties
    assert "unscored, and should be fail" in found.failures[0]


def test_messages_that_are_no_dialogue_are_a_failure_of_their_test() -> None:
    (found,) = report(duty(tests=[test("pass", {"role": "nobody", "content": "x"}, name="odd")])).duties
    assert found.failures[0].startswith("test 'odd' does not read: ")


def test_a_critical_duty_wants_both_tests() -> None:
    (bare,) = report(duty(severity="critical")).duties
    assert bare.warnings == ["a critical duty without a test that must fail and one that must pass"]
    (half,) = report(duty(severity="critical", tests=[test("pass", USER, PAY, PAID, SAY)])).duties
    assert half.warnings == ["a critical duty without a test that must fail"]
    assert report(duty(severity="critical")).ok() and not report(duty(severity="critical")).ok(strict=True)


def test_a_duty_that_nothing_can_break_is_told() -> None:
    (found,) = report(duty(check={"type": "not_called", "tools": ["refund"]})).duties
    assert found.warnings == ["it passes where nothing is done, and no test shows that it can fail"]
    assert report(duty(check={"type": "not_called", "tools": ["pay"]}, tests=[test("fail", USER, PAY, PAID, SAY)])).ok(
        True
    )


def test_questions_wait_for_a_judge_but_their_occasion_is_tested() -> None:
    question = duty(check=None, applies_when=CALLED)
    (found,) = report(
        question | {"tests": [test("pass", USER, PAY, PAID, SAY), test("not_applicable", USER, SAY)]}
    ).duties
    assert (found.by, found.tests, found.run, found.failures) == ("judge", 2, 1, [])
    (wrong,) = report(
        question | {"tests": [test("not_applicable", USER, PAY, PAID, SAY), test("fail", USER, SAY)]}
    ).duties
    assert len(wrong.failures) == 2


def test_retired_duties_must_compile_and_are_not_warned_about() -> None:
    (found,) = report(duty(severity="critical", status="retired")).duties
    assert found.warnings == [] and found.failures == []


@pytest.mark.parametrize("name", ["support.yaml", "airline.yaml"])
def test_the_policies_that_come_along_pass_strictly(name: str) -> None:
    path = Path(__file__).resolve().parents[2] / "recipes" / "policies" / name
    found = lint_policy(load_policy(path))
    assert [f"{one.duty}: {line}" for one in found.duties for line in one.failures + one.warnings] == []


def test_the_support_policy_has_the_duties_that_hold_anywhere() -> None:
    policy = load_policy(Path(__file__).resolve().parents[2] / "recipes" / "policies" / "support.yaml")
    assert {"identity-before-write", "confirm-before-write", "figures-have-a-source", "no-promise-beyond-policy"} <= {
        duty.id for duty in policy.active
    }
    named = {tool for duty in policy.duties for test_ in duty.tests for tool in _tools(test_.messages)}
    checks = json.dumps([yaml.safe_load(json.dumps(str(duty.check))) for duty in policy.duties])
    assert not any(tool in checks for tool in named)  # it knows no tool by its name


def _tools(messages: list[dict[str, Any]]) -> list[str]:
    return [call["function"]["name"] for message in messages for call in message.get("tool_calls", [])]


def write(folder: Path, *duties: dict[str, Any], name: str = "p.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump({"name": "p", "duties": list(duties)}), encoding="utf-8")
    return str(path)


def run(*argv: str) -> tuple[int, str]:
    main._register()
    result = RUN.invoke(main.app, list(argv))
    return result.exit_code, result.stdout


def test_the_verb_exits_1_where_a_test_fails_and_0_elsewhere(tmp_path: Path) -> None:
    good = write(tmp_path, duty(tests=[test("pass", USER, PAY, PAID, SAY)]))
    code, out = run("lint", good, "--json")
    assert code == 0 and json.loads(out)["ok"] is True and json.loads(out)["run"] == 1
    bad = write(tmp_path, duty(tests=[test("fail", USER, PAY, PAID, SAY)]), name="bad.yaml")
    code, out = run("lint", bad, "--json", "-o", str(tmp_path / "report.jsonl"))
    assert code == 1 and json.loads(out)["failed"] == 1
    assert json.loads((tmp_path / "report.jsonl").read_text())["duty"] == "d"


def test_strict_makes_warnings_count(tmp_path: Path) -> None:
    path = write(tmp_path, duty(severity="critical"))
    assert run("lint", path)[0] == 0 and run("lint", path, "--strict")[0] == 1


def test_policies_and_labelled_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    assert is_policy(write(tmp_path, duty())) and is_policy(write(tmp_path, duty(), name="policy.txt"))
    as_json = tmp_path / "policy.json"
    as_json.write_text(json.dumps({"name": "p", "duties": [duty()]}, indent=1))
    assert is_policy(as_json)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "duties: none"}]}\n')
    assert not is_policy(rows) and not is_policy(tmp_path / "missing.jsonl") and is_policy("missing.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no policy"),
        ("[1, 2]", "is no policy"),
        ("duties: []\nname: p", "no duties"),
        ("name: p\nduties: [{id: a}]", "question"),
        ("name: p\nduties: [{id: a, question: q, nix: 1}]", "nix"),
        ("name: p\nduties:\n- {id: a, question: q}\n- {id: a, question: q}", "2 duties have this id"),
        ("name: p\nduties: [{id: a, question: q, check: {type: nix}}]", "nix"),
        ("name: p\nduties: [{id: ' ', question: q}]", "needs an id"),
        ("name: p\nduties: [", "is no YAML"),
        ("name: p\nduties: [{id: a, question: q, severity: huge}]", "severity"),
    ],
)
def test_a_file_that_is_no_policy_says_where_and_how_to_mend_it(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"p\.yaml") as raised:
        load_policy(path)
    assert says in str(raised.value)
