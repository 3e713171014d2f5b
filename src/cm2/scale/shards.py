"""Shard: one file of a folder (or object store), worked on by itself, into files of the same name.

A shard knows how many lines stand before it, so that what is told about a row names the same line as a run over the
whole folder does. Parquet files say how many rows they hold; lines of other files are counted.
"""

from __future__ import annotations

import hashlib
import os

import fsspec
import msgspec
import pyarrow.parquet as pq

from cm2.errors import ConfigError
from cm2.formats.jsonlines import open_rows, read_lines
from cm2.formats.rows import files_of

NOTES = "_shards"
"""The folder, below the output, of what is noted of each shard; its files' suffix is that of no file of rows."""


class Shard(msgspec.Struct, frozen=True):
    """One file of the input."""

    name: str
    """Its path below the input: what its outputs are called."""
    path: str
    lines_before: int = 0

    def below(self, folder: str) -> str:
        """The file of this shard in an output folder."""
        return f"{folder.rstrip('/')}/{self.name}"


def shards_of(path: str) -> list[Shard]:
    """The shards of a folder or URL, in the order in which a run over the whole folder reads them.

    Raises:
        DataError: there is nothing there.
        ConfigError: it is a single file.
    """
    files = files_of(path)
    if files == [path]:
        raise ConfigError(
            f"{path} is one file", fix="--engine ray works on a folder of files; without it one file streams"
        )
    root = path if "://" in path else os.path.abspath(path)
    found, before = [], 0
    for file in files:
        whole = file if "://" in path else os.path.abspath(file)
        found.append(Shard(os.path.relpath(whole, root), whole, before))
        before += _lines(file)
    return found


def _lines(file: str) -> int:
    """The number of the last line with something on it."""
    with open_rows(file) as (kind, handle):
        if kind == "parquet":
            return int(pq.ParquetFile(handle).metadata.num_rows)
        return max((number for number, line, _ in read_lines(handle) if line.strip()), default=0)


def fingerprint(shard: Shard, *told: str) -> str:
    """What must not have changed for a shard that is done to stay done: its file (by size and time), and `told`."""
    fs, inner = fsspec.core.url_to_fs(shard.path)
    info = fs.info(inner)
    marks = [str(info.get(key)) for key in ("size", "mtime", "ETag", "etag", "LastModified", "last_modified")]
    return hashlib.blake2b("\n".join([*marks, *told]).encode(), digest_size=12).hexdigest()
