"""Errors that a person can act on.

Every failure that a user can cause is a `CM2Error`: it says what is wrong, where (file, line, dialogue, turn,
item) and what to do next. The command line prints it as one sentence and exits with `exit_code`; a stack trace
appears only under `--debug`. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """A place in the user's data. Lines are 1-based as editors count them, turns and steps 0-based as in files."""

    file: str | None = None
    line: int | None = None
    dialogue: str | None = None
    turn: int | None = None
    step: int | None = None
    item: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        parts = []
        if self.file is not None:
            parts.append(self.file if self.line is None else f"{self.file}:{self.line}")
        elif self.line is not None:
            parts.append(f"line {self.line}")
        for name in ("dialogue", "turn", "step", "item"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name} {value}")
        if self.path:
            parts.append(f"at {self.path}")
        return ", ".join(parts)

    def but(self, **changes: object) -> Where:
        """The same place with some coordinates replaced."""
        made = object.__new__(Where)  # not `replace`: places are made for every row that is read
        made.__dict__.update(self.__dict__ | changes)
        return made


class CM2Error(Exception):
    """A failure that its reader can mend.

    Args:
        message: what is wrong, one sentence.
        where: the place in the user's data, if there is one.
        fix: what to do next.
    """

    exit_code = 2

    def __init__(self, message: str, *, where: Where | None = None, fix: str | None = None):
        self.message, self.where, self.fix = message, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        place = str(self.where) if self.where else ""
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.fix})" if self.fix else text


class DataError(CM2Error):
    """A row, file or field is not what the format says."""


class ConfigError(CM2Error):
    """A setting is unknown, missing or out of range; raised when the configuration is loaded."""


class MissingExtra(CM2Error):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str):
        super().__init__(f"{feature} needs the extra '{extra}'", fix=f"run: pip install 'cm2[{extra}]'")


class CheckFailed(CM2Error):
    """The command did its work and the answer is no (lint, gate)."""

    exit_code = 1


def told(error: Exception) -> str:
    """What an error says, for a record: with its type, unless it is one of ours and says all by itself."""
    return str(error) if isinstance(error, CM2Error) else f"{type(error).__name__}: {error}"
