"""Where rows go: lines for most trainers; for verl Parquet columns of a fixed shape, as pandas gives them to it.

The rows of `cm2.formats.parquet` are for this library: they keep what has no shape as JSON text. verl reads messages as
a column of structs. Tools have no common shape (a struct would give every tool the parameters of all others), so their
column is JSON text, which the data set class in `docs/improve.md` decodes.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from cm2.assure.export_formats import Format, Kind
from cm2.formats import RowWriter
from cm2.formats.lock import lock_output
from cm2.formats.target import replacing

BATCH = 512


def writer_for(path: str, kind: Kind, form: Format) -> RowWriter | Columns:
    """What writes rows of a form; a context manager that takes the path's name when all is written."""
    return Columns(path, kind) if form == "verl" else RowWriter(path)


def schema_of(kind: Kind) -> Any:
    """The columns that verl reads."""
    import pyarrow as pa

    text = pa.string()
    if kind == "rl":
        message = pa.struct([("role", text), ("content", text)])
        extra = pa.struct([("split", text), ("id", text), ("task", text), ("need_tools_kwargs", pa.bool_())])
        reward = pa.struct([("style", text), ("ground_truth", text)])
        return pa.schema(
            [
                ("data_source", text),
                ("prompt", pa.list_(message)),
                ("ability", text),
                ("reward_model", reward),
                ("extra_info", extra),
            ]
        )
    function = pa.struct([("name", text), ("arguments", text)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    message = pa.struct(
        [
            ("role", text),
            ("content", text),
            ("reasoning_content", text),
            ("tool_calls", pa.list_(call)),
            ("tool_call_id", text),
        ]
    )
    return pa.schema([("messages", pa.list_(message)), ("tools", text), ("learn", pa.list_(pa.int8())), ("id", text)])


class Columns:
    """Writes rows as Parquet, beside the output until all is written."""

    def __init__(self, path: str, kind: Kind):
        self._path, self._whole = path, replacing(path)
        self._schema = schema_of(kind)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Columns:
        import pyarrow.parquet as pq

        self._lock = lock_output(self._path)
        self._writer = pq.ParquetWriter(self._whole.__enter__(), self._schema)
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Write one row."""
        self._rows.append(row)
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._rows:
                self._flush()
            self._writer.close()
            self._whole.__exit__(kind, error, trace)
        finally:
            self._lock.release()
