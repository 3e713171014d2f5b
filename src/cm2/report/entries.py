"""Entries: what a file holds, one dialogue at a time, whether it is a file of dialogues or of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.formats import Row, read_rows, read_tasks
from cm2.rollout.trace import Rollout


class Entry(msgspec.Struct):
    """A dialogue of a file, with its line (1-based) and the rollout that it is of, if it is."""

    line: int
    task: Task
    rollout: Rollout | None = None


def read_entries(path: str, format: str, on_error: Callable[[Row], None]) -> Iterator[Entry]:
    """Every dialogue of a file; rows that do not read are told to `on_error`.

    A file whose first readable row has "task" and "dialogue" is one of rollouts.

    Raises:
        ConfigError: there is no such format.
        DataError: the file is missing, empty or no file of rows, or none of its rows is a dialogue.
    """
    tasks = read_tasks(path, format, on_error)
    first: dict[str, Any] = next((row.value for row in islice(read_rows(path), 100) if row.value is not None), {})
    if not {"task", "dialogue"} <= first.keys():
        yield from (Entry(line, task) for line, task in tasks)
        return
    good = 0
    for row in read_rows(path):
        try:
            if row.value is None:
                raise msgspec.ValidationError(row.error)
            rollout = msgspec.convert(row.value, Rollout)
        except msgspec.ValidationError as error:
            on_error(msgspec.structs.replace(row, error=f"this is no rollout: {error}"))
            continue
        good += 1
        yield Entry(row.line, Task(rollout.dialogue, rollout.checklists), rollout)
    if not good:
        raise DataError("none of its rows is a rollout", where=Where(file=path), fix="pass a file that cm2 wrote")


def find_entry(entries: Iterator[Entry], wanted: str, path: str) -> Entry:
    """The first entry whose dialogue has that id, or that is the so-manieth of the file, from 1.

    Raises:
        DataError: there is none.
    """
    count = 0
    for count, entry in enumerate(entries, 1):
        if entry.task.dialogue.id == wanted or (entry.rollout is not None and entry.rollout.key == wanted):
            return entry
        if wanted.isdecimal() and count == int(wanted):
            return entry
    fix = f"give an id of the file, or a number from 1 to {count}"
    raise DataError(f"there is no dialogue {wanted!r}", where=Where(file=path), fix=fix)
