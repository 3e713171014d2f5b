"""`cm2 label`: streams a file into rows with checklists that `cm2 lint` accepts, whatever stands in it."""

from __future__ import annotations

import gzip
import json
import time

import pytest
from label_builders import call, say, talk, tool

from cm2.cli.main import main
from cm2.errors import ConfigError, DataError
from cm2.formats import read_tasks, write_row
from cm2.label.label_run import LabelConfig, label_file
from cm2.label.lint_run import LintConfig, lint_file

TOOLS = [tool("find", ("q",), q="string"), tool("book", ("id",), id="string")]


def row(i: int, format: str = "openai") -> dict:
    steps = [
        call("find", {"id": f"A{i}X"}, q="sea view"),
        call("book", {"code": f"C{i}Z"}, id=f"A{i}X"),
        say(f"Code C{i}Z."),
    ]
    turns = [("Book a sea view, tell me the code.", steps)] + [("Thanks!", [say("You are welcome.")])] * (i % 3)
    return write_row(talk(*turns, tools=TOOLS, id=f"d{i}"), format)


def write(path, lines) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def test_a_file_is_labelled_and_lint_accepts_it(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", [row(i) for i in range(9)]), str(tmp_path / "out" / "l.jsonl.gz")
    with pytest.raises(SystemExit) as stop:
        main(["label", source, "-o", out, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and summary["dialogues"] == 9 and summary["labelled_turns"] == 9
    assert summary["kinds"] == {"call": 9, "response": 18, "write": 9, "reply": 9}
    assert summary["items"] == 45 and summary["items_per_turn"] == 5.0 and summary["strict"] == 9
    assert summary["turns_out"] == {"small talk: no call, no fact, no question about a value": 9}
    with pytest.raises(SystemExit) as stop:
        main(["lint", out])
    assert stop.value.code == 0
    tasks = [task for _, task in read_tasks(out)]
    assert [len(task.checklists) for task in tasks] == [1] * 9
    assert all(checklist.labeler == "reference" for task in tasks for checklist in task.checklists)


def test_the_table_shows_what_was_made_and_what_was_left_out(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [row(i) for i in range(3)])
    with pytest.raises(SystemExit) as stop:
        main(["label", source, "-o", str(tmp_path / "l.jsonl")])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "write" in shown and "small talk" in shown


def test_the_rest_of_a_row_stays_as_it_was(tmp_path):
    extra = {**row(1), "note": {"kept": [1, 2.5]}}
    source, out = write(tmp_path / "in.jsonl", [extra, row(2, "nemotron")]), tmp_path / "l.jsonl"
    label_file(LabelConfig(source, str(out)))
    first, second = map(json.loads, out.read_text().splitlines())
    assert first.pop("checklists") and first == json.loads(json.dumps(extra))
    assert second.pop("checklists") and second == row(2, "nemotron")


def test_labelling_again_replaces_the_checklists(tmp_path):
    source, once, twice = write(tmp_path / "in.jsonl", [row(0), row(1)]), tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    label_file(LabelConfig(source, str(once)))
    label_file(LabelConfig(str(once), str(twice)))
    assert once.read_bytes() == twice.read_bytes()


def test_a_broken_row_is_counted_with_its_line_and_left_out(tmp_path):
    source, out = write(tmp_path / "in.jsonl", [row(0), "{", {"messages": 3}, row(1)]), tmp_path / "l.jsonl"
    summary = label_file(LabelConfig(source, str(out)))
    assert summary.dialogues == 2 and summary.unreadable == 2 and summary.unreadable_lines == [2, 3]
    assert "line 2" in summary.problems[0] and len(out.read_text().splitlines()) == 2


def test_one_worker_and_several_write_the_same(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(i) if i % 7 else "{" for i in range(150)])
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = label_file(LabelConfig(source, str(one)))
    second = label_file(LabelConfig(source, str(two), jobs=2))
    assert first == second and one.read_bytes() == two.read_bytes()
    assert lint_file(LintConfig(str(one)))[0].failed == 0


def test_an_item_that_the_row_before_satisfies_is_dropped(tmp_path):
    """Lint lends the answer of the row before to a dialogue of one turn; here both say the same in other calls."""
    tools = [tool("find", ("q",), q="string")]
    one = talk(
        ("What is A?", [call("find", {"is": "blue whale"}, q="A"), say("It is a blue whale.")]), tools=tools, id="a"
    )
    two = talk(
        ("And B?", [call("find", {"is": "blue whale", "x": 1}, q="B"), say("A blue whale too.")]), tools=tools, id="b"
    )
    source = write(tmp_path / "in.jsonl", [write_row(one, "openai"), write_row(two, "openai")])
    label_file(LabelConfig(source, str(tmp_path / "l.jsonl")))
    summary, failed = lint_file(LintConfig(str(tmp_path / "l.jsonl")))
    assert not failed and summary.checklists == 2


def test_a_failed_run_leaves_the_old_output(tmp_path):
    out = tmp_path / "l.jsonl"
    out.write_text("old\n")
    source = write(tmp_path / "in.jsonl", [{"messages": 3}])
    with pytest.raises(DataError, match="none of its rows"):
        label_file(LabelConfig(source, str(out)))
    assert out.read_text() == "old\n"


def test_wrong_use_is_one_clear_sentence(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(0)])
    out = str(tmp_path / "l.jsonl")
    with pytest.raises(ConfigError, match="labeler"):
        label_file(LabelConfig(source, out, labeler="oracle"))
    with pytest.raises(ConfigError, match="jobs"):
        label_file(LabelConfig(source, out, jobs=0))
    with pytest.raises(ConfigError, match="format"):
        label_file(LabelConfig(source, out, format="yaml"))
    with pytest.raises(ConfigError, match="same file"):
        label_file(LabelConfig(source, source))
    with pytest.raises(DataError):
        label_file(LabelConfig(str(tmp_path / "none.jsonl"), out))


REAL = ("star_train", "taskmaster4", "sgd_dev", "apibank")
SAMPLE = 12


@pytest.mark.parametrize("name", REAL)
def test_a_sample_of_real_dialogues_is_labelled_and_passes_lint(shared_data, tmp_path, name):
    lines = gzip.decompress((shared_data / f"{name}.jsonl.gz").read_bytes()).decode().splitlines(keepends=True)
    source = tmp_path / "in.jsonl"
    source.write_text("".join(lines[:: len(lines) // SAMPLE][:SAMPLE]))
    summary = label_file(LabelConfig(str(source), str(tmp_path / "l.jsonl")))
    report, failed = lint_file(LintConfig(str(tmp_path / "l.jsonl")))
    assert report.ok and not failed and summary.items == report.items > 2 * SAMPLE


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REAL, "glaive_demo", "reason_tool_use", "nemogym_examples", "nemotron_like"])
def test_all_real_dialogues_are_labelled_and_pass_lint(shared_data, tmp_path, name):
    start = time.process_time()
    summary = label_file(LabelConfig(str(shared_data / f"{name}.jsonl.gz"), str(tmp_path / "l.jsonl")))
    report, failed = lint_file(LintConfig(str(tmp_path / "l.jsonl")))
    assert report.ok, failed[:3]
    assert summary.items == report.items > 0
    assert time.process_time() - start < 360, "label and lint of the largest take less than 6 minutes of one core"


@pytest.mark.slow
def test_rows_with_every_kind_of_fault_are_labelled_or_named_never_fatal(shared_data, tmp_path):
    summary = label_file(LabelConfig(str(shared_data / "corrupted.jsonl.gz"), str(tmp_path / "l.jsonl")))
    assert summary.dialogues and summary.unreadable
    assert lint_file(LintConfig(str(tmp_path / "l.jsonl")))[0].failed == 0


@pytest.mark.parametrize("labeler", ["reference", "effects"])
def test_half_a_surrogate_pair_in_one_row_leaves_the_others_their_checklists(tmp_path, labeler):
    odd = row(1)
    odd["messages"] = json.loads(json.dumps(odd["messages"]).replace("A1X", "A\\\\udc00X").replace("C1Z", "\\\\ud800Z"))
    assert "\\ud" in json.dumps(odd)
    source, out = write(tmp_path / "in.jsonl", [row(0), odd, row(2)]), str(tmp_path / "l.jsonl")
    summary = label_file(LabelConfig(source, out, labeler))
    assert summary.dialogues == 3 and summary.unreadable == 0
    tasks = [task for _, task in read_tasks(out)]
    assert tasks[0].checklists and tasks[2].checklists
    assert lint_file(LintConfig(out))[0].failed == 0
