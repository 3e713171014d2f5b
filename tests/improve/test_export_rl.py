"""RL tasks: the dialogue with the duties that failed, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cm2.checklist import Checklist, Item, Task
from cm2.errors import DataError
from cm2.formats import read_task, write_task
from cm2.policy import Policy
from cm2.verdict import Verdict
from improve.judged_logs import FOUND, POLICY, QUIET, dialogue, export, good, lines, says, turn, write

BAD = turn(says("I know. Thank you."), user="And 8?")


def test_a_task_asks_for_the_duties_that_failed_in_every_turn(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good(), BAD), dialogue("b", good())])
    summary, [row] = export(tmp_path, kind="rl", form="cm2")
    task = read_task(row)
    assert task.dialogue.id == "a"
    assert [(one.turn, [item.id for item in one.items]) for one in task.checklists] == [
        (0, ["looks-up"]),
        (1, ["looks-up"]),
    ]
    assert all(sum(item.weight for item in one.items) == pytest.approx(1) for one in task.checklists)
    assert summary.duties == {"looks-up": 1} and summary.left_out == {"no duty fails": 1}


def test_duties_of_the_whole_dialogue_are_told_and_make_no_reward(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(QUIET, id="whole", scope="dialogue")
    failed = [Verdict(id, -1, -1, "whole", False) for id in ("a", "b")]
    write(tmp_path, [dialogue("a", good(), BAD), dialogue("b", good())], POLICY, failed)
    summary, [row] = export(tmp_path, kind="rl", form="cm2", policy=Policy("p", [FOUND, whole]))
    assert all(one["turn"] >= 0 for one in row["checklists"])
    assert summary.whole == {"whole": 2}
    assert summary.left_out == {"only a duty of the whole dialogue fails": 1}


def test_with_labelled_references_the_task_is_the_reference(tmp_path: Path) -> None:
    reference = dialogue("a", good(), good("And 8?"))
    items = [
        Item("C0", "tool.content", "Found?", "Found.", 0.5, check=FOUND.check, kind="response"),
        Item("C1", "assistant.tool_calls", "Paid?", "Paid.", 0.25, depends_on=["C0"], kind="call"),
        Item("C2", "assistant.tool_calls", "Kind?", "Kind.", 0.25, kind="reply"),
    ]
    task = Task(reference, [Checklist(0, items), Checklist(1, items[2:])])
    lines(tmp_path / "tasks.jsonl", [write_task(task, "openai")])
    write(tmp_path, [dialogue("a", good(), BAD)])
    said = {"C0": True, "C1": False, "C2": True}
    verdicts = [Verdict("a", 0, step, id, met) for step in (0, 1) for id, met in said.items()]
    lines(tmp_path / "verdicts.jsonl", [*verdicts, Verdict("a", 1, 0, "C2", True)])
    _, [row] = export(tmp_path, kind="rl", form="cm2", policy=None, checklists=str(tmp_path / "tasks.jsonl"))
    made = read_task(row)
    assert made.dialogue.turns[1].steps[0].calls  # the reference's, not the run's
    [checklist] = made.checklists
    assert [item.id for item in checklist.items] == ["C0", "C1"]  # what failed, and what it depends on
    assert [item.weight for item in checklist.items] == pytest.approx([2 / 3, 1 / 3])


def test_without_a_failure_there_is_no_task(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good())])
    with pytest.raises(DataError, match="no duty fails"):
        export(tmp_path, kind="rl", form="cm2")


def test_trl_and_openai_tasks_begin_before_the_agents_first_step(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good(), BAD)])
    _, [row] = export(tmp_path, kind="rl", form="trl")
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert read_task(msgspec.json.decode(row["task"])).checklists
    _, [row] = export(tmp_path, kind="rl", form="openai")
    assert row["messages"][-1]["role"] == "user" and row["checklists"][0]["items"][0]["id"] == "looks-up"
