"""Task rows: dialogues of either format, their checklists under "checklists" beside the messages.

A file is read row by row; a row that is no task is told to `on_error` and stops nothing. A file in which no row is one
is the wrong file. Checklists are ours in both formats, so a key that they do not have is an error (a misspelt
`depends_on` would change what is paid for), which names the turn and the item.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats.nemotron import read_nemotron, write_nemotron
from cm2.formats.openai import read_openai, write_openai
from cm2.formats.rows import Row, read_rows
from cm2.formats.wire import CHECKLISTS, named

FORMATS = ("openai", "nemotron")
AUTO = "auto"
_READ = {"openai": read_openai, "nemotron": read_nemotron}
_WRITE = {"openai": write_openai, "nemotron": write_nemotron}


def detect_format(value: dict[str, Any]) -> str:
    """The format of a row. Nemotron keeps its tools inside `metadata` and calls its id `uuid`; the rest is OpenAI."""
    if "tools" in value or "functions" in value:
        return "openai"
    metadata = value.get("metadata")
    inside = isinstance(metadata, str) and metadata.lstrip().startswith("{")
    return "nemotron" if inside or ("uuid" in value and "id" not in value) else "openai"


def read_row(value: dict[str, Any], format: str = AUTO, where: Where = Where()) -> Dialogue:
    """A row to a dialogue, without its checklists.

    Raises:
        DataError: the row is not what the format says; its `where` has the path inside the row.
        ConfigError: there is no such format.
    """
    known(format, also=AUTO)
    try:
        return _READ[detect_format(value) if format == AUTO else format](value, where)
    except RecursionError as error:
        raise DataError("the row nests too deeply to be read", where=where) from error


def write_row(dialogue: Dialogue, format: str) -> dict[str, Any]:
    """A dialogue to a row: what it was read from where it has not changed.

    Raises:
        ConfigError: there is no such format.
    """
    known(format)
    return _WRITE[format](dialogue)


def known(format: str, also: str = "") -> None:
    """Make sure that there is such a format.

    Raises:
        ConfigError: there is not.
    """
    names = [also, *FORMATS] if also else [*FORMATS]
    if format not in names:
        raise ConfigError(f"there is no format {format!r}", fix=f"use {', '.join(names)}")


def read_task(value: dict[str, Any], format: str = AUTO, where: Where = Where()) -> Task:
    """A row to a task.

    Raises:
        DataError: the row is not what the format says, or its checklists are broken.
        ConfigError: there is no such format.
    """
    dialogue = read_row(value, format, where)
    return Task(dialogue, _read_checklists(value.get(CHECKLISTS), where.but(dialogue=dialogue.id)))


def write_task(task: Task, format: str) -> dict[str, Any]:
    """A task to a row.

    Raises:
        ConfigError: there is no such format.
    """
    row = write_row(task.dialogue, format)
    if task.checklists:
        row[CHECKLISTS] = msgspec.to_builtins(task.checklists)
    return row


def read_tasks(
    path: str | os.PathLike[str], format: str = AUTO, on_error: Callable[[Row], None] | None = None
) -> Iterator[tuple[int, Task]]:
    """Every task of a file or folder as (line, task). Under "auto" each row tells its own format.

    Args:
        path: JSON lines (plain, .gz, .zst) or Parquet.
        format: auto, openai or nemotron.
        on_error: is told of every row that is no task, with its `line` and `error`. Without it the first one raises.

    Raises:
        ConfigError: there is no such format.
        DataError: the file is missing, empty or no file of rows, or none of its rows is a dialogue.
    """
    known(format, also=AUTO)
    return _read_tasks(os.fspath(path), format, on_error)


def _read_tasks(path: str, format: str, on_error: Callable[[Row], None] | None) -> Iterator[tuple[int, Task]]:
    good = bad = 0
    first: DataError | None = None
    for row in read_rows(path):
        where = Where(file=row.file or path, line=row.line)
        try:
            if row.value is None:
                raise DataError(row.error or "the row is empty", where=where)
            task = read_task(row.value, format, where)
        except DataError as error:
            if on_error is None:
                raise
            bad, first = bad + 1, first or error
            on_error(msgspec.structs.replace(row, error=_inside(error)))
            continue
        good += 1
        yield row.line, task
    if first is not None and not good:
        message = f"none of its {bad} rows is a dialogue" if bad > 1 else "its only row is no dialogue"
        raise DataError(f"{message}; the first: {_inside(first)}", where=Where(file=path), fix=_EXPECTED)


_EXPECTED = 'expected rows with "messages" (chat messages) and "tools", or Nemotron rows'


def _inside(error: DataError) -> str:
    """What a row's error says, without the file and line that the row itself has."""
    inner = error.where.but(file=None, line=None) if error.where else None
    return str(DataError(error.message, where=inner, fix=error.fix))


def _read_checklists(value: Any, where: Where) -> list[Checklist]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"'checklists' is {named(value)}, not a list", where=where.but(path=CHECKLISTS))
    return [_read_checklist(one, where.but(path=f"{CHECKLISTS}[{i}]")) for i, one in enumerate(value)]


def _read_checklist(value: Any, where: Where) -> Checklist:
    if isinstance(value, dict) and isinstance(value.get("turn"), int):
        where = where.but(turn=value["turn"])
    items = value.get("items") if isinstance(value, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else []):
        id = item.get("id") if isinstance(item, dict) else None
        _convert(item, Item, where.but(item=id if isinstance(id, str) else None, path=f"{where.path}.items[{index}]"))
    return _convert(value, Checklist, where)


@cache
def _names(type: Any) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(type))


def _convert(value: Any, type: Any, where: Where) -> Any:
    if isinstance(value, dict):
        names = _names(type)
        for key in value:
            if key not in names:
                fix = f"the keys are {', '.join(sorted(names))}"
                raise DataError(f"unknown key {key!r}", where=where, fix=fix)
    try:
        return msgspec.convert(value, type)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `$")
        inner = where.but(path=f"{where.path}{path.rstrip('`')}")
        raise DataError(f"the {type.__name__.lower()} is not as it should be: {message}", where=inner) from error
