"""Files: what is new in a folder that grows, or in a stream, since it was last looked at.

A file of plain lines is followed by bytes: what was added since, whole lines only; a last line without an end waits.
It is known by device and inode, so a rotated file goes on under its new name; one that was cut (copied and emptied), or
in which something else stands before the place that was reached, is another file and read from its beginning. Files
that cannot grow by lines (compressed, Parquet, JSON documents, archives) are read whole once they are still.

Which rows were seen before is decided by content, not by place (`monitor`), so reading a copy again counts nothing.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from cm2.assure.monitor_log import File
from cm2.assure.monitor_state import At
from cm2.errors import ConfigError, DataError, Where
from cm2.formats.jsonlines import MAX_LINE, encode, parse
from cm2.imports.stream import read_file

STREAM = "-"
MOST = 1000
"""Rows of a stream that are taken at once."""
OWN = frozenset({"log.jsonl", "verdicts.jsonl", "dialogues.jsonl", "alerts.jsonl", "deliveries.jsonl", "state.json"})
"""What a monitor writes into its folder (`monitor_book`)."""
_LINES = re.compile(r"\.(jsonl|ndjson)([.-][\w.-]*\d[\w.-]*)?$")
_WHOLE = re.compile(r"\.(jsonl|ndjson|json)([.-][\w.-]*\d[\w.-]*)?\.(gz|zst)$|\.(json|parquet|eval|zip)$")
_TAIL = 256


class Row(msgspec.Struct):
    """One row of the input. `offset` is where the next one begins; `error` says why it has no value."""

    file: int
    path: str
    offset: int
    line: int
    tail: str
    value: Any = None
    header: dict[str, Any] = {}
    error: str | None = None
    raw: str = ""

    @property
    def digest(self) -> str:
        """Of its content: the same for a row that was read from a compressed copy."""
        content = encode(self.value) if self.error is None else self.raw.encode(errors="replace")
        return hashlib.blake2b(content, digest_size=8).hexdigest()


class Folder:
    """A file, or the files of a folder.

    Args:
        path: of the file or folder. It need not exist yet.
        files: how far each was read, by number; what the log says.
        told: takes in that a file is known, or known otherwise, from now on.
        settle: seconds after which a file that did not change is taken for finished.
    """

    def __init__(self, path: str, files: dict[int, At], told: Callable[[File], None], settle: float = 60.0):
        self._path, self.files, self._told, self._settle = path, files, told, settle
        self._looked: dict[int, tuple[int, int]] = {}
        self.unread = 0
        """Bytes that were not read when it was last looked at."""
        self.unreadable: dict[str, str] = {}
        """Files that could not be read, with the reason."""

    def paths(self) -> list[str]:
        """The files that there are, those that were changed first first."""
        if os.path.isfile(self._path):
            return [self._path]
        found: list[tuple[int, str]] = []
        for folder, _, names in os.walk(self._path):
            for name in names:
                if not name.startswith(".") and (_LINES.search(name) or _WHOLE.search(name)):
                    path = os.path.join(folder, name)
                    try:
                        found.append((os.stat(path).st_mtime_ns, path))
                    except OSError:  # rotated away meanwhile
                        continue
        return [path for _, path in sorted(found)]

    def new(self) -> Iterator[Row]:
        """The rows that came since."""
        self.unread, self.unreadable = 0, {}
        for path in self.paths():
            try:
                with open(path, "rb") as file:
                    stat = os.fstat(file.fileno())
                    if _WHOLE.search(path) and not _LINES.search(path):
                        yield from self._whole(path, stat)
                    else:
                        yield from self._lines(path, file, stat)
            except FileNotFoundError:
                continue  # rotated away meanwhile: it comes under its new name
            except (OSError, DataError) as error:
                self.unreadable[path] = error.message if isinstance(error, DataError) else str(error)

    def _known(self, path: str, stat: os.stat_result) -> int | None:
        """The number of the file, where it is known. The latest, of several in one place."""
        found = None
        for number, at in self.files.items():
            if (at.device, at.inode) == (stat.st_dev, stat.st_ino):
                found = number
        if found is not None and self.files[found].path != path:
            at = self.files[found]
            self._told(File(found, path, stat.st_dev, stat.st_ino, at.mark))
        return found

    def _new(self, path: str, stat: os.stat_result) -> int:
        number = max(self.files, default=0) + 1
        self._told(File(number, path, stat.st_dev, stat.st_ino))
        return number

    def _lines(self, path: str, file: IO[bytes], stat: os.stat_result) -> Iterator[Row]:
        number = self._known(path, stat)
        if number is not None:
            at = self.files[number]
            if self._looked.get(number) == (stat.st_size, stat.st_mtime_ns) and stat.st_size == at.offset:
                return
            if stat.st_size < at.offset or (at.offset and at.tail and _tail_of(file, at.offset) != at.tail):
                number = None  # cut, or another file in the same place
        if number is None:
            number = self._new(path, stat)
        at = self.files[number]
        offset, line = at.offset, at.line
        still = time.time() - stat.st_mtime >= self._settle
        file.seek(offset)
        before = _before(file, offset)
        while True:
            text = file.readline(MAX_LINE)
            if not text:
                break
            if not text.endswith(b"\n"):
                if len(text) >= MAX_LINE:
                    while text and not text.endswith(b"\n"):
                        offset, before = offset + len(text), text[-_TAIL:]
                        text = file.readline(MAX_LINE)
                    offset, line = offset + len(text), line + 1
                    before = (before + text)[-_TAIL:]
                    said = f"the line has more than {MAX_LINE:,} bytes"
                    yield Row(number, path, offset, line, _digest(before), error=said, raw=f"{path}:{line}")
                    continue
                if not (still and text.strip() and parse(text)[1] is None):
                    self.unread += len(text)
                    break
            offset, line = offset + len(text), line + 1
            before = (before + text)[-_TAIL:]
            if text.strip():
                value, error = parse(text)
                raw = "" if error is None else text.decode(errors="replace").rstrip("\r\n")
                yield Row(number, path, offset, line, _digest(before), value, {}, error, raw)
        self._looked[number] = (stat.st_size, stat.st_mtime_ns)

    def _whole(self, path: str, stat: os.stat_result) -> Iterator[Row]:
        number = self._known(path, stat)
        mark = f"{stat.st_size}-{stat.st_mtime_ns}"
        if number is not None and self.files[number].mark == mark:
            return
        if not stat.st_size or time.time() - stat.st_mtime < min(self._settle, 2.0):
            self.unread += stat.st_size  # perhaps somebody still writes it
            return
        if number is None or self.files[number].mark:
            number = self._new(path, stat)
        done = self.files[number].offset
        records = 0
        for records, record in enumerate(read_file(path), 1):
            if records > done:
                raw = record.raw or f"{path}:{records}"
                line = record.line or records
                yield Row(number, path, records, line, "", record.value, record.header, record.error, raw)
        self._told(File(number, path, stat.st_dev, stat.st_ino, mark))


class Stream:
    """Standard input, or any other stream of lines. Where it stands cannot be gone back to: what was read and not yet
    judged when the monitor was killed must be sent again; what was judged is then recognised by its content."""

    def __init__(self, file: IO[bytes], files: dict[int, At], told: Callable[[File], None]):
        found = next((number for number, at in files.items() if at.path == STREAM), None)
        self.files = files
        self._number = found if found is not None else max(files, default=0) + 1
        if found is None:
            told(File(self._number, STREAM))
        self._at = files[self._number].line
        self._lines: queue.Queue[bytes | None] = queue.Queue(1000)
        self._back: list[Row] = []
        self.unread, self.unreadable, self.ended = 0, dict[str, str](), False
        threading.Thread(target=self._read, args=(file,), daemon=True).start()

    def _read(self, file: IO[bytes]) -> None:
        try:
            for line in file:
                self._lines.put(line)
        finally:
            self._lines.put(None)

    def give_back(self, rows: list[Row]) -> None:
        """Take rows back that could not be judged; they come first the next time."""
        self._back = rows + self._back

    def new(self, wait: float) -> Iterator[Row]:
        """What is there now, at most `MOST` rows and after at most `wait` seconds for the first."""
        while self._back:
            yield self._back.pop(0)
        end = self._at + MOST
        try:
            line = self._lines.get(timeout=wait)
            while line is not None:
                self._at += 1
                if line.strip():
                    value, error = parse(line)
                    raw = "" if error is None else line.decode(errors="replace").rstrip("\r\n")
                    yield Row(self._number, STREAM, self._at, self._at, "", value, {}, error, raw)
                if self._at >= end:
                    return
                line = self._lines.get_nowait()
            self.ended = True
        except queue.Empty:
            return


def check_input(path: str, state: str) -> None:
    """Make sure that there is something to look at; a folder may still be empty.

    Args:
        path: what is watched.
        state: the monitor's folder. What it writes must not be read: every row would make another, without an end.

    Raises:
        DataError: there is no such file or folder.
        ConfigError: the monitor's folder is the watched one or lies in it, or the watched file is one of its own.
    """
    if path == STREAM:
        return
    if not os.path.exists(path):
        raise DataError("there is no such file or folder", where=Where(file=path), fix="check the path, or make it")
    watched, own = os.path.realpath(path), os.path.realpath(state)
    if os.path.isdir(watched):
        if os.path.commonpath((watched, own)) == watched:
            place = f"is the watched folder {path}" if watched == own else f"lies in the watched folder {path}"
            said = f"{state} {place}: the monitor would read its own files without an end"
            raise ConfigError(said, fix="give -o a folder outside of it")
    elif os.path.dirname(watched) == own and os.path.basename(watched) in OWN:
        said = f"{path} is a file of the monitor's own folder {state}: it would read what it writes, without an end"
        raise ConfigError(said, fix="watch the agent's log, or give -o another folder")


def _before(file: IO[bytes], offset: int) -> bytes:
    """Up to 256 bytes before a place; the file stands at the place afterwards."""
    file.seek(max(0, offset - _TAIL))
    return file.read(min(offset, _TAIL))


def _tail_of(file: IO[bytes], offset: int) -> str:
    return _digest(_before(file, offset))


def _digest(tail: bytes) -> str:
    return hashlib.blake2b(tail, digest_size=4).hexdigest()
