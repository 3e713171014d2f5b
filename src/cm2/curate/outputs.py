"""Outputs: the files that a stage writes. None is in another's way or in the input's; a dry run writes none."""

from __future__ import annotations

import os
from typing import Any

from cm2.errors import ConfigError
from cm2.formats import RowWriter


def check_paths(source: str, outputs: dict[str, str | None]) -> None:
    """Make sure that the outputs, named by their options, are different files outside of what is read.

    Raises:
        ConfigError: they are not.
    """
    taken: dict[str, str] = {_real(source): "IN"}
    inside: Any = os.path.isdir(source) and _real(source) + os.sep
    for option, path in outputs.items():
        if path is None:
            continue
        real = _real(path)
        if real in taken:
            raise ConfigError(f"{option} and {taken[real]} are the same file", fix="give each a name of its own")
        if inside and real.startswith(inside):
            raise ConfigError(f"{option} lies in the folder that is read", fix="write to another folder")
        taken[real] = option


def _real(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)


class Nowhere(RowWriter):
    """A writer that only counts."""

    def __init__(self, path: str):
        self.path, self.count = path, 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def write(self, obj: Any) -> None:
        """Count one row."""
        self.count += 1

    def write_text(self, line: bytes) -> None:
        """Count one row."""
        self.count += 1
