"""JSON lines: from bytes to JSON values and back, one line at a time.

What a file is, is seen from its first bytes (plain, gzip, zstd or Parquet), not from its name. A line that is broken,
too long or behind the damaged part of a compressed file is told with its number; it stops nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import msgspec
import zstandard

from cm2.errors import DataError, Where
from cm2.formats.pipe import open_bytes

MAX_LINE = 64 << 20
"""Bytes of one line; of a longer one only the beginning is kept, as an error."""
KEPT_OF_LONG_LINE = 10_000
BLOCK = 1 << 20
"""Bytes that are decompressed at once."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PAR1": "parquet"}
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def encode(obj: Any) -> bytes:
    """JSON text, without a line end, of JSON values or Structs. Lone surrogates, which UTF-8 cannot hold, stay escaped;
    NaN, which JSON cannot hold, becomes null."""
    try:
        return _encode(obj)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(obj), separators=(",", ":")).encode()


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: whether it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse(line: bytes) -> tuple[Any, str | None]:
    """The JSON value of a line and None, or None and why it is not JSON.

    A byte order mark is passed over. NaN and lone surrogates, which Python's own writer makes, are read.
    """
    try:
        return _decode(line), None
    except RecursionError:
        return None, "nested too deeply to read"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_slowly(line)


def _parse_slowly(line: bytes) -> tuple[Any, str | None]:
    try:
        return json.loads(line.removeprefix(_BOM).decode()), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: {error.reason} at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        return None, f"not JSON that can be read: {error}"


@contextlib.contextmanager
def open_rows(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Open a row file (path or fsspec URL) as ("lines", its decompressed bytes) or ("parquet", its bytes).

    Raises:
        ConfigError: it is a pipe.
        DataError: the file is empty.
    """
    with open_bytes(path) as raw, contextlib.ExitStack() as stack:
        head = raw.read(4)
        raw.seek(0)
        if not head:
            raise DataError("the file is empty", where=Where(file=path), fix="check that the step before it ended well")
        kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "lines")
        if kind == "gzip":
            yield "lines", cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        elif kind == "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            yield "lines", stack.enter_context(io.BufferedReader(reader, BLOCK))
        elif kind == "lines":
            yield kind, stack.enter_context(io.BufferedReader(cast(Any, raw), BLOCK))
        else:
            yield kind, raw


def read_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, str | None]]:
    """The lines as (1-based number, bytes with their line end, error or None). Blank lines come too."""
    number = 0
    readline = file.readline
    while True:
        number += 1
        try:
            line = readline(MAX_LINE)
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                start, size = line[:KEPT_OF_LONG_LINE], len(line)
                while line and not line.endswith(b"\n"):
                    line = readline(MAX_LINE)
                    size += len(line)
                yield number, start, f"the line has {size:,} bytes; at most {MAX_LINE:,} are read"
                continue
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            yield number, b"", f"the compressed file is damaged from here on: {error}"
            return
        if not line:
            return
        yield number, line, None
