"""Target: the file that an output's name stands for, and whether a finished draft may take that name.

What is written whole is a draft beside the file until it is complete, and then takes the file's place. Behind a
symbolic link that is the place of the file that the link points to, so the link stays and what it names is new. A
device or a named pipe has no place to take: to rename a draft over it would destroy it, so it is written straight into.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Target(NamedTuple):
    """Where an output goes."""

    path: str
    """What is written into or replaced."""
    straight: bool
    """Whether it is there and no regular file: written into, never replaced."""


def target_of(path: str) -> Target:
    """Where an output of this (local) name goes. A folder is for the caller to refuse."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # nothing there yet, or a link to nothing
        return Target(os.path.realpath(path), False)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return Target(os.path.realpath(path), False)
    return Target(path, True)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name to write a file under that appears whole, under `path`, when the block ends without an exception."""
    real, straight = target_of(os.fspath(path))
    if straight:
        yield Path(real)
        return
    target = Path(real)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
