"""Draft: a dialogue that a reader has put together, and the row that it becomes.

The row is one of `cm2.formats`: OpenAI chat messages with tools. What the log says about the outcome stands in
`meta.reward` and `meta.scores`; where the row came from and what became of the rest stands in `meta.import`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cm2.errors import DataError
from cm2.formats.jsonlines import encode
from cm2.imports.notes import LEFT, Notes
from cm2.imports.schemas import infer
from cm2.imports.talk import Message, Talk

META = "import"
"""The key of the metadata that says where a row came from."""


class Draft(msgspec.Struct):
    """A dialogue before it is a row. `at` says where it stood: file, and line or path."""

    format: str
    messages: list[Message] = []
    tools: list[dict[str, Any]] = []
    id: str | None = None
    source: str = ""
    meta: dict[str, Any] = {}
    hosted: set[str] = set()
    notes: Notes = msgspec.field(default_factory=Notes)
    at: dict[str, Any] = {}
    inferred: list[str] = []
    branch: dict[str, Any] | None = None

    @classmethod
    def of(cls, format: str, talk: Talk, notes: Notes) -> Draft:
        """A draft of what was said."""
        return cls(format, talk.messages, talk.tools, hosted=talk.hosted, notes=notes)

    def score(self, name: str, value: Any, comment: Any = None) -> None:
        """What somebody said about the dialogue. A second score of a name is kept beside the first."""
        scores = self.meta.setdefault("scores", {})
        if name in scores:
            self.notes.keep(f"scores.{name} (another)", value)
        else:
            scores[name] = value
        if comment:
            self.notes.keep(f"scores.{name}.comment", comment)

    def row(self) -> dict[str, Any]:
        """The row.

        Raises:
            DataError: it would not be a dialogue.
        """
        tools = list(self.tools)
        names = {tool["function"]["name"] for tool in tools}
        made = infer(self.messages, None if not tools else self.hosted - names)
        self.inferred = [tool["function"]["name"] for tool in made]
        tools += made
        row: dict[str, Any] = {"id": self.id or self.made_id()}
        self.id = row["id"]
        if self.source:
            row["source"] = self.source
        row |= {"tools": tools, "messages": self.messages, "meta": {**self.meta, META: self._told()}}
        if not any(message["role"] == "user" for message in self.messages):
            raise DataError("no message is of the user")
        return row

    def made_id(self) -> str:
        """An id made of the messages, for a log that has none."""
        digest = hashlib.blake2b(encode([self.messages, self.at]), digest_size=8).hexdigest()
        self.notes.made("id", "the log has no id; it is made of the messages and their place")
        return f"{self.format}-{digest}"

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"format": self.format, **self.at}
        if self.branch is not None:
            told["branch"] = self.branch
        if self.notes.kept:
            told["kept"] = self.notes.kept
        left = [note for note in self.notes.said if note.kind == "left"]
        if left:
            told["left"] = [note.path if note.what == LEFT else f"{note.path} ({note.what})" for note in left]
        for kind in ("unmapped", "made"):
            said = [{"path": note.path, "what": note.what} for note in self.notes.said if note.kind == kind]
            if said:
                told[kind] = said
        if self.notes.more:
            told["more_notes"] = self.notes.more
        if self.inferred:
            told["inferred_tools"] = self.inferred
        return told
