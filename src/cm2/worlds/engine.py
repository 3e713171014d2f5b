"""Engine: an executable world. A session's `Desk` holds its own copy of the state and runs the tools on it.

The state is tables of records by id: plain JSON, so that it can be copied, hashed and compared. What a call answers
depends on the initial state, the calls before it and nothing else. Ids that the world hands out (confirmation codes)
are drawn from the world's seed and the record they stand for: another record, another code, so a code proves what was
done, and what a user says about it later holds for every agent that did the same.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import msgspec

from cm2.dialogue import ToolCall
from cm2.simulate.replay import Context, canonical
from cm2.worlds.toolbox import Handler, ToolError

Record = dict[str, Any]
Tables = dict[str, dict[str, Record]]
_LETTERS, _DIGITS = "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789"


class Engine:
    """The backend of one world: every session starts from the same tables.

    Args:
        handlers: the tools' functions.
        tables: the initial state; it is copied.
        seed: of the codes that the world hands out.
    """

    executable = True

    def __init__(self, handlers: dict[str, Handler], tables: Tables, seed: int):
        self._handlers, self._seed = handlers, seed
        self._packed = msgspec.msgpack.encode(tables)

    def session(self) -> Desk:
        """A fresh copy of the world."""
        return Desk(self._handlers, self.tables(), self._seed)

    def tables(self) -> Tables:
        """A copy of the initial state."""
        return msgspec.msgpack.decode(self._packed)


class Desk:
    """One session: the tools act on `tables`; `issued` are the ids handed out, each with its table."""

    def __init__(self, handlers: dict[str, Handler], tables: Tables, seed: int):
        self._handlers, self._seed = handlers, seed
        self.tables = tables
        self.issued: dict[str, str] = {}

    def respond(self, call: ToolCall, context: Context | None = None) -> str:
        """Run the tool and answer in JSON, a refusal as `{"error": …}`."""
        try:
            value = self._handlers[call.name](self, **canonical(call.arguments))
        except ToolError as error:
            value = {"error": str(error)}
        return msgspec.json.encode(value).decode()

    def __getitem__(self, table: str) -> dict[str, Record]:
        return self.tables[table]

    def find(self, table: str, id: str, what: str = "") -> Record:
        """The record of that id, letters in either case.

        Raises:
            ToolError: there is none; the message calls it `what`.
        """
        record = self.tables[table].get(id) or self.tables[table].get(id.upper())
        if record is None:
            raise ToolError(f"{what or table.removesuffix('s')} {id} not found")
        return record

    def where(self, table: str, **fields: Any) -> list[Record]:
        """Records that agree with every field given (None: any; text in either case), in order of id."""
        wanted = {name: fold(value) for name, value in fields.items() if value is not None}
        rows = self.tables[table].items()
        return [row for _, row in sorted(rows) if all(fold(row.get(name)) == value for name, value in wanted.items())]

    def make(self, table: str, record: Record, pattern: str = "@#@", key: str = "code") -> str:
        """File a new record under a new id, which the record carries as `key`; returns the id.

        The id follows from the record: whatever the route to it, an equal record has the same id.
        """
        rng = random.Random(f"{self._seed}\n{table}\n{digest(record)}")
        id = draw_id(rng, pattern)
        while id in self.issued or id in self.tables[table]:
            id = draw_id(rng, pattern)
        self.issued[id] = table
        self.tables[table][id] = {key: id, **record}
        return id


def draw_id(rng: random.Random, pattern: str) -> str:
    """A random id: `@` stands for a letter, `#` for a digit (easily confused ones left out), the rest for itself."""
    drawn = {"@": _LETTERS, "#": _DIGITS}
    return "".join(rng.choice(drawn[char]) if char in drawn else char for char in pattern)


def fold(value: Any) -> Any:
    """Text as the tools compare it: trimmed and in lower case; other values as they are."""
    return value.strip().lower() if isinstance(value, str) else value


def digest(value: Any) -> str:
    """A short hash of a JSON value."""
    return hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=6).hexdigest()
