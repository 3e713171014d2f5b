"""Spill: the pieces of all traces, kept in a temporary SQLite file until every file is read.

The pieces of a trace stand anywhere in a log, also in several files, so a trace is whole only at the end. The file
keeps memory flat however large the log is. Groups come out in the order in which their first pieces stood.

A group is a trace, or all traces of a session that they name. Calls that name neither are put together by their
history: a call that begins with everything that an earlier one said and heard belongs to that one's group, and so does
one that names the earlier one's response.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from types import TracebackType
from typing import Any

import msgspec
import zstandard

from cm2.formats.jsonlines import encode, parse
from cm2.imports.bodies import Exchange
from cm2.imports.groups import Piece
from cm2.imports.stream import Record
from cm2.imports.talk import key

MOST = 5_000
"""Pieces of one group; the traces of a larger session are read one by one."""
_SCHEMA = """
CREATE TABLE piece (seq INTEGER PRIMARY KEY, trace TEXT, span TEXT, about TEXT, format TEXT, body BLOB);
CREATE TABLE link (trace TEXT PRIMARY KEY, session TEXT) WITHOUT ROWID;
CREATE TABLE tail (seq INTEGER PRIMARY KEY, mark BLOB, trace TEXT, used INTEGER DEFAULT 0);
CREATE INDEX tail_mark ON tail (mark, used, seq);
"""
_GROUP = """
CREATE INDEX piece_trace ON piece (trace);
CREATE INDEX piece_span ON piece (span) WHERE span <> '';
UPDATE piece SET trace = COALESCE(
  (SELECT other.trace FROM piece other WHERE other.span = piece.about AND other.trace <> '' LIMIT 1), 'span ' || about)
  WHERE trace = '' AND about <> '';
DELETE FROM link WHERE session IN (
  SELECT session FROM link JOIN piece USING (trace) GROUP BY session HAVING COUNT(*) > {most});
CREATE TABLE member AS SELECT seq, COALESCE('session ' || link.session, trace, '') AS name
  FROM piece LEFT JOIN link USING (trace);
CREATE INDEX member_name ON member (name, seq);
CREATE TABLE first AS SELECT name, MIN(seq) AS begin FROM member GROUP BY name;
"""
_READ = """
SELECT first.begin, first.name, piece.seq, piece.format, piece.body
FROM first JOIN member USING (name) JOIN piece USING (seq) ORDER BY first.begin, piece.seq
"""


class Kept(msgspec.Struct):
    """A piece as it comes back."""

    format: str
    record: Record


class Spill:
    """Pieces of traces on disk.

    Args:
        folder: where the temporary file is made; the system's own place without it.
    """

    def __init__(self, folder: str | None = None):
        handle, self._path = tempfile.mkstemp(suffix=".sqlite", prefix=".cm2-import-", dir=folder)
        os.close(handle)
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8000;" + _SCHEMA)
        self._db.execute("BEGIN")
        self._pack = zstandard.ZstdCompressor(level=1).compress
        self._unpack = zstandard.ZstdDecompressor().decompress
        self.count = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        os.unlink(self._path)

    def add(self, piece: Piece, format: str, record: Record) -> None:
        """Keep a piece."""
        self.count += 1
        trace = piece.trace if piece.trace != "mcp " else f"mcp {record.file}"
        if piece.call is not None:
            trace = f"calls {self.count}" if piece.session else self._continued(piece.call)
        body = self._pack(encode(record))
        row = (self.count, trace, piece.span, piece.about, format, body)
        self._db.execute("INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?)", tuple(map(_clean, row)))
        if piece.session and trace:
            self._db.execute("INSERT OR IGNORE INTO link VALUES (?, ?)", (_clean(trace), _clean(piece.session)))
        elif piece.session:
            self._db.execute("UPDATE piece SET trace = ? WHERE seq = ?", (f"score {self.count}", self.count))
            self._db.execute("INSERT OR IGNORE INTO link VALUES (?, ?)", (f"score {self.count}", _clean(piece.session)))

    def _continued(self, call: Exchange) -> str:
        """The group of the conversation that a call goes on with, or a new one."""
        marks: list[bytes] = []
        digest = blake2b(digest_size=12)
        found = None if call.previous is None else self._tail(f"response {call.previous}".encode(errors="replace"))
        talked = [message for message in call.before if message["role"] not in ("system", "developer")]
        for message in talked:
            digest.update(encode(key(message)))
            if message["role"] == "assistant" or (marks and message["role"] == "tool"):
                marks.append(digest.copy().digest())
        for mark in reversed(marks):
            if found is None:
                found = self._tail(mark)
        group = found or f"calls {self.count}"
        for message in call.after:
            digest.update(encode(key(message)))
        self._end(digest.digest(), group)
        if call.id:
            self._end(f"response {call.id}".encode(errors="replace"), group)
        return group

    def _end(self, mark: bytes, group: str) -> None:
        """A conversation of the group now ends so."""
        self._db.execute("INSERT INTO tail (mark, trace) VALUES (?, ?)", (mark, group))

    def _tail(self, mark: bytes) -> str | None:
        """The group of a conversation that ended so. Conversations may begin alike ("Hi", "How can I help?"), so each
        end is gone on with once; a call that finds only ends that others went on with is a branch of the first."""
        row = self._db.execute(
            "SELECT seq, trace FROM tail WHERE mark = ? ORDER BY used, seq LIMIT 1", (mark,)
        ).fetchone()
        if row is None:
            return None
        self._db.execute("UPDATE tail SET used = 1 WHERE seq = ?", (row[0],))
        return str(row[1])

    def groups(self) -> Iterator[tuple[str, list[Kept]]]:
        """The groups as (name, pieces in the order of the log). A name that was made here is empty."""
        self._db.execute("COMMIT")
        self._db.executescript(_GROUP.format(most=MOST))
        pieces: list[Kept] = []
        last: tuple[Any, str] | None = None
        for begin, name, _, format, body in self._db.execute(_READ):
            if last is not None and last[0] != begin:
                yield _named(last[1]), pieces
                pieces = []
            last = (begin, name)
            value, _ = parse(self._unpack(body))
            pieces.append(Kept(format, msgspec.convert(value, Record)))
        if last is not None:
            yield _named(last[1]), pieces


def _named(name: str) -> str:
    if name.startswith("session "):
        return name.removeprefix("session ")
    return "" if name.startswith(("calls ", "score ", "mcp ")) else name


def _clean(value: Any) -> Any:
    """Text that SQLite can hold: lone surrogates replaced."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
