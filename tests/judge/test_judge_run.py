"""`cm2 judge`: a resumable store, one line a verdict, never continued on another input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from judge_builders import call, say, talk

from cm2.check import Called, Fact, NotCalled, Reply
from cm2.checklist import Checklist, Item, Task
from cm2.cli.main import main
from cm2.errors import ConfigError, DataError
from cm2.formats import write_task
from cm2.judge.judge import ChecksJudge
from cm2.judge.run import JudgeConfig, judge_file
from cm2.verdict import Verdict

CHECKLIST = Checklist(
    0,
    [
        Item("C0", "assistant.tool_calls", "Was it looked up?", "It was.", 0.5, check=Called("search"), kind="call"),
        Item(
            "C1",
            "assistant.tool_calls",
            "Was A1 told?",
            "It was.",
            0.3,
            check=Reply(states=[Fact(["A1"])]),
            kind="reply",
        ),
        Item("C2", "assistant.content.thinking", "Was it thought about?", "It was.", 0.2, kind="thinking"),
    ],
)
BEYOND = Checklist(1, [Item("C0", "assistant.tool_calls", "Was it kept?", "Yes.", 1.0, check=NotCalled(["drop"]))])


def rows(count: int, labelled: bool = True, reply: str = "It is A1.") -> list[dict]:
    tasks = []
    for i in range(count):
        dialogue = talk([call("search", {"id": "A1"}, q=f"q{i}"), say(reply)], id=f"d{i}")
        tasks.append(Task(dialogue, [CHECKLIST, BEYOND] if labelled else []))
    return [write_task(task, "openai") for task in tasks]


def write(path, lines) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def verdicts(path) -> list[Verdict]:
    return [msgspec.json.decode(line, type=Verdict) for line in Path(path).read_bytes().splitlines()]


def test_every_item_and_step_gets_a_line_and_unscored_stays_apart(tmp_path):
    source, out = write(tmp_path / "in.jsonl", rows(2)), str(tmp_path / "out.jsonl")
    summary = judge_file(JudgeConfig(source, out))
    found = verdicts(out)
    assert len(found) == len({v.key for v in found}) == summary.verdicts == summary.written == 2 * 2 * 3
    assert {(v.step, v.item): v.met for v in found if v.dialogue == "d1"} == {
        (0, "C0"): True,
        (0, "C1"): False,
        (0, "C2"): None,
        (1, "C0"): True,
        (1, "C1"): True,
        (1, "C2"): None,
    }
    assert all(v.evidence for v in found if v.met)
    total = summary.as_json()["total"]
    assert total == {"items": 8, "passed": 4, "failed": 2, "not_reached": 2, "unscored": 2} | {
        "not_applicable": 0,
        "pass_rate": 4 / 6,
    }
    assert summary.as_json()["kinds"]["thinking"]["pass_rate"] is None


def test_the_same_command_again_adds_nothing_and_tells_the_same(tmp_path):
    config = JudgeConfig(write(tmp_path / "in.jsonl", rows(3)), str(tmp_path / "out.jsonl"))
    first = judge_file(config)
    before = Path(config.output).read_bytes()
    again = judge_file(config)
    assert Path(config.output).read_bytes() == before
    assert again.written == 0 and again.total == first.total


def test_a_torn_last_line_is_discarded_and_written_again(tmp_path):
    config = JudgeConfig(write(tmp_path / "in.jsonl", rows(3)), str(tmp_path / "out.jsonl"))
    judge_file(config)
    whole = Path(config.output).read_bytes()
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        Path(config.output).write_bytes(whole[:cut])
        judge_file(config)
        assert Path(config.output).read_bytes() == whole


def test_killed_at_any_moment_it_resumes_without_loss_or_repeats(tmp_path):
    source = write(tmp_path / "in.jsonl", rows(1500))
    whole, out = str(tmp_path / "whole.jsonl"), tmp_path / "out.jsonl"
    judge_file(JudgeConfig(source, whole))
    command = [sys.executable, "-m", "cm2", "judge", source, "-o", str(out), "--json"]
    sizes = []
    for fraction in (0.2, 0.5, 0.8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        aim = fraction * os.path.getsize(whole)
        while process.poll() is None and (not out.exists() or out.stat().st_size < aim):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sizes.append(out.stat().st_size)
    last = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(last.stdout)["verdicts"] == 9000
    assert sorted(out.read_bytes().splitlines()) == sorted(Path(whole).read_bytes().splitlines()), sizes


def test_a_store_is_never_continued_on_another_input(tmp_path):
    source, out = write(tmp_path / "in.jsonl", rows(2)), str(tmp_path / "out.jsonl")
    judge_file(JudgeConfig(source, out))
    kept = Path(out).read_bytes()
    write(tmp_path / "in.jsonl", rows(2, reply="No idea."))
    with pytest.raises(ConfigError, match="other data") as caught:
        judge_file(JudgeConfig(source, out))
    assert "-o" in str(caught.value) and Path(out).read_bytes() == kept
    os.remove(f"{out}.input.json")
    with pytest.raises(ConfigError, match="does not say"):
        judge_file(JudgeConfig(source, out))


def test_an_agents_run_is_judged_by_the_checklists_of_another_file(tmp_path):
    reference = write(tmp_path / "reference.jsonl", rows(3))
    run = write(
        tmp_path / "run.jsonl", [*rows(2, labelled=False, reply="No idea."), {**rows(1, False)[0], "id": "new"}]
    )
    summary = judge_file(JudgeConfig(run, str(tmp_path / "out.jsonl"), reference))
    assert summary.kinds["call"].passed == 2 and summary.kinds["reply"].failed == 2
    assert summary.without_checklist == 1 and summary.dialogues == 3


def test_dialogues_that_share_an_id_keep_their_verdicts_apart(tmp_path):
    reference = write(tmp_path / "reference.jsonl", rows(1))
    runs = [*rows(1, False), *rows(1, False, reply="No idea.")]
    config = JudgeConfig(write(tmp_path / "run.jsonl", runs), str(tmp_path / "out.jsonl"), reference)
    assert judge_file(config).duplicates == 1
    assert judge_file(config).written == 0
    last = {v.rollout: v.met for v in verdicts(config.output) if v.item == "C1" and v.step == 1}
    assert last == {"": True, "2": False}


def test_a_broken_line_is_counted_and_stops_nothing(tmp_path):
    source = write(tmp_path / "in.jsonl", [rows(2)[0], '{"id": "torn", ', rows(2)[1]])
    summary = judge_file(JudgeConfig(source, str(tmp_path / "out.jsonl")))
    assert summary.dialogues == 2 and summary.unreadable == 1 and summary.problems[0].startswith("line 2")


@pytest.mark.parametrize("turn", [-2, -3, -50])
def test_a_checklist_of_a_negative_turn_is_told_and_the_rest_is_judged(tmp_path, turn):
    bad, good = rows(2)
    bad["checklists"][1]["turn"] = turn
    summary = judge_file(JudgeConfig(write(tmp_path / "in.jsonl", [bad, good]), str(tmp_path / "out.jsonl")))
    assert (summary.dialogues, summary.unreadable) == (1, 1)
    assert summary.problems[0].startswith(f"line 1: dialogue d0, turn {turn}, at checklists[1].turn: ")
    assert {v.dialogue for v in verdicts(tmp_path / "out.jsonl")} == {"d1"}
    with pytest.raises(DataError, match=f"turn {turn}"):
        judge_file(JudgeConfig(write(tmp_path / "one.jsonl", [bad]), str(tmp_path / "one.out.jsonl")))


@pytest.mark.parametrize("turn", [-2, -3, 1])
def test_a_turn_that_the_dialogue_has_not_got_has_no_state(turn):
    assert ChecksJudge().judge(talk([say("It is A1.")]), turn, Checklist(turn, CHECKLIST.items)) == []


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl.gz", "out.jsonl.zst"])
def test_a_store_is_never_lines_under_another_forms_name(tmp_path, name):
    source = write(tmp_path / "in.jsonl", rows(1))
    for dry in (False, True):
        with pytest.raises(ConfigError, match="plain JSON lines"):
            judge_file(JudgeConfig(source, str(tmp_path / name)), dry=dry)
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_an_input_behind_a_link_is_never_the_store(tmp_path):
    source = write(tmp_path / "in.jsonl", rows(1))
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(ConfigError, match="the same file"):
        judge_file(JudgeConfig(source, str(tmp_path / "link.jsonl")))


@pytest.mark.parametrize("case", ["missing", "empty", "unlabelled", "same file"])
def test_wrong_input_is_one_clear_sentence(tmp_path, case):
    source, out = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    if case != "missing":
        write(tmp_path / "in.jsonl", [] if case == "empty" else rows(2, labelled=case == "same file"))
    with pytest.raises((DataError, ConfigError)):
        judge_file(JudgeConfig(source, source if case == "same file" else out))
    assert case != "same file" or Path(source).read_text().count("\n") == 2


def test_json_prints_the_summary_and_nothing_else(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", rows(2))
    with pytest.raises(SystemExit) as stop:
        main(["judge", source, "-o", str(tmp_path / "out.jsonl"), "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["total"]["passed"] == 4
    with pytest.raises(SystemExit) as stop:
        main(["judge", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "x.jsonl"), "--json"])
    shown = capsys.readouterr()
    assert stop.value.code == 2 and shown.out == "" and "none.jsonl" in shown.err and "Traceback" not in shown.err
