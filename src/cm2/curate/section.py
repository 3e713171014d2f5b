"""Section: the private thinking of one step, where it stands, and how another text takes its place.

A step may have been read from messages that our form would write otherwise (`Step.wire`). Then the new thinking goes
into those messages, into the place of the old, and everything beside it stays as it was: another key, a second message,
white space around the tags. Where that cannot be done so that the messages still read to the step, there is no
replacement, and the thinking stays.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.dialogue import Dialogue, Step
from cm2.formats.content import CLOSE, OPEN
from cm2.formats.message_read import read_step
from cm2.formats.wire import same

_FIELDS = ("reasoning_content", "reasoning")


class Section(msgspec.Struct, frozen=True):
    """The thinking of one step. `turn` is None for a step before the first user message."""

    turn: int | None
    step: int
    thinking: str

    @property
    def place(self) -> str:
        """As a transcript labels it."""
        return f"opening step {self.step}" if self.turn is None else f"turn {self.turn} step {self.step}"

    def of(self, dialogue: Dialogue) -> Step:
        """The step in a dialogue of the same shape."""
        return (dialogue.opening if self.turn is None else dialogue.turns[self.turn].steps)[self.step]


def sections(dialogue: Dialogue) -> list[Section]:
    """Every step that thinks something, in order."""
    steps: list[tuple[int | None, int, Step]] = [(None, s, step) for s, step in enumerate(dialogue.opening)]
    steps += [(t, s, step) for t, turn in enumerate(dialogue.turns) for s, step in enumerate(turn.steps)]
    return [Section(t, s, step.thinking) for t, s, step in steps if step.thinking and step.thinking.strip()]


def rewritten(dialogue: Dialogue, texts: dict[Section, str]) -> Dialogue:
    """The dialogue with other thinking in some steps. Sections that cannot be replaced must not be among them."""

    def steps(turn: int | None, old: list[Step]) -> list[Step]:
        new = list(old)
        for section, text in texts.items():
            if section.turn == turn:
                made = with_thinking(old[section.step], text)
                assert made is not None
                new[section.step] = made
        return new

    turns = [replace(turn, steps=steps(t, turn.steps)) for t, turn in enumerate(dialogue.turns)]
    return replace(dialogue, opening=steps(None, dialogue.opening), turns=turns)


def with_thinking(step: Step, text: str) -> Step | None:
    """The step with other thinking, None where its messages cannot be written so."""
    if not isinstance(step.wire, list):
        return replace(step, thinking=text)
    messages, placed = [], False
    for message in step.wire:
        if isinstance(message, dict) and message.get("role") == "assistant":
            message, found = _put(message, "" if placed else text)
            placed = placed or found
        messages.append(message)
    wanted = replace(step, thinking=text, wire=None)
    return replace(wanted, wire=messages) if placed and same(read_step(messages), wanted) else None


def _put(message: dict[str, Any], text: str) -> tuple[dict[str, Any], bool]:
    """The message with this thinking instead of its own, and whether it has any. The first place takes it, others
    become empty."""
    found = False
    new = dict(message)
    for key in _FIELDS:
        if isinstance(message.get(key), str):
            if message[key].strip():
                new[key], text, found = text, "", True
            break
    content = message.get("content")
    if isinstance(content, str) and OPEN in content:
        new["content"], more = _retagged(content, text)
        found = found or more
    return new, found


def _retagged(content: str, text: str) -> tuple[str, bool]:
    """The content with the text in its first thinking section and nothing in any other."""
    parts, at, found = [], 0, False
    while (start := content.find(OPEN, at)) >= 0:
        inside = start + len(OPEN)
        end = content.find(CLOSE, inside)
        end = len(content) if end < 0 else end
        old = content[inside:end]
        parts.append(content[at:inside])
        if old.strip():
            head, tail = old[: len(old) - len(old.lstrip())], old[len(old.rstrip()) :]
            parts.append(f"{head}{text}{tail}" if text else "")
            text, found = "", True
        else:
            parts.append(old)
        at = end
    return "".join([*parts, content[at:]]), found
