"""From a record of a log to the dialogues that it is: rows of `cm2.formats` as they stand, others as `cm2 import` does.

Formats that spread a dialogue over many records (spans, calls of an API) cannot be read record by record, since nobody
knows when the last one has come: such records are rejected, and the reason says what to do.
"""

from __future__ import annotations

from typing import Any

from cm2.checklist import Task
from cm2.errors import DataError
from cm2.formats.tasks import AUTO, read_task
from cm2.imports.detect import detect
from cm2.imports.groups import Aside, Own, place, read_own

OURS = ("openai", "huggingface", None)
"""What a row of `cm2.formats` may be taken for."""


def read_record(value: Any, header: dict[str, Any], format: str = AUTO) -> list[Task]:
    """The dialogues of a record.

    Raises:
        DataError: there is none in it, or not all of one.
    """
    if format != AUTO:
        return [read_task(value, format)] if isinstance(value, dict) else _no_dialogue()
    try:
        found = detect(value)
        if isinstance(value, dict) and isinstance(value.get("messages"), list) and found in OURS:
            return [read_task(value)]
        if found is None:
            return [read_task(value)] if isinstance(value, dict) else _no_dialogue()
        where = place(value, found)
        if isinstance(where, Aside):
            raise DataError(where.reason)
        if not isinstance(where, Own):
            fix = "import finished logs first (cm2 import), and monitor the folder of what it writes"
            raise DataError(f"a record of the format '{found}' is only a part of a dialogue", fix=fix)
        tasks = [read_task(draft.row()) for draft in read_own(value, found, header)]
    except RecursionError as error:
        raise DataError("nested too deeply to read") from error
    return tasks or _no_dialogue()


def _no_dialogue() -> list[Task]:
    raise DataError("there is no conversation in it")
