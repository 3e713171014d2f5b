"""Rows: JSON objects in files, one a line or one a Parquet record, streamed in and out.

Reading never stops at a broken line: it becomes a `Row` with an `error` and the text as it stood. A file that is not
such a file at all (missing, empty, a folder without data, a picture, one JSON array over many lines) is a `DataError`.

Writing goes to a temporary file beside the output, which takes the output's name only when everything is written: a
killed run leaves the old output as it was. A link stays one, and a device or pipe is written straight into (see
`cm2.formats.target`). The name's suffix decides the form: .gz and .zst are compressed, .parquet is Parquet, everything
else is plain lines.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import msgspec
import zstandard
from fsspec.implementations.local import LocalFileSystem

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import BLOCK, encode, open_rows, parse, read_lines
from cm2.formats.lock import lock_output
from cm2.formats.parquet import ParquetSink, read_parquet
from cm2.formats.target import target_of

LOOKS_WRONG = 100
"""A file whose first so many lines are all no JSON is the wrong file."""
NO_OBJECT = "the row is "
"""How the error of a row begins that is JSON but no object."""
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet")


class Row(msgspec.Struct):
    """One row of a file. `value` is its JSON object, or what a caller's own `parse` made of the line.

    `line` is 1-based and runs on over the files of a folder. Where `error` is set, `value` is None and `raw` holds the
    text (bytes that are not UTF-8 replaced). A JSON value that is no object is such an error.

    `text` is the line's bytes without its end, None for a Parquet record that was kept in columns: what a writer hands
    on where the row did not change.
    """

    line: int
    value: Any
    raw: str | None = None
    error: str | None = None
    file: str = ""
    text: bytes | None = None


def parse_object(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The JSON object of a line and None, or None and why it is none."""
    value, error = parse(line)
    if error is None and not isinstance(value, dict):
        return None, f"{NO_OBJECT}{_named(value)}, not a JSON object"
    return value, error


def read_rows(
    path: str | os.PathLike[str], parse: Callable[[bytes], tuple[Any, str | None]] = parse_object
) -> Iterator[Row]:
    """Every row of a file, of the files of a folder, or of an fsspec URL, in order. Blank lines are passed over.

    Args:
        path: what to read.
        parse: makes a line's value, or says why there is none; Parquet records come as objects whatever it is.

    Raises:
        DataError: there is no such file, or it is not a file of rows.
    """
    first = 0
    for file in files_of(os.fspath(path)):
        last = first
        for row in _checked(_read_file(file, first, parse), file):
            last = row.line
            yield row
        first = last


def files_of(path: str) -> list[str]:
    """The data files that a path names: itself, or every row file below a folder that is not hidden, sorted by name.

    Raises:
        DataError: there is nothing there.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise DataError(f"cannot be opened: {error}", where=Where(file=path)) from error
    if fs.isdir(inner):
        root = inner.rstrip("/")
        found = sorted(name for name in fs.find(inner) if name.endswith(SUFFIXES) and "/." not in name[len(root) :])
        if not found:
            fix = f"expected files that end in {', '.join(SUFFIXES)}"
            raise DataError("is a folder without row files", where=Where(file=path), fix=fix)
        return [fs.unstrip_protocol(name) if "://" in path else name for name in found]
    if not fs.exists(inner):
        raise DataError("there is no such file", where=Where(file=path), fix="check the path")
    return [path]


def _read_file(file: str, first: int, parse: Callable[[bytes], tuple[Any, str | None]]) -> Iterator[Row]:
    with open_rows(file) as (kind, handle):
        if kind == "parquet":
            number = 0
            for number, record in read_parquet(handle, file):
                if isinstance(record, dict):
                    yield Row(first + number, record, file=file)
                else:
                    yield _row(first + number, record, *parse(record), file)
            if not number:
                raise DataError("the file has no rows", where=Where(file=file))
            return
        for number, line, error in read_lines(handle):
            value: Any = None
            if error is None:
                line = line.rstrip(b"\r\n")
                if not line or line.isspace():
                    continue
                value, error = parse(line)
            yield _row(first + number, line, value, error, file)


def _row(number: int, line: bytes, value: Any, error: str | None, file: str) -> Row:
    if error is None:
        return Row(number, value, file=file, text=line)
    return Row(number, None, line.decode(errors="replace"), error, file, line)


def _named(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _checked(rows: Iterator[Row], file: str) -> Iterator[Row]:
    """The same rows; the file is refused while it has shown nothing but lines that are no JSON."""
    held: list[Row] = []
    for row in rows:
        array = not held and (row.raw or "").lstrip().startswith("[")
        if row.error is None or (row.error.startswith(NO_OBJECT) and not array):
            yield from held
            yield row
            yield from rows
            return
        held.append(row)
        if len(held) >= LOOKS_WRONG or (array and not row.error.startswith(NO_OBJECT)):
            raise _wrong_file(held, file)
    if held:
        raise _wrong_file(held, file)
    raise DataError("the file has no rows, only blank lines", where=Where(file=file))


def _wrong_file(rows: list[Row], file: str) -> DataError:
    first = rows[0]
    text = (first.raw or "").strip()
    if text.startswith("["):
        fix = "a JSON array? make lines of it: jq -c '.[]' FILE > FILE.jsonl"
    elif text == "{":
        fix = "one JSON object over many lines? put each on one line: jq -c . FILE > FILE.jsonl"
    else:
        fix = "expected JSON lines (plain, .gz or .zst) or Parquet"
    many = f"none of the first {len(rows)} lines is a row" if len(rows) > 1 else "it does not begin with a row"
    return DataError(f"{many}; {first.error}", where=Where(file=file, line=first.line), fix=fix)


def check_output(path: str) -> tuple[Any, str]:
    """The file system of an output and its name there.

    Raises:
        DataError: the path is a folder or an unknown URL.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise DataError(f"cannot be opened: {error}", where=Where(file=path)) from error
    if fs.isdir(inner):
        raise DataError("is a folder, not a file", where=Where(file=path), fix="name a file in it")
    return fs, inner


class RowWriter:
    """Writes rows to a file that appears, whole, when the `with` block ends without an exception.

    Args:
        path: a file name or fsspec URL; folders are made. What is there and no regular file is written straight into.

    Raises:
        CM2Error: another run is writing the same output.
        DataError: the path is a folder or an unknown URL.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._fs, self._target = check_output(self.path)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._straight = False
        if self._local:
            self._target, self._straight = target_of(self._target)
        folder, name = os.path.split(self._target)
        self._temporary = self._target if self._straight else os.path.join(folder, f".{name}.partial")
        self._lock = contextlib.ExitStack()
        if not self._straight:  # of which several runs may well write into one
            self._lock.callback(lock_output(self.path).release)
        self.count = 0

    def __enter__(self) -> RowWriter:
        self.count = 0
        try:
            with self._named():
                self._open()
        except BaseException:
            try:
                self._discard()
            finally:
                self._lock.close()
            raise
        return self

    def _open(self) -> None:
        self._file: Any = None
        self._raw: Any = None
        self._parquet: ParquetSink | None = None
        if self._local:
            os.makedirs(os.path.dirname(self._target) or ".", exist_ok=True)
            self._raw = open(self._temporary, "wb", buffering=BLOCK)  # noqa: SIM115 - closed by __exit__
        else:
            self._raw = self._fs.open(self._temporary, "wb")
        self._file = self._raw
        if self.path.endswith(".gz"):
            self._file = gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0)
        elif self.path.endswith(".zst"):
            self._file = zstandard.ZstdCompressor().stream_writer(self._raw, closefd=False)
        elif self.path.endswith(".parquet"):
            self._parquet = ParquetSink(self._raw)

    def write(self, obj: Any) -> None:
        """Write one row: a JSON object or a Struct."""
        self.count += 1
        with self._named():
            if self._parquet is not None:
                self._parquet.write(msgspec.to_builtins(obj))
            else:
                self._file.write(encode(obj) + b"\n")

    def write_text(self, line: bytes) -> None:
        """Write one row that is JSON text already, without its line end."""
        if self._parquet is not None:
            value, error = parse(line)
            if error is None:
                self.write(value)
                return
            self.count += 1
            with self._named():
                self._parquet.write(line)
        else:
            self.count += 1
            try:  # not `_named`: a context manager takes as long as the writing
                self._file.write(line)
                self._file.write(b"\n")
            except OSError as error:
                error.filename = self.path
                raise

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What the operating system refuses names the output."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        whole = False
        try:
            if kind is None:
                with self._named():
                    self._finish()
                whole = True
        finally:
            try:
                if not whole:
                    self._discard()
            finally:
                self._lock.close()

    def _finish(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if self._file is not self._raw:
            self._file.close()
        if self._straight:
            self._raw.close()
        elif self._local:
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            os.replace(self._temporary, self._target)
        else:
            if not self._raw.closed:
                self._raw.close()
            self._fs.mv(self._temporary, self._target)

    def _discard(self) -> None:
        """Close without keeping. A full disk may refuse the last bytes of what is thrown away anyway."""
        for file in (self._file, self._raw):
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()
        if not self._straight and self._fs.exists(self._temporary):
            self._fs.rm(self._temporary)
