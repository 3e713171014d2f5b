"""Store: an append-only JSONL file that survives being killed.

Every append is one whole line handed to the operating system at once. On opening, a last line that was torn by a crash
is cut off; what is left says, by its keys, which work is done. One process at a time may hold a store.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable
from typing import Any

from cm2.errors import ConfigError, DataError, Where
from cm2.formats.jsonlines import encode, parse
from cm2.formats.lock import lock_output

BLOCK = 1 << 20
FORMS = (".gz", ".zst", ".parquet")
"""Endings that promise another form than lines, which can be appended to."""
_FIX = "take the line out, or give -o another name"


def check_store(path: str | os.PathLike[str]) -> None:
    """Make sure that a name can be a store's.

    Raises:
        ConfigError: its ending promises a form that cannot be appended to, or there is a pipe or the like.
        DataError: it is a folder.
    """
    path = os.fspath(path)
    where = Where(file=path)
    if os.path.isdir(path):
        raise DataError("is a folder, not a file", where=where, fix="name a file")
    form = next((form for form in FORMS if path.endswith(form)), None)
    if form is not None:
        message = f"is appended to row by row, as plain JSON lines, which {form} is not"
        raise ConfigError(message, where=where, fix="give -o a name that ends in .jsonl")
    if os.path.exists(path) and not (os.path.isfile(path) or stat.S_ISCHR(os.stat(path).st_mode)):
        message = "is no file, and what is appended to must be one, to go on where a killed run stopped"
        raise ConfigError(message, where=where, fix="name a file")


class Store:
    """An append-only JSONL file whose rows are known by `key(row)`.

    Args:
        path: a local file; made, with its folders, where it does not exist.
        key: from a row (as JSON values) to what identifies it.

    Attributes:
        done: the keys that the file holds.

    Raises:
        CM2Error: another process holds the store.
        ConfigError: the name promises compression or Parquet, or there is a pipe.
        DataError: the path is a folder, or a line of the file is not (the beginning of) a JSON object that has a key.
    """

    def __init__(self, path: str | os.PathLike[str], key: Callable[[dict[str, Any]], Hashable]):
        self.path, self._key = os.fspath(path), key
        check_store(self.path)
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        self._lock = lock_output(self.path)
        self._file = -1
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            self._end = self._cut_torn_line()
            self.done: set[Hashable] = self._keys()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, obj: Any) -> None:
        """Add one row (JSON values or a Struct). A line that could not be written whole is taken back.

        Raises:
            OSError: the disk is full or the file is gone.
        """
        line = encode(obj) + b"\n"
        key = self._key(parse(line)[0])
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
        except BaseException as error:
            os.ftruncate(self._file, self._end)
            os.lseek(self._file, self._end, os.SEEK_SET)
            if isinstance(error, OSError):
                error.filename = self.path
            raise
        self._end += len(line)
        self.done.add(key)

    def close(self) -> None:
        """Close the file and let others have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()

    def _cut_torn_line(self) -> int:
        end = whole = os.fstat(self._file).st_size
        while whole:
            start = max(0, whole - BLOCK)
            os.lseek(self._file, start, os.SEEK_SET)
            newline = os.read(self._file, whole - start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        os.lseek(self._file, whole, os.SEEK_SET)
        if whole != end and os.read(self._file, 1) not in (b"{", b"\0"):  # a lost block reads as zeros
            where = Where(file=self.path)
            raise DataError("its last line is not the beginning of a row of this store", where=where, fix=_FIX)
        if whole != end:
            os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)
        return whole

    def _keys(self) -> set[Hashable]:
        done = set()
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                row, wrong = parse(line)
                try:
                    if wrong is None:
                        done.add(self._key(row))
                except (KeyError, TypeError, AttributeError) as error:
                    wrong = f"{type(error).__name__}: {error}"
                if wrong is not None:
                    where = Where(file=self.path, line=number)
                    raise DataError(f"is not a row of this store: {wrong}", where=where, fix=_FIX)
        return done
