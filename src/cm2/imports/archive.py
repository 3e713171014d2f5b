"""Archives: the members of a zip file as streams, in the order of the file, its header first.

Inspect's `.eval` is such a file. Its members are compressed by zstd (method 93 of the zip format), which Python's
zipfile reads only since 3.14, so their bytes are found by the zip's directory and decompressed here.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import zstandard

from cm2.errors import DataError, Where

ZSTD = 93
BLOCK = 1 << 20
_LOCAL = struct.Struct("<4s22xHH")
DAMAGED = (zipfile.BadZipFile, zlib.error, zstandard.ZstdError, EOFError, NotImplementedError, struct.error, ValueError)
"""What reading a damaged archive raises."""


def members(file: IO[bytes], name: str) -> list[zipfile.ZipInfo]:
    """The members of an archive: `header.json` first, then as they stand.

    Raises:
        DataError: the archive is damaged.
    """
    try:
        found = [info for info in zipfile.ZipFile(file).infolist() if not info.is_dir()]
    except DAMAGED as error:
        fix = "a log of a run that was killed? export it again"
        raise DataError(f"the archive is damaged: {error}", where=Where(file=name), fix=fix) from error
    return sorted(found, key=lambda info: info.filename != "header.json")


@contextmanager
def open_member(file: IO[bytes], info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """A member's bytes, decompressed."""
    if info.compress_type != ZSTD:
        with zipfile.ZipFile(file).open(info) as handle:
            yield handle
        return
    file.seek(info.header_offset)
    mark, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    if mark != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member does not begin where the directory says")
    file.seek(name + extra, io.SEEK_CUR)
    source = cast(IO[bytes], io.BytesIO(file.read(info.compress_size)))
    with zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as reader:
        yield cast(IO[bytes], io.BufferedReader(reader, BLOCK))
