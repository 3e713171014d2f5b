"""Parquet: the same rows in columns, without loss.

A dialogue's tools and metadata have no fixed shape, and a Parquet struct would give every row the keys of all others.
So a column is text where every value of the first batch is text, a list of messages where they have the exact shape of
the Nemotron data set, and else JSON text, marked so in the column's metadata. What does not fit the columns that the
first batch made goes, as one JSON object, into the column `_rest`. So does the whole text of a row that is JSON but is
not read as such (an integer of thousands of digits); it is read back as that text.

Files of others keep such values in nested columns, where Arrow has given every struct the fields of all others and
filled them with null. A null field of a struct is therefore read as a field that is not there, at any depth: of tools,
schemas, arguments and messages. Where an object really held a null, that reads alike (a message's `"content": null`
is a message without content); a null that means something belongs into JSON text, which is read as it is. Nulls in
lists, in maps and of whole columns stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode, parse

BATCH = 512
REST = "_rest"
_MARK = {b"cm2": b"json"}
_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(_CALL))]))


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    type: str
    function: _Function


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str
    tool_calls: list[_ToolCall]


def read_parquet(file: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any] | bytes]]:
    """Records as (1-based number, row); bytes are the row's text, where it was written as that.

    Raises:
        DataError: the file is damaged.
    """
    number = 0
    try:
        table = pq.ParquetFile(file)
        marked = {field.name for field in table.schema_arrow if (field.metadata or {}).get(b"cm2") == b"json"}
        ours = table.schema_arrow.metadata is not None and b"cm2" in table.schema_arrow.metadata
        filled = [(field.name, cut) for field in table.schema_arrow if (cut := _unfilled(field.type)) is not None]
        for batch in table.iter_batches(batch_size=BATCH):
            for record in batch.to_pylist():
                number += 1
                for key, cut in filled:
                    if record[key] is not None:
                        record[key] = cut(record[key])
                yield number, _row(record, marked) if ours else record
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        where = Where(file=name, line=number + 1)
        raise DataError(f"the Parquet file is damaged: {error}", where=where, fix="fetch it again") from error


def _unfilled(type: pa.DataType) -> Callable[[Any], Any] | None:
    """What takes the null fields out of the structs in a value (which is not null) of this type; None where there are
    no structs."""
    if pa.types.is_struct(type):
        cuts = {field.name: _unfilled(field.type) for field in type}

        def of_struct(value: dict[str, Any]) -> dict[str, Any]:
            return {
                key: one if (cut := cuts[key]) is None else cut(one) for key, one in value.items() if one is not None
            }

        return of_struct
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        inner = _unfilled(type.value_type)
        if inner is None:
            return None
        return lambda value: [None if one is None else inner(one) for one in value]
    return None


def _row(record: dict[str, Any], marked: set[str]) -> dict[str, Any] | bytes:
    row = {}
    for key, value in record.items():
        if value is None:
            continue
        if key == REST:
            rest, error = parse(value.encode())
            if error is not None:
                return bytes(value.encode())
            row.update(rest)
        else:
            row[key] = parse(value.encode())[0] if key in marked else value
    return row


class ParquetSink:
    """Collects rows and writes them in batches; the first batch decides the columns."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._rows: list[dict[str, Any] | bytes] = []
        self._writer: pq.ParquetWriter | None = None
        self._schema = pa.schema([])

    def write(self, row: dict[str, Any] | bytes) -> None:
        """Add one row; bytes are the JSON text of one that is not read."""
        self._rows.append(row)
        if len(self._rows) >= BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is left and the file's end."""
        self._flush()
        assert self._writer is not None
        self._writer.close()

    def _flush(self) -> None:
        if self._writer is None:
            self._schema = _schema([row for row in self._rows if isinstance(row, dict)])
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        records = [self._record(row) for row in self._rows]
        self._writer.write_table(pa.Table.from_pylist(records, schema=self._schema))
        self._rows = []

    def _record(self, row: dict[str, Any] | bytes) -> dict[str, Any]:
        if isinstance(row, bytes):
            return {REST: row.decode(errors="replace")}
        record: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for key, value in row.items():
            at = self._schema.get_field_index(key)
            field = self._schema.field(at) if at >= 0 and key != REST else None
            if field is None:
                rest[key] = value
            elif field.metadata:
                record[key] = encode(value).decode()
            elif _is_text(value) if field.type == pa.string() else _is_messages(value):
                record[key] = value
            else:
                rest[key] = value
        if rest:
            record[REST] = encode(rest).decode()
        return record


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    fields = []
    for key, values in columns.items():
        if key == REST:
            continue
        if all(_is_text(value) for value in values):
            fields.append(pa.field(key, pa.string()))
        elif key == "messages" and all(_is_messages(value) for value in values):
            fields.append(pa.field(key, _MESSAGES))
        else:
            fields.append(pa.field(key, pa.string(), metadata=_MARK))
    return pa.schema([*fields, pa.field(REST, pa.string(), metadata=_MARK)], metadata={b"cm2": b"rows"})


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_messages(value: Any) -> bool:
    try:
        msgspec.json.encode(msgspec.convert(value, list[_Message], strict=True))
    except (msgspec.ValidationError, UnicodeEncodeError):  # a lone surrogate fits no column of text
        return False
    return True
