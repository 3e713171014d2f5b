"""Tables: the shape of an audit in a database, and the opening of one.

One database holds one audit: an SQLite file beside the logs, or, for a team, a PostgreSQL database by URL. SQLite runs
with a write-ahead log and full synchronisation: what was answered to a reviewer survives a kill and a power cut.
Every value reaches the database as a bound parameter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cm2.errors import ConfigError, DataError, MissingExtra, Where

try:
    import sqlalchemy as sa
except ImportError as error:
    raise MissingExtra("an audit", "review") from error

__all__ = [
    "VERSION",
    "audits",
    "cases",
    "changes",
    "connect",
    "dialogues",
    "is_url",
    "meta",
    "populations",
    "reviews",
    "sa",
    "shown",
    "storable",
    "strata",
    "subjects",
]
VERSION = 1
BUSY = 15
"""Seconds that a writer waits for another one."""

meta = sa.MetaData()
audits = sa.Table(
    "cm2_audit",
    meta,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)
strata = sa.Table(
    "cm2_audit_strata",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.JSON, nullable=False),
)
populations = sa.Table(
    "cm2_audit_populations",
    meta,
    sa.Column("duty", sa.Text, primary_key=True),
    sa.Column("body", sa.JSON, nullable=False),
)
dialogues = sa.Table(
    "cm2_audit_dialogues",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)
cases = sa.Table(
    "cm2_audit_cases",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stratum", sa.ForeignKey(strata.c.id), nullable=False),
    sa.Column("dialogue", sa.ForeignKey(dialogues.c.id), nullable=False),
    sa.Column("duty", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)
reviews = sa.Table(
    "cm2_audit_reviews",
    meta,
    sa.Column("case", sa.ForeignKey(cases.c.id), primary_key=True),
    sa.Column("reviewer", sa.Text, primary_key=True),
    sa.Column("decision", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
)
subjects = sa.Table(
    "cm2_audit_subjects",
    meta,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)
changes = sa.Table(
    "cm2_audit_changes",
    meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Column("what", sa.String(10), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("action", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("before", sa.JSON),
    sa.Column("after", sa.JSON),
)


def is_url(place: str) -> bool:
    """Whether an audit's place is a database URL and not a file."""
    return "://" in place


def shown(place: str) -> str:
    """The place without a password."""
    return sa.engine.make_url(place).render_as_string(hide_password=True) if is_url(place) else place


def connect(place: str, create: bool = False) -> sa.Engine:
    """The engine of a file or URL.

    Raises:
        DataError: there is no such file, or it is no SQLite file.
        ConfigError: the URL is none, its driver is missing, or nobody answers there.
    """
    try:
        url = sa.engine.make_url(place) if is_url(place) else sa.URL.create("sqlite", database=os.path.abspath(place))
        if url.get_backend_name() == "sqlite":
            _file(url.database or "", create)
        engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=is_url(place), json_serializer=_json)
    except sa.exc.NoSuchModuleError as error:
        raise ConfigError(f"{error.args[0]}", fix="use a file, or postgresql+psycopg://user@host/name") from error
    except sa.exc.ArgumentError as error:
        raise ConfigError("the database URL does not read", fix="postgresql+psycopg://user@host/name") from error
    except ModuleNotFoundError as error:
        fix = "pip install 'psycopg[binary]', and write postgresql+psycopg://user@host/name"
        raise ConfigError(f"the database needs the driver {error.name}", fix=fix) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    try:
        with engine.connect():
            pass
    except sa.exc.DatabaseError as error:
        engine.dispose()
        _refused(place, error)
    return engine


def _json(value: Any) -> str:
    import json

    # PostgreSQL keeps no NUL in text or JSON, and no lone surrogate: logs hold both.
    return json.dumps(_storable(value), ensure_ascii=True, allow_nan=False)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(name)): _storable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    if isinstance(value, float) and value != value:
        return None
    return value


def storable(text: str) -> str:
    """Text without what a database refuses."""
    if "\0" in text:
        text = text.replace("\0", "\u2400")
    return text if text.isascii() else text.encode(errors="replace").decode()


def _file(path: str, create: bool) -> None:
    where = Where(file=path)
    if create:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # it holds dialogues of customers
    elif os.path.isdir(path):
        raise DataError("is a folder, not an audit", where=where, fix="name the file that cm2 audit sample wrote")
    elif not os.path.exists(path):
        raise DataError("there is no such audit", where=where, fix="draw one: cm2 audit sample LOGS --verdicts STORE")
    else:
        with open(path, "rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise DataError("is no audit", where=where, fix="name the file that cm2 audit sample wrote")


def _durable(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY * 1000}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _refused(place: str, error: sa.exc.DatabaseError) -> None:
    said = " ".join(str(error.orig).split())
    if is_url(place):
        fix = "check host, name and user; give the password in PGPASSWORD or ~/.pgpass"
        raise ConfigError(f"the database at {shown(place)} refuses: {said}", fix=fix) from error
    raise DataError(f"does not open: {said}", where=Where(file=place)) from error
