"""Binding: a new book from a sample, and a book from a file into a team's database.

A file appears whole or not at all, and never over another one; a database gets everything in one transaction.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from cm2.assure.audit.book import Book, moment, named
from cm2.assure.audit.case import Case
from cm2.assure.audit.sample import Sample
from cm2.assure.audit.tables import (
    VERSION,
    audits,
    cases,
    changes,
    connect,
    dialogues,
    is_url,
    meta,
    populations,
    sa,
    shown,
    storable,
    strata,
    subjects,
)
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError
from cm2.llm.scrub import scrubbed


def check_free(place: str) -> None:
    """See that a file is not there yet, before work is done for it.

    Raises:
        ConfigError: it is.
    """
    if not is_url(place) and os.path.exists(place):
        raise ConfigError(f"{place} exists, and what people reviewed in it is never overwritten", fix="give another -o")


def write_sample(sample: Sample, place: str) -> str:
    """Put a new audit into a file (whole, or not at all) or a database; its id.

    Raises:
        ConfigError: there is one already: reviews are never overwritten.
    """
    check_free(place)
    draft = place if is_url(place) else f"{place}.{os.getpid()}.partial"
    engine = connect(draft, create=True)
    id = uuid.uuid4().hex
    try:
        _no_audit(engine, place)
        meta.create_all(engine)
        with engine.begin() as connection:
            for table, rows in _rows(sample, id):
                if rows:
                    connection.execute(sa.insert(table), rows)
        if not is_url(place):
            with engine.connect() as connection:  # the file alone is whole: it may be moved
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
            engine.dispose()
            os.replace(draft, place)
    finally:
        engine.dispose()
        for end in ("", "-wal", "-shm"):
            if not is_url(place) and os.path.exists(draft + end):
                os.unlink(draft + end)
    return id


def put(place: str, url: str) -> str:
    """See that a database holds the audit of a file; what was done about it, for a person.

    Raises:
        ConfigError: another audit is there.
    """
    with Book(place) as source:
        return f"the audit was copied to {shown(url)}; from now on that is the one" if copy_to(source, url) else ""


def copy_to(source: Book, url: str) -> bool:
    """Put an audit into a team's database, unless that holds it already; whether it was put there.

    Raises:
        ConfigError: another audit is there.
    """
    engine = connect(url, create=True)
    try:
        meta.create_all(engine)
        with engine.begin() as connection:
            there = connection.execute(sa.select(audits.c.id)).scalars().first()
            if there == source.id:
                return False
            if there is not None:
                raise ConfigError(f"the database at {shown(url)} holds another audit", fix="use a database of its own")
            for table in meta.sorted_tables:
                rows = [named(row) for row in source.rows(sa.select(table))]
                if table is changes:
                    for row in sorted(rows, key=lambda row: row["id"]):
                        connection.execute(sa.insert(table), _without_id(row))
                elif rows:
                    connection.execute(sa.insert(table), rows)
        return True
    finally:
        engine.dispose()


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


def _no_audit(engine: sa.Engine, place: str) -> None:
    if sa.inspect(engine).has_table(audits.name):
        with engine.connect() as connection:
            if connection.execute(sa.select(audits.c.id)).first() is not None:
                raise ConfigError(f"the database at {shown(place)} holds an audit", fix="use a database of its own")


def _rows(sample: Sample, id: str) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
    config = msgspec.to_builtins(sample.config)
    policy = msgspec.to_builtins(sample.policy) if sample.policy else None
    facts = {"config": config, "judges": sample.judges, "policy": policy}
    yield audits, [{"id": id, "version": VERSION, "created": moment(), "facts": facts}]
    yield strata, [{"id": one.id, "body": msgspec.to_builtins(one)} for one in sample.strata]
    yield populations, [{"duty": storable(one.duty), "body": msgspec.to_builtins(one)} for one in sample.populations]
    yield (
        dialogues,
        [
            {
                "id": number,
                "name": storable(dialogue.id),
                "rollout": storable(rollout),
                "body": scrubbed(msgspec.to_builtins(_bare(dialogue))),
            }
            for number, (rollout, dialogue) in sample.dialogues.items()
        ],
    )
    yield (
        cases,
        [
            {
                "id": one.id,
                "stratum": one.stratum,
                "dialogue": one.dialogue,
                "duty": storable(one.duty),
                "kind": one.kind,
                "probability": one.probability,
                "wanted": one.wanted,
                "body": _scrubbed(one),
            }
            for one in sample.cases
        ],
    )
    yield (
        subjects,
        [
            {
                "key": storable(one.key),
                "place": place,
                "name": storable(one.name),
                "kind": one.kind,
                "spec": one.spec,
                "source": one.source,
                "status": one.status,
                "version": one.version,
            }
            for place, one in enumerate(sample.subjects)
        ],
    )


def _scrubbed(case: Case) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(case)
    return {**body, "item": scrubbed(body["item"]), "verdict": scrubbed(body["verdict"])}


def _bare(dialogue: Dialogue) -> Dialogue:
    """The dialogue without what only a writer of its format needs."""
    turns = [
        msgspec.structs.replace(
            turn, wire=None, steps=[msgspec.structs.replace(step, wire=None) for step in turn.steps]
        )
        for turn in dialogue.turns
    ]
    opening = [msgspec.structs.replace(step, wire=None) for step in dialogue.opening]
    return msgspec.structs.replace(dialogue, turns=turns, opening=opening, tools=[], wire=None, meta={})
