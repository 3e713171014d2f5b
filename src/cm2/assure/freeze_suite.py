"""A suite as a folder: `tasks.jsonl` and `suite.yaml`, into which frozen tasks are put.

A task is there once, by its id: items that are new are added to it, what is there is left alone, other lines keep their
bytes. A file is replaced as a whole or not at all, by one process at a time.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from cm2.assure.gate_case import write_whole
from cm2.checklist import Checklist, Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_task, write_task
from cm2.formats.jsonlines import encode, parse
from cm2.formats.lock import lock_output

TASKS, SUITE = "tasks.jsonl", "suite.yaml"
NEW_SUITE = """\
# What `cm2 gate freeze` has put into tasks.jsonl, for `cm2 gate`.
name: {name}
tasks: tasks.jsonl
# Who is looked at: runs of these tasks (or: cm2 gate suite.yaml --dialogues RUNS) …
# dialogues: runs.jsonl
# … or an endpoint that runs them (or: cm2 gate suite.yaml --base-url URL --model NAME).
# endpoint: {{base_url: "http://127.0.0.1:8000/v1", model: NAME}}
# repeats: 3
thresholds:
  critical: {{max_fails: 0}}
  major: {{max_fails: 0}}
"""


class Put(msgspec.Struct):
    """What was put into a suite."""

    task: str
    output: str
    """The suite's file of tasks …"""
    tasks: int
    """… and how many it holds."""
    items: list[str]
    """Items that are new in it."""
    written: bool
    suite_written: bool
    """Whether the suite's own file is new."""


def put_task(folder: str, task: Task, apart_from: str) -> Put:
    """Put a frozen task into the suite of a folder, which is made where it does not exist.

    Args:
        folder: of the suite.
        task: with its provenance under `meta.frozen`.
        apart_from: a file that may not be the suite's own.

    Raises:
        ConfigError: the folder is a file, or the suite's tasks are `apart_from`.
        DataError: a line of the suite is no task; it has another task of that id.
    """
    path = os.path.join(folder, TASKS)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"{folder} is a file", fix="name the folder of a suite with -o")
    if os.path.exists(path) and os.path.realpath(path) == os.path.realpath(apart_from):
        raise ConfigError("the suite's own tasks are no runs", fix="name the file of runs")
    os.makedirs(folder, exist_ok=True)
    lock = lock_output(path)
    try:
        lines, at, old = _read(path, task.dialogue.id)
        added = _merged(path, old, task)
        if added or old is None:
            row = encode(write_task(task if old is None else old, "openai"))
            lines[at:] = [row, *lines[at + 1 :]]
            write_whole(path, b"".join(line + b"\n" for line in lines))
        suite = os.path.join(folder, SUITE)
        fresh = not os.path.exists(suite)
        if fresh:
            name = Path(os.path.abspath(folder)).name
            write_whole(suite, NEW_SUITE.format(name=encode(name).decode()).encode())
        return Put(task.dialogue.id, path, len(lines), added, bool(added) or old is None, fresh)
    finally:
        lock.release()


def _read(path: str, id: str) -> tuple[list[bytes], int, Task | None]:
    """The lines of the suite's tasks, the place of the one of that id (else the end), and the task there."""
    if not os.path.exists(path):
        return [], 0, None
    lines = [line for line in Path(path).read_bytes().split(b"\n") if line.strip()]
    for number, line in enumerate(lines):
        value, wrong = parse(line)
        if wrong is not None or not isinstance(value, dict):
            where = Where(file=path, line=number + 1)
            raise DataError(f"is no task: {wrong or 'no JSON object'}", where=where, fix="take the line out")
        if value.get("id") == id:
            return lines, number, read_task(value, "openai", Where(file=path, line=number + 1))
    return lines, len(lines), None


def _merged(path: str, old: Task | None, task: Task) -> list[str]:
    """Put the items that are new into the task that the suite has; their names. Of a new task, all of its items."""
    if old is None:
        return [item.id for checklist in task.checklists for item in checklist.items]
    where = Where(file=path, dialogue=old.dialogue.id)
    if [turn.user for turn in old.dialogue.turns] != [turn.user for turn in task.dialogue.turns]:
        raise DataError("the suite has another task of this id", where=where, fix="give the runs ids of their own")
    before, after = old.dialogue.meta.get("frozen"), task.dialogue.meta["frozen"]
    if not isinstance(before, dict) or before.get("kind") != after["kind"]:
        kind = before.get("kind") if isinstance(before, dict) else "not frozen"
        message = f"the suite has it already ({kind})"
        raise DataError(message, where=where, fix="one run is a failure or a reference, not both")
    added = []
    for checklist in task.checklists:
        mine = old.checklist(checklist.turn)
        for item in checklist.items:
            if mine is None:
                mine = Checklist(checklist.turn, [], labeler=checklist.labeler)
                old.checklists.append(mine)
            if mine.item(item.id) is None:
                mine.items.append(item)
                added.append(item.id)
    if added:
        old.checklists = [checklist.normalised() for checklist in old.checklists]
        before["duties"] = [*before.get("duties", []), *after["duties"]]
    return added
