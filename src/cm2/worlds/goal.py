"""Goal: what a dialogue must have achieved in the end, whatever the route.

Two things count: how the final state differs from the initial one (`Changes`), and what the user was told in each turn
(`Told`). Ids that the world hands out differ from run to run, so a new record is compared without its id, and a code
that the user must be told is that of the run's own record.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.check import Fact
from cm2.worlds.engine import Record, Tables


class Changes(msgspec.Struct, omit_defaults=True):
    """How two states differ. A record that was made and changed again counts as made in its last form."""

    made: list[tuple[str, Record]] = []
    """Table and record, the id left out and ids of other new records replaced by their table's name."""
    changed: list[tuple[str, str, Record]] = []
    """Table, id and the fields that are now different (None: the field is gone)."""
    removed: list[tuple[str, str]] = []


class Told(msgspec.Struct, omit_defaults=True):
    """What the reply of one turn must say: facts, codes of records made, that it cannot be done, or a question."""

    facts: list[Fact] = []
    codes: list[int] = []
    """Indexes into `Changes.made`: the user must be told that record's id."""
    refuses: bool = False
    asks: bool = False


class Goal(msgspec.Struct, omit_defaults=True):
    """What must be so in the end; `told` has one entry a turn."""

    changes: Changes = msgspec.field(default_factory=Changes)
    told: list[Told] = []


def compare(before: Tables, after: Tables, issued: dict[str, str]) -> tuple[Changes, list[str]]:
    """How `after` differs from `before`, in a fixed order, and the id of each record made.

    Args:
        before: the initial state.
        after: the final one.
        issued: ids that the session handed out, each with its table.
    """
    made: list[tuple[bytes, tuple[str, Record], str]] = []
    changes = Changes([], [], [])
    for table, records in after.items():
        old = before.get(table, {})
        for id, record in records.items():
            if id not in old:
                plain = {name: _anonymous(value, issued) for name, value in record.items() if value != id}
                made.append((msgspec.json.encode([table, plain], order="sorted"), (table, plain), id))
            elif record != old[id]:
                names = [name for name in {**old[id], **record} if old[id].get(name) != record.get(name)]
                fields = {name: _anonymous(record.get(name), issued) for name in sorted(names)}
                changes.changed.append((table, id, fields))
        changes.removed += [(table, id) for id in old if id not in records]
    made.sort(key=lambda one: (one[0], one[2]))
    changes.made = [record for _, record, _ in made]
    changes.changed.sort(key=lambda one: one[:2])
    changes.removed.sort()
    return changes, [id for _, _, id in made]


def _anonymous(value: Any, issued: dict[str, str]) -> Any:
    if isinstance(value, str):
        return f"new {issued[value]}" if value in issued else value
    if isinstance(value, list):
        return [_anonymous(item, issued) for item in value]
    if isinstance(value, dict):
        return {name: _anonymous(item, issued) for name, item in value.items()}
    return value
