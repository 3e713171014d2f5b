"""Tasklist: the tasks of a file that can be trained on or evaluated, and what else stood there."""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.formats import read_tasks

KEPT_PROBLEMS = 5


class Tasklist(msgspec.Struct):
    """The tasks of a file that can be trained on, and what else stood there."""

    tasks: list[Task] = []
    dialogues: int = 0
    without_checklists: int = 0
    unreadable: int = 0
    problems: list[str] = []


def read_all(path: str, format: str = "auto", limit: int | None = None) -> Tasklist:
    """The tasks of a file that have checklists.

    Raises:
        DataError: there is none.
    """
    found = Tasklist()

    def problem(row: Any) -> None:
        found.unreadable += 1
        if len(found.problems) < KEPT_PROBLEMS:
            found.problems.append(f"line {row.line}: {row.error}")

    for _, task in read_tasks(path, format, on_error=problem):
        found.dialogues += 1
        if task.checklists and task.dialogue.turns:
            found.tasks.append(task)
        else:
            found.without_checklists += 1
        if len(found.tasks) == limit:
            break
    if not found.tasks:
        raise DataError(
            f"none of {found.dialogues} dialogues has a checklist",
            where=Where(file=path),
            fix="label it first: cm2 label IN -o OUT",
        )
    return found
