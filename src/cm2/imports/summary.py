"""The summary: what became of every record of a run, counted."""

from __future__ import annotations

from typing import Any

import msgspec


class Summary(msgspec.Struct):
    """What a run did. `read = used + aside + rejected` counts records; `dialogues` counts rows."""

    files: int = 0
    read: int = 0
    used: int = 0
    aside: int = 0
    rejected: int = 0
    dialogues: int = 0
    branches: int = 0
    scored: int = 0
    inferred: int = 0
    formats: dict[str, int] = {}
    """Dialogues by format."""
    reasons: dict[str, int] = {}
    """Rejected records by reason."""
    asides: dict[str, int] = {}
    unmapped: dict[str, int] = {}
    """Dialogues in which something was not mapped, by what."""
    made: dict[str, int] = {}
    left: dict[str, int] = {}
    examples: dict[str, str] = {}
    """Where each reason and remark was met first."""
    output: str = ""
    rejects: str = ""
    report: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found
