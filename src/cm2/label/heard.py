"""Heard: what the user (and the system prompt) had said by a turn of the reference.

A value that the user named is matched by value; one that nobody named must have come from a tool. "Named" is read as a
person would: "two rooms" names 2, "4pm" names "4 pm" and "16:00", "March 10th" names "2019-03-10".
"""

from __future__ import annotations

import calendar
import re
from functools import lru_cache
from typing import Any

from cm2.dialogue import Dialogue
from cm2.judge import moments
from cm2.judge.statement import Statement, number_of, statement
from cm2.judge.text import fold, holds
from cm2.judge.values import is_number, scalar_text
from cm2.writes import words

FLAGS = frozenset({"true", "false", "yes", "no"})
# Words that say nothing about a subject.
STOPWORDS = frozenset(
    """a about above after again all also am an and any anything are as at available back be because been before being
    but by can cannot could did do does doing done dont each else enjoy few find for from further get give go going good
    got great had happy has have having hello help here hi how however i ill im in into is it its ive just kind know let
    like look looking make may me might more most much must my need no not now of off ok okay on once one only or other
    our out over please problem provide really right said same say see shall she should sir so some something sorry
    still such sure take tell than thank thanks that the their them then there these they thing this those through time
    to too under until up us very want was we well were what when where which while who whom whose why will with would
    yes yet you your yours unfortunately able unable assist assistance assistant using use used today cant wont isnt
    doesnt didnt youd youre youll weve id hes shes theres thats whats lets certainly course absolutely hey glad wish
    seem seems mean means understand quite""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W_]+")


def content_words(text: str) -> list[str]:
    """The folded words of a text that carry a subject, in order, without repetition."""
    found = dict.fromkeys(_WORD.findall(fold(text)))
    return [word for word in found if word not in STOPWORDS and (len(word) > 2 or word.isdigit())]


class Heard:
    """What had been said to the assistant, message by message.

    Args:
        dialogue: the reference.
    """

    def __init__(self, dialogue: Dialogue):
        self.messages: list[Statement] = [statement(turn.user) for turn in dialogue.turns]
        self.system = statement(dialogue.system or "")
        self._all = "\n".join(message.folded for message in self.messages)
        self._cache: dict[str, tuple[int, int | None]] = {}
        """By value: how many messages were looked at, and the first of them that names it."""

    def named_at(self, value: Any, turn: int) -> int | None:
        """The first user message up to and with `turn` that names the value, or None."""
        text = scalar_text(value)
        if isinstance(value, str) and not any(map(str.isdigit, text)) and fold(text) not in self._all:
            return None
        key = f"{type(value).__name__} {text}"
        seen, first = self._cache.get(key, (0, None))
        if first is None and seen <= turn:
            first = next((t for t in range(seen, turn + 1) if names(self.messages[t], value)), None)
            self._cache[key] = turn + 1, first
        return first if first is not None and first <= turn else None

    def flagged(self, name: str, turn: int) -> bool:
        """Whether the user spoke of what a flag is called ("no insurance" speaks of `travel_insurance`)."""
        subject = [word for word in words(name) if word not in STOPWORDS and len(word) > 3]
        return any(holds(self.messages[t].folded, word) for t in range(turn + 1) for word in subject)

    def chooser(self, turn: int) -> Any:
        """A test for `cm2.label.paths.chosen`: whether the user named a member of a record."""

        def named(value: Any, name: str) -> bool:
            if isinstance(value, bool):
                return value and self.flagged(name, turn)
            if isinstance(value, str) and value.lower() in FLAGS:
                return value.lower() in ("true", "yes") and self.flagged(name, turn)
            return self.named_at(value, turn) is not None

        return named

    def wish(self, turn: int) -> str:
        """The user's words of this turn and the one before, lower case."""
        return " ".join(message.text.casefold() for message in self.messages[max(0, turn - 1) : turn + 1])

    def shared(self, text: str, turn: int) -> list[str]:
        """The content words of a text that the user had said too."""
        said = self._words(turn)
        return [word for word in content_words(text) if word in said or word.rstrip("s") in said]

    def _words(self, turn: int) -> set[str]:
        return {word for message in self.messages[: turn + 1] for word in _said(message.text)}

    def initials(self, text: str, turn: int) -> str:
        """The user's abbreviation of a name of several words ("SF" for "San Francisco"), "" where there is none."""
        short = "".join(word[0] for word in _WORD.findall(text))
        if not 1 < len(short) < 6 or not any(re.search(rf"\b{short}\b", m.text) for m in self.messages[: turn + 1]):
            return ""
        return short

    def system_names(self, value: Any) -> bool:
        """Whether the system prompt names the value."""
        return names(self.system, value)


@lru_cache(maxsize=4096)
def _said(text: str) -> frozenset[str]:
    found = content_words(text)
    return frozenset([*found, *(word.rstrip("s") for word in found)])


def names(said: Statement, value: Any) -> bool:
    """Whether a message names a scalar, in any usual spelling of a number, date or time."""
    if isinstance(value, bool):
        return False
    if is_number(value):
        return said.states_number(float(value))
    text = str(value)
    if said.states_text(text):
        return True
    if not any(char.isdigit() for char in text):
        return False
    number = number_of(text)
    if number is not None and number < 10000:
        return said.states_number(number)
    kind = moment_kind(text)
    day, clock = moments.date_of(text), moments.time_of(text)
    if kind == "date":
        return day is not None and said.states_date(day)
    if kind == "time":
        return clock is not None and said.states_time(clock)
    if kind == "date-time":
        return day is not None and clock is not None and said.states_date(day) and said.states_time(clock)
    return False


_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}(?:/\d{2,4})?|\d{1,2}(?:st|nd|rd|th)")
_TIME = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]\.?m\.?)?|\d{1,2} ?[ap]\.?m\.?", re.IGNORECASE)
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?Z?")


def moment_kind(text: str) -> str:
    """ "date", "time" or "date-time" where a whole text is one, else ""."""
    text = text.strip()
    for kind, pattern in (("date", _DATE), ("time", _TIME), ("date-time", _DATE_TIME)):
        if pattern.fullmatch(text):
            return kind
    named = re.search(r"[A-Za-z]{3}", text) and len(text) < 24 and moments.date_of(text)
    return "date" if named and moments.date_of(text).month else ""  # type: ignore[union-attr]


def spellings(text: str) -> list[str]:
    """The usual spellings of a date or time, the given one first; [] where the text is neither."""
    kind, text = moment_kind(text), text.strip()
    if kind == "date":
        return list(dict.fromkeys([text, *_date_spellings(text)]))
    if kind == "time":
        return list(dict.fromkeys([text, *_time_spellings(text)]))
    if kind == "date-time":
        day, clock = text[:10], text[11:16]
        return list(
            dict.fromkeys([text, *(f"{day}{mark}{clock}{end}" for mark in "T " for end in ("", ":00", ":00Z"))])
        )
    return []


def _date_spellings(text: str) -> list[str]:
    day = moments.date_of(text)
    if day is None or day.month is None:
        return []
    month = calendar.month_name[day.month]
    found = [f"{month} {day.day}", f"{day.day} {month}", f"{month} {day.day}{_ordinal(day.day)}"]
    if day.year is None:
        return [*found, f"{day.month}/{day.day}", f"{day.month:02}/{day.day:02}"]
    dated = [f"{day.year}-{day.month:02}-{day.day:02}", f"{day.month}/{day.day}/{day.year}"]
    dated += [f"{day.month:02}/{day.day:02}/{day.year}", *(f"{each} {day.year}" for each in found)]
    return [*dated, *found]


def _time_spellings(text: str) -> list[str]:
    clock = moments.time_of(text)
    if clock is None:
        return []
    hour, minute = divmod(clock.minutes, 60)
    half = "am" if hour < 12 else "pm"
    found = [f"{hour:02}:{minute:02}", f"{hour}:{minute:02}", f"{hour:02}:{minute:02}:00"]
    found += [f"{hour % 12 or 12}:{minute:02} {half}", f"{hour % 12 or 12}:{minute:02}{half}"]
    return found if minute else [*found, f"{hour % 12 or 12} {half}", f"{hour % 12 or 12}{half}"]


def _ordinal(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
