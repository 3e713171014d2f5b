"""Task files: both formats mixed, checklists beside the messages, broken rows told and passed over."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from chat_builders import ask, nemotron, row, say, user

from cm2.check import Called
from cm2.checklist import Checklist, Evidence, Item, Task
from cm2.errors import ConfigError, DataError
from cm2.formats import RowWriter, detect_format, read_row, read_task, read_tasks, write_row, write_task

ITEM = Item(
    id="C0",
    focus_on="assistant.tool_calls",
    question="Was it found?",
    pass_condition="It was.",
    weight=1.0,
    evidence=[Evidence(0, 0, "assistant.tool_calls", "find(")],
    depends_on=["C1"],
    check=Called("find"),
)
TASK = Task(read_row(row(user(), ask(), say())), [Checklist(0, [ITEM]), Checklist(0, [ITEM], variant=1, labeler="me")])


def write(path, *rows) -> str:
    lines = (line if isinstance(line, str) else json.dumps(line) for line in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def found(path, **more) -> tuple[list, list]:
    errors: list = []
    return list(read_tasks(path, on_error=errors.append, **more)), errors


@pytest.mark.parametrize("format", ["openai", "nemotron"])
def test_a_task_is_written_and_read_again(format, tmp_path):
    written = write_task(deepcopy(TASK), format)
    assert list(written)[-1] == "checklists" and detect_format(written) == format
    ((line, task),) = read_tasks(write(tmp_path / "in.jsonl", written))
    assert line == 1 and task.checklists == TASK.checklists and task.dialogue.turns == TASK.dialogue.turns


def test_a_row_without_checklists_is_a_task_with_none():
    assert read_task(row(user(), say())).checklists == []
    assert "checklists" not in write_task(Task(TASK.dialogue), "openai")
    assert read_task({**row(user(), say()), "checklists": None}).checklists == []


def test_checklists_belong_to_the_task_and_not_to_the_dialogue():
    dialogue = read_row(write_task(deepcopy(TASK), "openai"))
    assert dialogue == TASK.dialogue and "checklists" not in write_row(dialogue, "openai")


def test_each_row_tells_its_own_format(tmp_path):
    path = write(tmp_path / "in.jsonl", row(user(), say()), nemotron(user(), say()))
    assert [task.dialogue.tools[0].name for _, task in read_tasks(path)] == ["find", "find"]


@pytest.mark.parametrize(
    ("value", "format"),
    [
        ({"tools": [], "metadata": "{}"}, "openai"),
        ({"functions": []}, "openai"),
        ({"id": "x", "metadata": "a note"}, "openai"),
        ({"metadata": '{"tools": []}'}, "nemotron"),
        ({"uuid": "x"}, "nemotron"),
        ({"uuid": "x", "id": "y"}, "openai"),
        ({}, "openai"),
    ],
)
def test_a_row_is_known_by_where_its_tools_are(value, format):
    assert detect_format(value) == format


def test_unreadable_rows_are_told_with_line_and_place_and_the_rest_is_read(tmp_path):
    good = row(user(), say())
    path = write(tmp_path / "in.jsonl", good, '{"id": ', "[1]", "", {**good, "messages": [user(), {"role": "x"}]}, good)
    tasks, errors = found(path)
    assert [line for line, _ in tasks] == [1, 6]
    assert [(row.line, row.file) for row in errors] == [(2, path), (3, path), (5, path)]
    assert errors[0].error.startswith("not JSON") and errors[0].raw == '{"id": ' and "a list" in errors[1].error
    assert errors[2].error.startswith("dialogue d, at messages[1]: the role is 'x'") and path not in errors[2].error


def test_without_a_listener_the_first_unreadable_row_raises(tmp_path):
    path = write(tmp_path / "in.jsonl", row(user(), say()), "{")
    tasks = read_tasks(path)
    assert next(tasks)[0] == 1
    with pytest.raises(DataError, match=r"in\.jsonl:2"):
        next(tasks)


def checklists(**item) -> dict:
    value = write_task(deepcopy(TASK), "openai")
    value["checklists"][1]["items"][0].update(item)
    return value


@pytest.mark.parametrize(
    ("item", "says", "path"),
    [
        ({"weight": "much"}, "Expected `float`", "checklists[1].items[0].weight"),
        ({"focus_on": "tools"}, "Invalid enum value", "checklists[1].items[0].focus_on"),
        ({"check": {"type": "guess"}}, "Invalid value 'guess'", "checklists[1].items[0].check.type"),
        ({"evidence": [{"turn": 0}]}, "missing required field `step`", "checklists[1].items[0].evidence[0]"),
        ({"depends": ["C1"]}, "unknown key 'depends'", "checklists[1].items[0]"),
    ],
)
def test_a_broken_item_is_an_error_that_names_turn_and_item(item, says, path, tmp_path):
    (_, _), (error,) = found(write(tmp_path / "in.jsonl", row(user(), say()), row(user(), say()), checklists(**item)))
    assert error.line == 3 and says in error.error
    assert error.error.startswith(f"dialogue d, turn 0, item C0, at {path}: ")


@pytest.mark.parametrize("value", [3, {}, ["x"], [{"items": []}], [{"turn": 0, "items": 3}], [{"turn": 0, "itms": []}]])
def test_broken_checklists_are_an_error(value):
    with pytest.raises(DataError, match="checklist"):
        read_task({**row(user(), say()), "checklists": value})


def test_a_file_of_other_rows_is_refused_as_a_whole(tmp_path):
    path = write(tmp_path / "in.jsonl", {"prompt": "x"}, {"prompt": "y"})
    with pytest.raises(DataError, match="none of its 2 rows is a dialogue") as caught:
        found(path)
    assert "'messages'" in str(caught.value)


def test_a_format_that_does_not_exist_is_refused_at_once(tmp_path):
    for use in (
        lambda: read_tasks("none", "chatml"),
        lambda: read_row({}, "x"),
        lambda: write_row(TASK.dialogue, "auto"),
    ):
        with pytest.raises(ConfigError, match="openai, nemotron"):
            use()


def test_a_row_that_nests_too_deeply_is_an_error_and_no_crash():
    deep: dict = {}
    for _ in range(100_000):
        deep = {"a": deep}
    try:
        with pytest.raises(DataError, match="nests too deeply"):
            read_row(
                {"messages": [user(), say()], "tools": [], "meta": {}, "id": None} | {"messages": [user(), ask(deep)]}
            )
    finally:
        while deep:  # freed level by level: the interpreter's own clean-up would recurse
            deep = deep.pop("a")


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.parquet"])
def test_tasks_survive_every_kind_of_file(name, tmp_path):
    path = tmp_path / name
    with RowWriter(path) as writer:
        for format in ("openai", "nemotron"):
            writer.write(write_task(deepcopy(TASK), format))
    assert [task.checklists for _, task in read_tasks(path)] == [TASK.checklists] * 2
