"""Formats: outside data to nouns and back without loss; rows of files, streamed and resumed."""

from cm2.formats.rows import Row, RowWriter, read_rows
from cm2.formats.store import Store
from cm2.formats.tasks import FORMATS, detect_format, read_row, read_task, read_tasks, write_row, write_task

__all__ = [
    "FORMATS",
    "Row",
    "RowWriter",
    "Store",
    "detect_format",
    "read_row",
    "read_rows",
    "read_task",
    "read_tasks",
    "write_row",
    "write_task",
]
