"""Work: one thing that a tracer recorded, whichever tracer it was: a call of a model, a run of a tool, an agent's run.

Every tracer's reader turns its records into these; `cm2.imports.traces` puts those of one trace together.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from cm2.errors import DataError
from cm2.imports.bodies import Exchange, read_exchange
from cm2.imports.notes import Notes

Kind = Literal["llm", "tool", "agent", "other"]


class Ran(msgspec.Struct):
    """A tool that ran: what it was asked and what it answered."""

    name: str
    arguments: Any
    result: str | None
    id: str | None = None
    failed: bool = False


class Score(msgspec.Struct):
    """What somebody said about a trace, or about one piece of work in it."""

    name: str
    value: float | bool | str
    span: str | None = None
    comment: str | None = None


class Work(msgspec.Struct):
    """One record of a trace.

    `request` and `response` are what went in and came out of an agent's run; they are used where no call of a model
    was recorded. `silent` is a call of a model whose messages were not recorded, `broken` why they cannot be read.
    """

    kind: Kind = "other"
    id: str = ""
    parent: str | None = None
    trace: str = ""
    name: str = ""
    start: float = 0.0
    end: float = 0.0
    exchange: Exchange | None = None
    ran: Ran | None = None
    request: Any = None
    response: Any = None
    session: str | None = None
    user: str | None = None
    error: str | None = None
    silent: bool = False
    broken: str | None = None
    scores: list[Score] = []
    meta: dict[str, Any] = {}
    notes: Notes = msgspec.field(default_factory=Notes)

    def read(self, request: Any, response: Any, paths: tuple[str, str]) -> Exchange | None:
        """What was sent and what came back, as this call's exchange. One call that cannot be read leaves the rest of
        its trace as it is: `broken` says why."""
        notes = Notes()
        try:
            exchange = read_exchange(request, response, notes, paths)
        except DataError as error:
            self.broken = error.message
            return None
        self.notes.add(notes)
        exchange.notes, exchange.start, exchange.span = self.notes, self.start, self.id
        self.exchange, self.broken = exchange, None
        return exchange


def seconds(value: Any) -> float:
    """A time as seconds since 1970: ISO text, or a number in seconds, milli-, micro- or nanoseconds. 0.0 where it is
    none of these."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return _from_iso(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0 or value > 1e20:
        return 0.0
    for limit, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        if value >= limit:
            return float(value / unit)
    return float(value)


def _from_iso(text: str) -> float:
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def iso(at: float) -> str | None:
    """Seconds since 1970 as ISO text."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def plain_score(*values: Any) -> float | bool | str | None:
    """The first of some values that is a number, yes or no, or a text."""
    for value in values:
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and value):
            return value
    return None
