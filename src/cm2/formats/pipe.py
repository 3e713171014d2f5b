"""Pipe: an input that can be read only once, made one that can be read as often as it is needed.

A file is read from its start more than once: for its first bytes, its digest, its rows. So the command puts what a pipe
says that it was started with (`/dev/stdin`, a shell's `<(…)`) once into a file without a name, which takes the pipe's
place and ends with the process: `keep_pipes`. A named pipe has no place that another file could take; it is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from typing import IO

import fsspec

from cm2.errors import ConfigError, Where

BLOCK = 1 << 20
_DESCRIPTORS = "/proc/self/fd"
"""Where it exists, to open a descriptor's name is to open its file from the start."""
_NAME = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d+)")


def keep_pipes(names: Iterable[str]) -> None:
    """Put a file that holds what it says in the place of every pipe among these names that the process was given."""
    if not os.path.isdir(_DESCRIPTORS):
        return
    import fcntl

    for name in names:
        if (match := _NAME.fullmatch(name)) is None or not is_pipe(name):
            continue
        number = int(match[1] or 0)
        if number and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            continue  # an output
        with tempfile.TemporaryFile() as kept:
            with open(number, "rb", buffering=0, closefd=False) as pipe:
                shutil.copyfileobj(pipe, kept, BLOCK)
            kept.seek(0)
            os.dup2(kept.fileno(), number)


def is_pipe(path: str) -> bool:
    """Whether a pipe or socket has this name."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a URL, or nothing
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def no_pipe(path: str) -> None:
    """Make sure that an input can be read more than once.

    Raises:
        ConfigError: it is a pipe.
    """
    if is_pipe(path):
        fix = "write it to a file first, or pass it as /dev/stdin"
        raise ConfigError("is a pipe, and it has to be read more than once", where=Where(file=path), fix=fix)


def open_bytes(path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """The bytes of a file or an fsspec URL, for a `with` statement; they can be sought in.

    Raises:
        ConfigError: it is a pipe.
    """
    no_pipe(path)
    opened: contextlib.AbstractContextManager[IO[bytes]] = fsspec.open(path, "rb", compression=None)
    return opened
