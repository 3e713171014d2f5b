"""Stream: the records of files, folders and archives, whatever form they are kept in, one at a time.

Read are JSON lines, JSON documents, Parquet, each plain or compressed by gzip or zstd, zip archives of these, and
folders of all of them. A record that cannot be read is one with an `error`; it stops nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import IO, Any

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import open_rows, parse, read_lines
from cm2.formats.rows import SUFFIXES, files_of
from cm2.imports.archive import DAMAGED, members, open_member
from cm2.imports.documents import expand, read_values

PEEK = 1 << 20
"""Bytes at the beginning of a file that tell whether it is lines or a document."""
ARCHIVES = (".eval", ".zip")
_BATCH = 256
_SPACE = b" \t\r\n\xef\xbb\xbf"


class Record(msgspec.Struct):
    """A record of a log: an object or a list of messages, or why there is none.

    `line` is 1-based; `path` is where in the line, document or archive it stood. `header` is what its document said
    about all its records.
    """

    file: str
    value: Any = None
    line: int | None = None
    path: str = ""
    header: dict[str, Any] = {}
    error: str | None = None
    raw: str | None = None
    name: str = ""
    """The file as reports name it: without the folder that was given."""

    @property
    def at(self) -> dict[str, Any]:
        """Where it stood, for metadata and reports."""
        told = {"file": self.name or os.path.basename(self.file.rstrip("/")), "line": self.line, "path": self.path}
        return {key: value for key, value in told.items() if value}


def read_records(paths: Iterable[str]) -> Iterator[Record]:
    """The records of some files, folders or URLs.

    Raises:
        DataError: there is no such file, or a folder has none that can be read.
    """
    for path in paths:
        folder = path.rstrip("/") + "/"
        for file in log_files(path):
            for record in read_file(file):
                _, inside, name = file.partition(folder)
                record.name = name if inside else ""
                yield record


def log_files(path: str) -> list[str]:
    """The files that a path names: itself, or every log below a folder, sorted by name.

    Raises:
        DataError: there is nothing there.
    """
    fs, inner = fsspec.core.url_to_fs(path)
    if not fs.isdir(inner):
        return files_of(path)
    wanted = (*SUFFIXES, *ARCHIVES)
    root = inner.rstrip("/")
    found = sorted(name for name in fs.find(inner) if name.endswith(wanted) and "/." not in name[len(root) :])
    if not found:
        fix = f"expected files that end in {', '.join(wanted)}"
        raise DataError("is a folder without logs", where=Where(file=path), fix=fix)
    return [fs.unstrip_protocol(name) if "://" in path else name for name in found]


def read_file(file: str) -> Iterator[Record]:
    """The records of one file. One that cannot be read at all is a record with an error."""
    try:
        with fsspec.open(file, "rb", compression=None) as raw:
            if raw.read(4) == b"PK\x03\x04":
                raw.seek(0)
                yield from _archive(raw, file)
                return
        with open_rows(file) as (kind, handle):
            if kind == "parquet":
                yield from _parquet(handle, file)
                return
            lines = _are_lines(handle)
        with open_rows(file) as (kind, handle):
            yield from _lines(handle, file) if lines else _document(handle, file)
    except DataError as error:
        if error.where is None or error.where.line is None:
            yield Record(file, error=error.message)
        else:
            yield Record(file, line=error.where.line, error=error.message)


def _are_lines(handle: IO[bytes]) -> bool:
    """Whether the first line is a JSON value by itself and no list, or it is broken and a later one is an object."""
    try:
        head = handle.read(PEEK)
    except (*DAMAGED, OSError):
        return True  # the line reader tells of the damage
    begins = head.lstrip(_SPACE)
    first, newline, _ = begins.partition(b"\n")
    if begins.startswith(b"[") or not first.strip():
        return False
    if not newline and len(head) >= PEEK:
        return False
    return parse(first)[1] is None or any(
        line.startswith(b"{") and isinstance(parse(line)[0], dict)
        for line in map(bytes.strip, begins.split(b"\n")[1:-1])
    )


def _lines(handle: IO[bytes], file: str) -> Iterator[Record]:
    for number, line, error in read_lines(handle):
        if error is None:
            if not line.strip():
                continue
            value, error = parse(line)
            if error is None:
                for found in expand(value):
                    yield Record(file, found.value, number, found.path, found.header)
                continue
        yield Record(file, line=number, error=error, raw=line.decode(errors="replace").rstrip("\r\n"))


def _document(handle: IO[bytes], file: str, inside: str = "", header: dict[str, Any] | None = None) -> Iterator[Record]:
    try:
        for found in read_values(handle):
            path = f"{inside}{'#' if inside and found.path else ''}{found.path}"
            yield Record(file, found.value, None, path, {**(header or {}), **found.header}, found.error)
    except (*DAMAGED, OSError) as error:
        yield Record(file, path=inside, error=f"the file is damaged from here on: {error}")


def _archive(raw: IO[bytes], file: str) -> Iterator[Record]:
    header: dict[str, Any] = {}
    listed = members(raw, file)
    sampled = any(info.filename.startswith("samples/") for info in listed)
    for info in listed:
        name = info.filename
        if not name.endswith((".json", ".jsonl", ".ndjson")) or (
            sampled and not name.startswith("samples/") and name != "header.json"
        ):
            continue
        try:
            with open_member(raw, info) as handle:
                if name == "header.json":
                    value, error = parse(handle.read())
                    header = value if isinstance(value, dict) else {}
                    continue
                yield from _document(handle, file, name, header)
        except DAMAGED as error:
            yield Record(file, path=name, error=f"the member is damaged: {error}")


def _parquet(handle: IO[bytes], file: str) -> Iterator[Record]:
    number = 0
    try:
        table = pq.ParquetFile(handle)
        marked = {field.name for field in table.schema_arrow if (field.metadata or {}).get(b"cm2") == b"json"}
        for batch in table.iter_batches(batch_size=_BATCH):
            for row in _timeless(batch).to_pylist():
                number += 1
                plain = {key: _plain(one) for key, one in row.items() if one is not None}
                rest = plain.get("_rest")
                if "_rest" in marked and isinstance(rest, str) and (error := parse(rest.encode())[1]) is not None:
                    yield Record(file, line=number, error=error, raw=rest)  # a row that is kept as its text
                    continue
                plain |= {
                    key: parse(one.encode())[0] for key, one in plain.items() if key in marked and isinstance(one, str)
                }
                plain |= plain.pop("_rest", None) or {}
                for found in expand(plain):
                    yield Record(file, found.value, number, found.path, found.header)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OSError) as error:
        yield Record(file, line=number + 1, error=f"the Parquet file is damaged: {error}")


def _timeless(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its times as numbers: nanoseconds do not fit Python's own times."""
    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
            unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[column.type.unit]
            whole = column.cast(pa.int64())
            column = pa.array([None if one is None else one * unit for one in whole.to_pylist()], pa.int64())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it: fields that a struct lacks are left out, bytes and decimals become text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        if value and all(isinstance(one, tuple) and len(one) == 2 for one in value):  # a map
            return {str(key): _plain(one) for key, one in value}
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if value == value else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)
