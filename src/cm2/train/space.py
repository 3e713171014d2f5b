"""Space: what is going to be written must fit, and that is asked before the first byte.

A disk that fills up in the middle of a step costs more than the step: checkpoints fail one after the other while the
run goes on, and what was not yet saved is lost with the next kill. So a run looks before it begins, before every
checkpoint and before the rollouts of every update, and stops while everything on disk is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

from cm2.errors import CM2Error

RESERVE = 32 << 20
"""Bytes that stay free beside what is written: metrics, TensorBoard, the answers' cache, other programs."""
_FULL = (ENOSPC, EDQUOT, EFBIG)


class DiskFull(CM2Error):
    """There is no room for what comes next; nothing of it was written."""


def room(folder: Path) -> int:
    """Bytes that may still be written to the file system of a folder that exists, or whose parent does."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def need(folder: Path, bytes: int, what: str) -> None:
    """Make sure that there is room.

    Raises:
        DiskFull: there is not.
    """
    free = room(folder)
    if free < bytes + RESERVE:
        raise full(folder, what, f"{shown(bytes + RESERVE)} are needed, {shown(free)} are free")


def full(folder: Path, what: str, why: str) -> DiskFull:
    """The error that says so."""
    return DiskFull(
        f"no room for {what} in {folder}: {why}; nothing of it was written and what was saved before is whole",
        fix="free some room and run the same command again: it goes on from the last checkpoint",
    )


@contextmanager
def telling(folder: Path, what: str) -> Iterator[None]:
    """Turns the operating system's refusal of a full disk, quota or file size into `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full(folder, what, os.strerror(error.errno or ENOSPC)) from error


def shown(bytes: float) -> str:
    """A size for a person."""
    for size, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if bytes >= size:
            return f"{bytes / size:.1f} {unit}"
    return f"{bytes:.0f} bytes"
