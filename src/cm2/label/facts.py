"""Facts: what a reply of the reference states that only the tools could have told.

A fact is found by its value and kept as a place (tool and path): another world's value passes where the reply is
grounded. What the user had said, what the call itself carried, flags and words that stand in any sentence are no facts.
A record of a list counts only where the reply or the user names it; else any number of it would be a coincidence.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cm2.check import Fact
from cm2.judge.checks import State, fact_values, states
from cm2.judge.moments import date_of, time_of
from cm2.judge.statement import Statement, number_of, statement
from cm2.judge.text import fold
from cm2.judge.values import is_number, scalar_text
from cm2.label.arguments import is_reference
from cm2.label.heard import FLAGS, STOPWORDS, Heard, content_words, moment_kind
from cm2.label.paths import Leaf, chosen, exact, literal, wide
from cm2.label.sources import Source, Sources
from cm2.writes import words

_INQUIRY = re.compile(
    r"\b(?:tell|give|what|which|how|when|where|who|know|show|say|list|read|state|report|need|is|are)\b([^.?!]*)"
)
PROSE_WORDS = 7
"""From so many words on, a text may be told in other words."""
MESSAGE_WORDS = 2
"""The same of a field that is a message by its name."""
_MESSAGE = frozenset("message msg confirmation note info detail details description text".split())  # noqa: SIM905
_SMALL = 12
_SHARE = 0.5
_MOST_WORDS = 6
_MOST_CONDITIONS = 3


class Stated(msgspec.Struct):
    """A fact of a reply. For a text that may be told in other words `pattern` stands in for the value."""

    source: Source
    leaf: Leaf
    fact: Fact
    asked: bool
    """Whether the user (or the system prompt) asked for it by name."""
    asked_now: bool
    """Whether the user's message of this turn asked for it by name."""
    told_before: bool
    """Whether an earlier reply of the reference had stated it."""
    sure: bool
    """Whether the path finds this record alone."""
    pattern: str | None = None
    says: list[str] = []
    """The words that the pattern looks for."""


class Facts:
    """Finds the facts of replies.

    Args:
        heard: what the user had said.
        sources: what the tools had answered.
    """

    def __init__(self, heard: Heard, sources: Sources):
        self.heard, self.sources = heard, sources

    def of(self, state: State) -> list[Stated]:
        """The facts that the reply which ends the turn states, those of the latest answers first."""
        if state.reply is None:
            return []
        said, found = statement(state.reply), {}
        for source in self.sources.before(state.turn, len(state.steps)):
            anchored = self._anchors(source, said, state.turn)
            for leaf in source.leaves:
                if not self._tells(source, leaf, said, state.turn, anchored):
                    continue
                key = fold(scalar_text(leaf.value))
                if key not in found:
                    stated = self._placed(source, leaf, state, said)
                    if stated is not None:
                        found[key] = stated
        return list(found.values())

    def _anchors(self, source: Source, said: Statement, turn: int) -> set[tuple[Any, ...]]:
        """The records of lists (as key prefixes) that the reply or the user names by a text of theirs."""
        found: set[tuple[Any, ...]] = set()
        for leaf in source.leaves:
            at = _record(leaf)
            if at is None or not isinstance(leaf.value, str) or at in found or _weak(leaf.value):
                continue
            if said.states_text(leaf.value) or self.heard.named_at(leaf.value, turn) is not None:
                found.add(at)
        return found

    def _tells(self, source: Source, leaf: Leaf, said: Statement, turn: int, anchored: set[tuple[Any, ...]]) -> bool:
        value = leaf.value
        if isinstance(value, bool):
            return False
        if _is_prose(leaf):
            return len(_told_words(value, said, self.heard, turn)) > 1
        if isinstance(value, str) and not any(map(str.isdigit, value)) and not said.states_text(value):
            return False
        kind = kind_of(leaf)
        if (isinstance(value, str) and kind == "text" and _weak(value)) or not states(said, value, kind):
            return False
        if source.echoes(value) or self.heard.named_at(value, turn) is not None:
            return False
        record = _record(leaf)
        if record is not None and kind != "text" and record not in anchored:
            return False
        number = value if is_number(value) else number_of(value) if isinstance(value, str) else None
        if number is not None and kind == "number" and abs(number) <= _SMALL and number == int(number):
            return source.turn == turn and (record is None or record in anchored)
        return True

    def _placed(self, source: Source, leaf: Leaf, state: State, said: Statement) -> Stated | None:
        """The fact by its place, where the latest answer of the tool that has the place has the value."""
        kind, turn = kind_of(leaf), state.turn
        path, sure = chosen(source.value, leaf.keys, self.heard.chooser(turn), self.heard.wish(turn))
        now = _asks_for(self.heard.messages[turn], leaf)
        before = [statement(earlier.reply) for earlier in state.dialogue.turns[:turn] if earlier.reply]
        told = any(states(each, leaf.value, kind) for each in before)
        asked = (now or _asks_for(self.heard.system, leaf), now, told)
        if _is_prose(leaf):
            gist = _told_words(leaf.value, said, self.heard, turn)[:_MOST_WORDS]
            choice = "|".join(map(re.escape, gist))
            pattern = rf"(?is)\b(?:{choice}).*\b(?:{choice})"
            return Stated(
                source, leaf, Fact([leaf.value], tool=source.tool, path=path or None), *asked, sure, pattern, gist
            )
        for each in dict.fromkeys((path, _told_apart(source, path), wide(leaf.keys))):
            fact = Fact([], kind, source.tool, each or None)
            values, _ = fact_values(fact, state)
            if any(scalar_text(value) == scalar_text(leaf.value) for value in values if _scalar(value)):
                return Stated(source, leaf, fact, *asked, sure and each == path)
        return None


def _told_apart(source: Source, path: str) -> str:
    """The path, only in an answer that repeats what the call asked for: tells two calls of one tool apart."""
    repeated = [
        f"{exact(leaf.keys)}=={literal(leaf.value)}"
        for leaf in source.leaves
        if isinstance(leaf.value, str)
        and leaf.keys
        and not any(leaf.keys[at] for at in _indexes(leaf))
        and source.echoes(leaf.value)
    ]
    return f"[@][?{' && '.join(repeated[:_MOST_CONDITIONS])}].{path}" if repeated and path else path


def _indexes(leaf: Leaf) -> list[int]:
    return [at for at, key in enumerate(leaf.keys) if isinstance(key, int)]


def _asks_for(said: Statement, leaf: Leaf) -> bool:
    """Whether a message asks to be told what a value is called: "give me the code", "what is the total"."""
    wanted = {word for span in _INQUIRY.findall(said.text.casefold()) for word in words(span)}
    named = {word for word in words(leaf.name) if word not in STOPWORDS and len(word) > 2}
    return bool(wanted & {form for word in named for form in (word, f"{word}s", word.rstrip("s"))})


def _is_prose(leaf: Leaf) -> bool:
    """Whether a value is a text that a reply may tell in other words."""
    many = len(leaf.value.split()) if isinstance(leaf.value, str) else 0
    return many >= PROSE_WORDS or (many >= MESSAGE_WORDS and bool(_MESSAGE & set(words(leaf.name))))


def kind_of(leaf: Leaf) -> Any:
    """How a value is compared with what a reply states."""
    value = leaf.value
    if is_number(value):
        return "number"
    moment = moment_kind(value)
    if moment in ("date", "time") and (date_of(value) if moment == "date" else time_of(value)) is not None:
        return moment
    if any(char.isdigit() for char in value) and number_of(value) is not None and not is_reference(leaf.name, value):
        return "number"
    return "text"


def _record(leaf: Leaf) -> tuple[Any, ...] | None:
    """The record of a list that a leaf belongs to, as its keys; None outside lists of objects."""
    at = next((at for at in range(len(leaf.keys) - 1, -1, -1) if isinstance(leaf.keys[at], int)), None)
    return None if at is None or at == len(leaf.keys) - 1 else leaf.keys[: at + 1]


def _weak(text: str) -> bool:
    """Whether a text stands in any sentence: a flag, a short common word."""
    folded = fold(text)
    digits = any(char.isdigit() for char in folded)
    if len(folded) < (2 if digits else 3) or folded in FLAGS or not (digits or content_words(text)):
        return True
    return folded.isalpha() and text.islower() and len(folded) < 5


def _told_words(value: str, said: Statement, heard: Heard, turn: int) -> list[str]:
    """The words of a long text that the reply has too and the user had not: enough of them, or none."""
    subject = [word for word in content_words(value) if len(word) > 3]
    told = [word for word in subject if f" {word} " in f" {said.folded} "]
    if len(told) < max(2, _SHARE * len(subject)):
        return []
    heard_too = set(heard.shared(value, turn))
    return [word for word in told if word not in heard_too]


def _scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, (dict, list))
