"""Shelf: the dialogues of a report, in parts that the page loads when it needs them.

A page that was opened from a disk may not fetch data, but it may run scripts. So each part is a script of one fixed
form, `cm2data("BUILD", "part-3", "…")`: a call of one function of the page with JSON as a string, which is parsed and
never run. `BUILD` says to which page it belongs. In a single file the same JSON stands in the page itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

ENTRIES = 1000
"""Entries of the list in one part."""
DIALOGUES = 50
PART = 250_000
"""Bytes from which on a part of dialogues is full."""


class Shelf:
    """Takes in dialogues and puts them into parts.

    Args:
        build: names the report.
        folder: where the parts are written; None keeps them, for a single file.
    """

    def __init__(self, build: str, folder: Path | None) -> None:
        self.count = self.bytes = 0
        self.kept: dict[str, str] = {}
        self._build, self._folder = build, folder
        self._entries: list[Any] = []
        self._dialogues: list[bytes] = []
        self._size = self._indexes = self._parts = 0

    @property
    def place(self) -> tuple[int, int]:
        """The part and the place in it that the next dialogue gets."""
        return self._parts, len(self._dialogues)

    @property
    def indexes(self) -> int:
        """Parts of the list."""
        return self._indexes

    def put(self, entry: list[Any], dialogue: dict[str, Any]) -> None:
        """Take in a dialogue at `place`."""
        self.count += 1
        self._entries.append(entry)
        encoded = msgspec.json.encode(dialogue)
        self._dialogues.append(encoded)
        self._size += len(encoded)
        if len(self._dialogues) >= DIALOGUES or self._size >= PART:
            self._flush()
        if len(self._entries) >= ENTRIES:
            self._index()

    def close(self) -> None:
        """Write what is left."""
        if self._dialogues:
            self._flush()
        if self._entries:
            self._index()

    def _flush(self) -> None:
        self._write(f"part-{self._parts}", b"[" + b",".join(self._dialogues) + b"]")
        self._parts += 1
        self._dialogues, self._size = [], 0

    def _index(self) -> None:
        self._write(f"index-{self._indexes}", msgspec.json.encode(self._entries))
        self._indexes += 1
        self._entries = []

    def _write(self, name: str, body: bytes) -> None:
        text = body.decode()
        self.bytes += len(body)
        if self._folder is None:
            self.kept[name] = text
            return
        call = f"cm2data({json.dumps(self._build)}, {json.dumps(name)}, {json.dumps(text)});\n"
        (self._folder / f"{name}.js").write_text(call, encoding="ascii")


def inline(value: str) -> str:
    """JSON text as it may stand within an element of a page: no character of it can end the element."""
    for char in "<>&\u2028\u2029":
        value = value.replace(char, f"\\u{ord(char):04x}")
    return value
