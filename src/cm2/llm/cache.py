"""AnswerCache: answers by the content of their question, in an SQLite file that processes may share.

A key is a digest of everything that decides an answer (model, sampling, messages, schema, sample, effort) and of
nothing else: no address, no key, no role. Only valid answers are written, each at once, so that being killed loses no
more than what is under way. A row that does not match its checksum is a miss; a file that is no database any more is
moved aside, said, and begun anew with what can be saved of it. Beside the answers the file keeps the secret of the
fences, so that resumed runs ask the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from filelock import FileLock

from cm2.errors import CM2Error, ConfigError, DataError, Where
from cm2.formats.jsonlines import encode
from cm2.formats.lock import lock_output
from cm2.llm.request import Usage
from cm2.llm.scrub import scrub

APPLICATION = 0x434D3241  # "CM2A"
BUSY = 30.0
"""Seconds to wait for another process that is writing."""
ENDINGS = (".sqlite", ".sqlite3", ".db")
"""What a damaged file must be called to be moved aside, where not even its first bytes say that it is a database."""
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  key BLOB PRIMARY KEY, row BLOB NOT NULL, digest BLOB NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Stored(msgspec.Struct, array_like=True):
    """An answer as it is kept: the visible text, without secrets, and what it cost when it was paid for."""

    text: str
    model: str = ""
    prompt: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    cost: float | None = None


_decode = msgspec.msgpack.Decoder(Stored).decode


def key_of(content: dict[str, Any]) -> bytes:
    """The digest of JSON content; the order of names does not matter."""
    return hashlib.blake2b(_canonical(content), digest_size=16).digest()


def _canonical(content: Any) -> bytes:
    try:
        return msgspec.json.encode(content, order="sorted")
    except UnicodeEncodeError:  # half surrogate pairs: rare, and then slowly
        return encode(_ordered(content))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value)}
    return [_ordered(one) for one in value] if isinstance(value, list) else value


class AnswerCache:
    """The file. Methods may be called from any thread.

    Args:
        path: of the file; made where it does not exist. None keeps nothing.
        say: told when something is wrong with the file that a person should know.
        read_only: open it only where it exists, and write nothing (dry runs).

    Raises:
        ConfigError: the path is a folder, or a file of another kind.
    """

    def __init__(self, path: str | None, *, say: Callable[[str], None] | None = None, read_only: bool = False):
        self.path, self._read_only = path, read_only
        self._say = say or (lambda text: None)
        self._lock = threading.RLock()
        self._told: set[str] = set()
        self._db: sqlite3.Connection | None = None
        self._alone_already = False
        if path is not None and not (read_only and not os.path.exists(path)):
            self._open()

    def get(self, key: bytes) -> Stored | None:
        """The answer to a question; None where there is none that can be trusted."""
        if self._db is None:
            return None
        try:
            row = self._mended(
                lambda db: db.execute("SELECT row, digest FROM answers WHERE key = ?", (key,)).fetchone()
            )
        except sqlite3.OperationalError as error:
            self._tell(f"{self.path}: answers cannot be read ({error}); they will be asked, and paid, again")
            return None
        if row is None:
            return None
        try:
            if row[1] != _digest(key, row[0]):
                return None
            return _decode(row[0])
        except (msgspec.DecodeError, TypeError, ValueError):
            return None

    def put(self, key: bytes, stored: Stored) -> None:
        """Keep a valid answer. A full or read-only disk is said, and the answer stays good."""
        if self._db is None or self._read_only:
            return
        stored.text = scrub(stored.text)
        row = msgspec.msgpack.encode(stored)
        values = (key, row, _digest(key, row), time.time())
        try:
            self._mended(lambda db: db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", values))
        except sqlite3.OperationalError as error:
            self._tell(f"{self.path}: answers cannot be kept ({error}); they will be asked, and paid, again")

    def fact(self, name: str, default: str) -> str:
        """A text that the file keeps; what it is first given stays, whoever gives it."""
        if self._db is None:
            return default

        def keep(db: sqlite3.Connection) -> Any:
            if not self._read_only:
                db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, default))
            return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()

        row = self._mended(keep)
        return str(row[0]) if row else default

    @property
    def secret(self) -> str:
        """The secret of the fences: random, made with the file."""
        return self.fact("secret", secrets.token_hex(16))

    def __len__(self) -> int:
        if self._db is None:
            return 0
        return int(self._mended(lambda db: db.execute("SELECT count(*) FROM answers").fetchone())[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    def _mended(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do the work; where the file turns out to be broken, once more on a new one."""
        with self._lock:
            if self._db is None:
                return None
            try:
                return work(self._db)
            except sqlite3.DatabaseError as error:
                if not _broken(error):
                    raise
                self._replace(error)
                return work(self._db)

    def _open(self) -> None:
        assert self.path is not None
        where = Where(file=self.path)
        if os.path.isdir(self.path):
            raise ConfigError("is a folder, not a file", where=where, fix="name a file with --cache")
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        try:
            self._db = self._connect()
        except sqlite3.DatabaseError as error:
            if not _broken(error):
                told = f"the cache of answers cannot be opened: {error}"
                raise DataError(told, where=where, fix="check the path") from error
            if not self.path.endswith(ENDINGS) and not _is_database(self.path):
                fix = f"name a file that ends in {ENDINGS[0]} with --cache"  # it may be anything, even the input
                raise ConfigError("is no cache of answers", where=where, fix=fix) from error
            self._replace(error)

    def _connect(self) -> sqlite3.Connection:
        assert self.path is not None
        db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            # Whoever is killed loses nothing that was committed; a power cut may lose the last moments, never the file.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN")  # both from one moment: another process may be making the tables just now
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            application = db.execute("PRAGMA application_id").fetchone()[0]
            db.execute("COMMIT")
            if application != APPLICATION and tables:
                fix = "name another file with --cache"
                raise ConfigError("is a database, but not of answers", where=Where(file=self.path), fix=fix)
            if {"answers", "facts"} <= tables:
                return db
            if self._read_only:
                db.close()
                return _nothing()
            with self._alone():
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; {_TABLES} COMMIT;")
            return db
        except BaseException:
            db.close()
            raise

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Move the broken file aside and begin a new one, unless another process has just done so."""
        assert self.path is not None
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._read_only:
            self._say(f"{self.path} is damaged ({error}); nothing of it is used")
            self._db = _nothing()
            return
        with self._alone():
            with contextlib.suppress(sqlite3.DatabaseError):
                self._db = self._sound()
            if self._db is None:
                aside = self._aside()
                self._db = self._connect()
                saved = self._salvage(aside)
                self._say(f"{self.path} is damaged ({error}); it was moved to {aside}, {saved} answers could be saved")

    def _sound(self) -> sqlite3.Connection:
        db = self._connect()
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            db.close()
            raise sqlite3.DatabaseError("quick_check")
        return db

    def _aside(self) -> str:
        assert self.path is not None
        number = 1
        while os.path.exists(aside := f"{self.path}.damaged-{number}"):
            number += 1
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + ending, aside + ending)
        return aside

    def _salvage(self, aside: str) -> int:
        """Take over what can still be read; the checksums say what can be trusted."""
        assert self._db is not None
        saved = 0
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(aside)) as old:
            secret = old.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
            if secret is not None:  # with another secret the prompts, and so the questions, would be others
                self._db.execute("INSERT OR REPLACE INTO facts VALUES ('secret', ?)", secret)
        asked = "SELECT key, row, digest, created FROM answers WHERE key BETWEEN ? AND ?"
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(aside)) as old:
            for first in range(256):  # in parts: a page that is gone hides only its own
                part = (bytes([first]), bytes([first]) + b"\xff" * 16)
                with contextlib.suppress(sqlite3.DatabaseError):
                    for row in old.execute(asked, part):
                        if row[2] == _digest(row[0], row[1]):
                            self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", row)
                            saved += 1
        return saved

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Without another process that begins or mends the same file."""
        if self._alone_already:
            yield
            return
        lock = _wait_for_lock(f"{self.path}#answers")
        self._alone_already = True
        try:
            yield
        finally:
            self._alone_already = False
            lock.release()


def _wait_for_lock(name: str) -> FileLock:
    until = time.monotonic() + BUSY
    while True:
        try:
            return lock_output(name)
        except CM2Error:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _digest(key: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(key + row, digest_size=8).digest()


def _nothing() -> sqlite3.Connection:
    """An empty cache in memory."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    db.executescript(_TABLES)
    return db


def _is_database(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _broken(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _BROKEN
