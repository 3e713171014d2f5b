"""`cm2 lint`: streams a file, reports each item, exits 1 where one fails."""

from __future__ import annotations

import json

import pytest

from cm2.check import Called, Equals, Fact, Reply
from cm2.checklist import Checklist, Item, Task
from cm2.cli.main import main
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import ConfigError, DataError
from cm2.formats import write_task
from cm2.label.lint_run import LintConfig, lint_file

GOOD = Called("search", {"q": Equals("x")})
VACUOUS = Reply()


def row(i: int, *checks) -> dict:
    step = Step(calls=[ToolCall("search", {"q": "x"}, id="c")], responses=[ToolResponse('{"id": "A1"}', call_id="c")])
    dialogue = Dialogue(f"d{i}", [Turn("find x", [step, Step(reply=f"It is A1, number {i}.")])])
    items = [
        Item(f"C{n}", "assistant.tool_calls", "Was it done?", "It was.", 1 / len(checks), check=check, kind="call")
        for n, check in enumerate(checks)
    ]
    return write_task(Task(dialogue, [Checklist(0, items)] if items else []), "openai")


def write(path, lines) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def test_good_checklists_pass_and_exit_0(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [row(0, GOOD), row(1, GOOD, Reply(states=[Fact(["A1"])]))])
    with pytest.raises(SystemExit) as stop:
        main(["lint", source, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and summary["ok"] is True
    assert summary["items"] == 3 and summary["failed"] == 0 and summary["reasons"] == {}
    assert summary["tested"]["indiscriminate"] == 3


def test_a_bad_item_is_named_counted_and_exits_1(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", [row(0, GOOD), row(1, GOOD, VACUOUS, None)]), tmp_path / "report.jsonl"
    with pytest.raises(SystemExit) as stop:
        main(["lint", source, "-o", str(out), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert stop.value.code == 1 and summary["ok"] is False
    assert summary["failed"] == 1 and summary["unscored"] == 1 and summary["reasons"]["vacuous"] == 1
    reports = [json.loads(line) for line in out.open()]
    assert [(r["line"], r["dialogue"], r["item"], r["ok"]) for r in reports] == [
        (1, "d0", "C0", True),
        (2, "d1", "C0", True),
        (2, "d1", "C1", False),
        (2, "d1", "C2", True),
    ]
    with pytest.raises(SystemExit) as stop:
        main(["lint", source])
    assert stop.value.code == 1 and "line 2, dialogue d1, turn 0, item C1" in " ".join(capsys.readouterr().out.split())


def test_worker_processes_say_the_same_in_the_same_order(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(i, GOOD, VACUOUS) if i % 3 else row(i) for i in range(150)])
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first, _ = lint_file(LintConfig(source, str(one)))
    second, _ = lint_file(LintConfig(source, str(two), jobs=2))
    assert first == second and one.read_bytes() == two.read_bytes()
    assert first.without_checklists == 50 and first.items == 200 and first.failed == 100


def test_a_broken_line_is_counted_and_is_a_failure(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(0, GOOD), "{"])
    summary, failed = lint_file(LintConfig(source))
    assert not failed and summary.unreadable == 1 and not summary.ok


def test_wrong_use_is_one_clear_sentence(tmp_path):
    with pytest.raises(DataError):
        lint_file(LintConfig(str(tmp_path / "none.jsonl")))
    with pytest.raises(DataError, match="checklist"):
        lint_file(LintConfig(write(tmp_path / "in.jsonl", [row(0)])))
    with pytest.raises(ConfigError, match="jobs"):
        lint_file(LintConfig(write(tmp_path / "in.jsonl", [row(0, GOOD)]), jobs=0))
