"""Leakage control: ids, likeness, and the files and suites that are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cm2.assure.leakage import Exclusion, read_exclusion
from cm2.checklist import Task
from cm2.dialogue import Dialogue, Turn
from cm2.errors import ConfigError, DataError
from cm2.formats import write_row, write_task
from cm2.rollout.trace import Rollout, encode
from improve.judged_logs import dialogue, good

WORDS = [f"word{number}" for number in range(200)]


def said(id: str, words: list[str]) -> Dialogue:
    return Dialogue(id, [Turn(" ".join(words))])


def test_likeness_is_that_of_runs_of_three_words() -> None:
    # 200 words have 198 runs of three; another tail of n words changes n of them: Jaccard (198 - n) / (198 + n)
    exclusion = Exclusion([said("a", WORDS)], near=0.7)
    like = [*WORDS[:180], *[f"other{number}" for number in range(20)]]  # 178 / 218 = 0.82
    unlike = [*WORDS[:120], *[f"other{number}" for number in range(80)]]  # 118 / 278 = 0.42
    assert exclusion.reason(said("b", like)) == "excluded: nearly the same"
    assert exclusion.reason(said("c", unlike)) == ""
    assert exclusion.reason(said("a", unlike)) == "excluded: the same id"
    assert exclusion.reason(said("d", unlike), "a") == "excluded: the same id"


def test_nothing_is_excluded_by_nothing() -> None:
    assert Exclusion().reason(dialogue("a", good())) == ""
    assert read_exclusion([]).count == 0


def test_a_suite_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(json.dumps(write_task(Task(dialogue("t", good())), "openai")) + "\n")
    (tmp_path / "runs.jsonl").write_text(json.dumps(write_row(dialogue("r", good("Else?")), "openai")) + "\n")
    (tmp_path / "suite.yaml").write_text("dialogues: runs.jsonl\ntasks: tasks.jsonl\n")
    exclusion = read_exclusion([str(tmp_path / "suite.yaml")], near=None)
    assert exclusion.count == 2
    assert exclusion.reason(dialogue("t")) and exclusion.reason(dialogue("r")) and not exclusion.reason(dialogue("s"))
    (tmp_path / "empty.yaml").write_text("name: nothing\n")
    with pytest.raises(ConfigError):
        read_exclusion([str(tmp_path / "empty.yaml")])


def test_rollouts_exclude_their_tasks(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(encode(Rollout("task-1", dialogue("task-1", good()))) + b"\n")
    exclusion = read_exclusion([str(path)], near=None)
    assert exclusion.reason(dialogue("run", good("Else?")), "task-1")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_exclusion([str(tmp_path / "absent.jsonl")])
    with pytest.raises(ConfigError, match="resemblance"):
        Exclusion(near=1.5)
