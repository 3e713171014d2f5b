"""`cm2 label --labeler effects`: whole files, real and made, and lint of what comes out."""

from __future__ import annotations

import gzip
import json

import pytest
from label_builders import call, say, talk, tool

from cm2.cli.main import main
from cm2.errors import ConfigError
from cm2.formats import read_tasks, write_row
from cm2.judge.checks import decide
from cm2.label.label_run import LabelConfig, label_file
from cm2.label.lint_run import LintConfig, lint_file
from cm2.verdict import WHOLE
from cm2.worlds import MakeConfig, make

TOOLS = [tool("find", ("q",), q="string"), tool("cancel_trip", ("id",), id="string")]


def rows(count: int) -> list[dict]:
    found = []
    for n in range(count):
        steps = [
            call("find", {"id": f"A{n}X"}, q="trips"),
            call("cancel_trip", {"ok": True}, id=f"A{n}X"),
            say("Done."),
        ]
        found.append(write_row(talk(("Cancel it.", steps), ("Thanks!", []), tools=TOOLS, id=f"d{n}"), "openai"))
    return [*found, write_row(talk(("Hello?", []), tools=TOOLS, id="silent"), "openai")]


def written(path, lines) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    return int(stop.value.code or 0)


def test_a_file_is_labelled_counted_and_accepted_by_lint(tmp_path, capsys):
    source = written(tmp_path / "in.jsonl", [*rows(3), "{broken"])
    out = str(tmp_path / "out.jsonl.gz")
    assert run("label", source, "-o", out, "--labeler", "effects", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["dialogues"], summary["whole"], summary["without_checklist"]) == (4, 3, 1)
    assert summary["kinds"] == {"outcome": 3, "effect": 3, "no_other_effect": 3} and summary["items"] == 9
    assert summary["turns_out"] == {"nobody answers in it": 1} and summary["unreadable"] == 1
    assert run("lint", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["items"] == 9
    tasks = [task for _, task in read_tasks(out)]
    assert [[checklist.turn for checklist in task.checklists] for task in tasks] == [[WHOLE]] * 3 + [[]]


def test_the_table_says_that_items_are_about_whole_dialogues(tmp_path, capsys):
    source = written(tmp_path / "in.jsonl", rows(2))
    assert run("label", source, "-o", str(tmp_path / "o.jsonl"), "--labeler", "effects") == 0
    assert "about the whole" in " ".join(capsys.readouterr().out.split())


def test_two_workers_give_the_same_file(tmp_path):
    source = written(tmp_path / "in.jsonl", rows(70))
    for jobs in (1, 2):
        label_file(LabelConfig(source, str(tmp_path / f"{jobs}.jsonl"), labeler="effects", jobs=jobs))
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_lint_refuses_a_changed_checklist(tmp_path, capsys):
    source, out = written(tmp_path / "in.jsonl", rows(1)), tmp_path / "out.jsonl"
    label_file(LabelConfig(source, str(out), labeler="effects"))
    text = out.read_text().replace('"tool":"cancel_trip","arguments"', '"tool":"find","arguments"')
    assert text != out.read_text()
    out.write_text(text)
    assert run("lint", str(out)) == 1
    assert "reference" in capsys.readouterr().out


def test_an_unknown_labeler_names_this_one(tmp_path):
    with pytest.raises(ConfigError, match="effects"):
        label_file(LabelConfig(written(tmp_path / "in.jsonl", rows(1)), str(tmp_path / "o.jsonl"), labeler="effect"))


def test_every_sample_world_is_labelled_and_passes_its_own_items(tmp_path):
    dialogues = [*make(MakeConfig(count=20)), *make(MakeConfig(count=4, split="unseen"))]
    source = written(tmp_path / "in.jsonl", [write_row(each, "openai") for each in dialogues])
    out = str(tmp_path / "out.jsonl")
    summary = label_file(LabelConfig(source, out, labeler="effects"))
    assert summary.whole == 24 and not summary.items_out
    assert lint_file(LintConfig(out))[0].ok
    tasks = [task for _, task in read_tasks(out)]
    assert {task.checklists[0].items[0].id for task in tasks} == {"outcome", "nothing-changed"}


@pytest.mark.parametrize(
    "name", ["taubench_airline_gpt4o", "star_train", "taskmaster4", "sgd_dev", "apibank", "glaive_demo"]
)
def test_real_dialogues_give_sound_items(shared_data, tmp_path, name):
    source = tmp_path / "in.jsonl"
    with gzip.open(shared_data / f"{name}.jsonl.gz", "rt") as lines:
        source.write_text("".join(line for _, line in zip(range(25), lines, strict=False)))
    out = str(tmp_path / "out.jsonl")
    summary = label_file(LabelConfig(str(source), out, labeler="effects"))
    assert summary.whole >= 20 and summary.whole + sum(summary.turns_out.values()) == 25
    report, failed = lint_file(LintConfig(out))
    assert report.ok and not failed
    for _, task in read_tasks(out):
        for item in task.checklists[0].items if task.checklists else []:
            assert item.check is not None and decide(item.check, task.dialogue, WHOLE, WHOLE).met
