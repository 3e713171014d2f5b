"""Log: what a monitor did, row by row: the one truth that everything else is folded from.

Each row moves the position in one file of the input, and says what was found there: a dialogue with how its duties came
out, rows that are none, rows that were read before. A dialogue counts when its row is whole in the log; its verdicts
were written just before, and whatever stands in their store behind the last row is cut off when a killed monitor goes
on. So a kill at any moment loses nothing and counts nothing twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode

Result = Literal["pass", "fail", "not_applicable", "unscored"]
_FIX = "restore the folder from a backup, or give -o another one"


class Why(msgspec.Struct, omit_defaults=True):
    """Where and why a duty failed or was not decided."""

    turn: int
    reason: str
    owner: str = ""


class File(msgspec.Struct, tag_field="row", tag="file"):
    """A file is known from now on as `file`, or has another name."""

    file: int
    path: str
    device: int = 0
    inode: int = 0
    mark: str = ""
    """Size and time of a file that was read to its end, where it cannot grow line by line."""


class Came(msgspec.Struct, tag_field="row", tag="dialogue", omit_defaults=True):
    """A dialogue was judged."""

    file: int
    offset: int
    """Where the next row begins: bytes of a file of lines, records of any other."""
    line: int
    at: float
    """When, as seconds since 1970."""
    dialogue: str
    digest: str
    """Of its content; the same content is not counted again."""
    results: dict[str, Result]
    """How each duty came out over the dialogue; see `monitor_judge.over`."""
    rollout: str = ""
    why: dict[str, Why] = {}
    verdicts: int = 0
    """Bytes of the verdict store with this dialogue's."""
    kept: int = 0
    """Bytes of the kept dialogues."""
    tail: str = ""
    """A digest of what stands before `offset`: a file in which something else stands there is another file."""
    lost: dict[str, int] = {}
    """Verdicts that a judge, its provider or a broken item failed to give, by whose failure it is."""
    cost: float = 0.0


class Passed(msgspec.Struct, tag_field="row", tag="passed", omit_defaults=True):
    """Rows that were no new dialogue."""

    file: int
    offset: int
    line: int
    at: float
    repeated: int = 0
    """Rows of the same content as an earlier one."""
    rejected: int = 0
    reason: str = ""
    digest: str = ""
    """Of the rejected row; it is rejected once."""
    tail: str = ""


class Judge(msgspec.Struct, tag_field="row", tag="judge", omit_defaults=True):
    """By whom and by what is judged from now on."""

    at: float
    judge: str
    duties: dict[str, str] = {}
    """Of each duty a digest: what is known of one that changed is forgotten."""


Event = File | Came | Passed | Judge
_EVENT = msgspec.json.Decoder(Event)


class Light(msgspec.Struct):
    """As much of a row as says what was seen."""

    dialogue: str = ""
    digest: str = ""


class Lines:
    """A file to whose end whole lines are added.

    Args:
        path: made, with its folders, where it does not exist.
        end: bytes that count; what stands behind them is cut off. None: up to the last whole line.

    Raises:
        DataError: the file is shorter than that.
    """

    def __init__(self, path: str, end: int | None = None):
        self.path = path
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        size = os.fstat(self._file).st_size
        if end is not None and size < end:
            os.close(self._file)
            message = f"has {size} bytes, and the log says {end}: something took them away"
            raise DataError(message, where=Where(file=path), fix=_FIX)
        self.end = _whole(path, size) if end is None else end
        if self.end < size:
            os.ftruncate(self._file, self.end)
        os.lseek(self._file, self.end, os.SEEK_SET)

    def add(self, *rows: object) -> None:
        """Add rows, all of them in one go. What could not be written whole is taken back."""
        if not rows:
            return
        block = b"".join(encode(row) + b"\n" for row in rows)
        try:
            view = memoryview(block)
            while view:
                view = view[os.write(self._file, view) :]
        except BaseException as error:
            os.ftruncate(self._file, self.end)
            os.lseek(self._file, self.end, os.SEEK_SET)
            if isinstance(error, OSError):
                error.filename = self.path
            raise
        self.end += len(block)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_log(path: str, start: int = 0, light: Callable[[Light], None] | None = None) -> Iterator[tuple[int, Event]]:
    """Every row from byte `start` on with the byte behind it; a torn last line (a killed run) is left out. Of the rows
    before, `light` is told.

    Raises:
        DataError: a line is no row of a log.
    """
    if not os.path.exists(path):
        return
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if end < start:
                end += len(line)
                if light is not None:
                    light(_LIGHT.decode(line))
                continue
            if not line.endswith(b"\n"):
                return
            try:
                event = _EVENT.decode(line)
            except msgspec.DecodeError as error:
                where = Where(file=path, line=number)
                raise DataError(f"this is no row of a monitor's log: {error}", where=where, fix=_FIX) from error
            end += len(line)
            yield end, event


_LIGHT = msgspec.json.Decoder(Light)


def _whole(path: str, size: int) -> int:
    """Bytes up to the end of the last whole line."""
    with open(path, "rb") as file:
        at = size
        while at:
            start = max(0, at - (1 << 20))
            file.seek(start)
            newline = file.read(at - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            at = start
    return 0
