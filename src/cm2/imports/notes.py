"""Notes: what a reader did with the parts of a log that are no messages and no tools.

Four kinds, and nothing of a log is left without one of them:

- kept: a field that our form has no place for, put under `meta.import.kept` by its path in the log;
- unmapped: a part that the dialogue does not say although the agent saw or wrote it (a picture, encrypted thinking);
- left: bookkeeping that stays in the log on purpose (token counts, timings, fields that are too large to copy);
- made: what the reader added or wrote otherwise than the log did.

Secrets are taken out of what is kept: it goes where the log's own keepers never look.

One `Notes` belongs to one dialogue. `at` gives the same notes seen from an inner path.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

import msgspec

from cm2.formats.jsonlines import encode, parse
from cm2.llm.scrub import scrub

KEPT_BYTES = 20_000
"""A value whose JSON is longer is not copied into the metadata; it is named instead."""
ROW_BYTES = 100_000
"""Bytes of kept values in one row."""
LEFT = "bookkeeping"
"""What is said of fields that stay in the log on purpose."""
MOST = 200
"""Notes of one kind in one row; further ones are counted."""
_INDEX = re.compile(r"\[[^\[\]]*\]|\.\d+(?=\.|$)")


class Note(msgspec.Struct, frozen=True):
    """One thing that is said about one place of the log."""

    kind: str
    path: str
    what: str


def plain(path: str) -> str:
    """A path without its indexes, so that the same remark about many messages counts as one."""
    return _INDEX.sub("[]", path)


class Notes:
    """What was noted about one dialogue.

    Attributes:
        kept: fields of the log by their path.
        said: the other notes, each once.
        more: how many notes there were no room for.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.said: dict[Note, None] = {}
        self.more = 0
        self._bytes = 0
        self._left: set[str] = set()
        self._kept: set[tuple[str, int]] = set()

    def keep(self, path: str, value: Any) -> None:
        """Keep a field, or name it where it is too large. Fields that say nothing (null, empty) are passed over."""
        if value is None or value == "" or value == [] or value == {}:
            return
        try:
            text = encode(value)
        except (RecursionError, TypeError):
            self.left(path, "a value that cannot be written")
            return
        size, mark = len(text), (plain(path), hash(text))
        if mark in self._kept:
            return  # the same value of the same field of another record
        self._kept.add(mark)
        if size > KEPT_BYTES or self._bytes + size > ROW_BYTES:
            self.left(path, f"too large to copy ({size:,} bytes)")
            return
        self._bytes += size
        clean = scrub(text.decode()).encode()
        if clean != text:
            value = parse(clean)[0]
        name, number = path, 1
        while name in self.kept:
            number += 1
            name = f"{path} ({number})"
        self.kept[name] = value

    def unmapped(self, path: str, what: str) -> None:
        """A part that the dialogue does not say."""
        self._say(Note("unmapped", path, what))

    def left(self, path: str, what: str = LEFT) -> None:
        """Bookkeeping that stays in the log: said once for all messages."""
        short = plain(path)
        if short not in self._left:
            self._left.add(short)
            self._say(Note("left", short, what))

    def made(self, path: str, what: str) -> None:
        """Something that the reader added or wrote otherwise."""
        self._say(Note("made", path, what))

    def _say(self, note: Note) -> None:
        if len(self.said) >= MOST and note not in self.said:
            self.more += 1
        else:
            self.said[note] = None

    def at(self, path: str) -> Place:
        """These notes, seen from a place of the log."""
        return Place(self, path)

    def add(self, other: Notes) -> None:
        """Take over what others noted about the same dialogue."""
        for path, value in other.kept.items():
            self.keep(path, value)
        for note in other.said:
            self._say(note)
        self.more += other.more


class Place:
    """Notes seen from one place of a log: paths that are given here continue its path."""

    __slots__ = ("_before", "_here", "notes")

    def __init__(self, notes: Notes, path: str | int = "", before: Place | None = None):
        self.notes, self._here, self._before = notes, path, before

    @property
    def path(self) -> str:
        """The path; put together only when somebody notes something."""
        parts: list[str | int] = []
        place: Place | None = self
        while place is not None:
            parts.append(place._here)
            place = place._before
        path = ""
        for part in reversed(parts):
            path = joined(path, part)
        return path

    def at(self, path: str | int) -> Place:
        """A place further in: a key, or an index."""
        return Place(self.notes, path, self)

    def keep(self, path: str, value: Any) -> None:
        """See `Notes.keep`."""
        self.notes.keep(joined(self.path, path), value)

    def unmapped(self, what: str, path: str = "") -> None:
        """See `Notes.unmapped`."""
        self.notes.unmapped(joined(self.path, path), what)

    def left(self, path: str, what: str = LEFT) -> None:
        """See `Notes.left`."""
        self.notes.left(joined(self.path, path), what)

    def made(self, what: str, path: str = "") -> None:
        """See `Notes.made`."""
        self.notes.made(joined(self.path, path), what)

    def rest(self, value: dict[str, Any], taken: Container[str], bookkeeping: Container[str]) -> None:
        """The fields of a record that nobody read: bookkeeping is left, unless it says nothing; others are kept."""
        for key, one in value.items():
            if key in bookkeeping:
                if one not in (None, "", [], {}, 0):
                    self.left(key)
            elif key not in taken:
                self.keep(key, one)


def joined(path: str, inner: str | int) -> str:
    """A path and what comes after it."""
    if isinstance(inner, int):
        return f"{path}[{inner}]"
    if not path or not inner:
        return path or inner
    return f"{path}.{inner}"
