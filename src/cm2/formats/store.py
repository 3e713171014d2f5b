"""Store: an append-only JSONL file that survives being killed.

Every append is one whole line handed to the operating system at once. On opening, a last line that was torn by a crash
is cut off; what is left says, by its keys, which work is done. One process at a time may hold a store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode, parse
from cm2.formats.lock import lock_output

BLOCK = 1 << 20
_FIX = "take the line out, or give -o another name"


class Store:
    """An append-only JSONL file whose rows are known by `key(row)`.

    Args:
        path: a local file; made, with its folders, where it does not exist.
        key: from a row (as JSON values) to what identifies it.

    Attributes:
        done: the keys that the file holds.

    Raises:
        CM2Error: another process holds the store.
        DataError: the path is a folder, or a line of the file is not (the beginning of) a JSON object that has a key.
    """

    def __init__(self, path: str | os.PathLike[str], key: Callable[[dict[str, Any]], Hashable]):
        self.path, self._key = os.fspath(path), key
        if os.path.isdir(self.path):
            raise DataError("is a folder, not a file", where=Where(file=self.path), fix="name a file")
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
