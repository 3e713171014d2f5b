"""A file of labelled coffee tasks."""

from __future__ import annotations

from pathlib import Path

from cm2.formats import RowWriter, write_task
from rollout.coffee_task import task


def coffee_file(file: Path, count: int = 4) -> str:
    """Write `count` tasks that differ in their ids."""
    with RowWriter(str(file)) as writer:
        for number in range(count):
            one = task()
            one.dialogue.id = f"coffee-{number}"
            writer.write(write_task(one, "openai"))
    return str(file)
