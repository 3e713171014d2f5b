"""Functions that expressions may call, beside those of the language.

They are pure and take time linear in what they are given. A value that one cannot take is an error, which leaves the
item unscored; an expression that must live with anything gives `get` a default.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cm2.judge import moments
from cm2.judge.assent import confirms
from cm2.judge.statement import number_of, statement
from cm2.judge.text import clean, fold
from cm2.judge.text import holds as whole_words
from cm2.judge.values import contains as holds_member
from cm2.judge.values import equal, is_number, scalar_text, search, walk

_FIGURE = re.compile(r"(?<![\w.])[#$€£]?\d[\d,]*(?:\.\d+)?%?(?![\w])|\b(?=\w*\d)(?=\w*[A-Za-z])\w{4,}\b")
_DIGIT = re.compile(r"\d")
SMALL = 12
"""Numbers up to this need no source: they count things."""
CENT = 0.005 + 1e-9


def mentions(text: str, value: Any) -> bool:
    """Whether the text states the value: a number, date or time in any usual spelling, other text as whole words; of a
    list every element. Nothing (null, "", []) is never mentioned."""
    if isinstance(value, list):
        return bool(value) and all(mentions(text, one) for one in value)
    if value is None or value == "" or isinstance(value, dict):
        return False
    said = statement(text)
    if is_number(value):
        return said.states_number(float(value))
    spelt = scalar_text(value)
    if said.states_text(spelt):
        return True
    number = number_of(spelt)
    if number is not None:
        return said.states_number(number)
    if not moments.without(spelt.casefold()).strip(" ,tz"):
        day, clock = moments.date_of(spelt), moments.time_of(spelt)
        found = [said.states_date(day)] if day else []
        found += [said.states_time(clock)] if clock else []
        return bool(found) and all(found)
    return False


def mentions_any(text: str, values: list[Any]) -> bool:
    """Whether the text states at least one of the values."""
    return any(mentions(text, value) for value in values)


def leaves(value: Any) -> list[Any]:
    """Every text and number inside a value; true, false and null are left out."""
    return [leaf for leaf in walk(value, keys=False) if not isinstance(leaf, bool) and leaf != ""]


@lru_cache(maxsize=4096)
def _figures(text: str) -> tuple[str, ...]:
    if not _DIGIT.search(text):
        return ()
    return tuple(dict.fromkeys(one.strip("#") for one in _FIGURE.findall(moments.without(clean(text).casefold()))))


def figures(text: str) -> list[str]:
    """Amounts, counts and codes that the text states with digits; dates and clock times are left out."""
    return list(_figures(text))


def unsupported(text: str, sources: list[Any]) -> list[str]:
    """The figures of the text that stand in none of the sources (texts or JSON values); small counts need none."""
    wanted = [one for one in _figures(text) if not (one.isdigit() and len(one) < 3 and int(one) <= SMALL)]
    if not wanted:
        return []
    texts = [one if isinstance(one, str) else scalar_text(one) for one in sources]
    missing = [one for one in wanted if not any(_stands(fold(one), source) for source in texts)]
    return [one for one in missing if not _counted(one, texts)]


def _counted(figure: str, texts: list[str]) -> bool:
    """Whether a figure is a number of one of the texts, to the cent."""
    number = number_of(figure.rstrip("%"))
    return number is not None and any(
        abs(number - other) <= CENT for source in texts for other, _ in statement(source).numbers
    )


def _stands(figure: str, source: str) -> bool:
    return figure in _words(source) if " " not in figure else whole_words(fold(source), figure)


@lru_cache(maxsize=2048)
def _words(text: str) -> frozenset[str]:
    return frozenset(fold(text).split())


def num(value: Any) -> float:
    """The number that a value is, or that its text is: "$1,200" is 1200.0.

    Raises:
        ValueError: it is none.
    """
    if is_number(value):
        return float(value)
    number = number_of(value) if isinstance(value, str) else None
    if number is None:
        raise ValueError(f"{_cut(value)} is no number")
    return number


def day(text: str) -> datetime:
    """The day that a text names, at midnight UTC. The text must name exactly one, with its year.

    Raises:
        ValueError: it does not.
    """
    found = moments.date_of(text)
    if found is None or found.year is None or found.month is None:
        raise ValueError(f"{_cut(text)} names no day with a year")
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def moment(text: str) -> datetime:
    """The moment that a text names: ISO 8601 (UTC where it names no zone), or a day with its year and a clock time.

    Raises:
        ValueError: it names none.
    """
    try:
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except ValueError:
        clock = moments.time_of(text)
        if clock is None:
            raise ValueError(f"{_cut(text)} names no moment") from None
        date = day(text)
        return date.replace(hour=clock.minutes // 60, minute=clock.minutes % 60)


def minutes_between(first: Any, then: Any) -> float:
    """Minutes from one moment to another, timestamps or texts; negative where the second is earlier."""
    left = first if isinstance(first, datetime) else moment(first)
    right = then if isinstance(then, datetime) else moment(then)
    return (right - left).total_seconds() / 60


def get(value: Any, path: str, default: Any = None) -> Any:
    """The value at a JMESPath, or the default where there is none or it is null."""
    found = search(path, value)
    return default if found is None else found


def unique(values: list[Any]) -> list[Any]:
    """The list without repeated values; the first of each stays."""
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(_key(value), value)
    return list(found.values())


def total(values: list[Any]) -> float:
    """The sum of numbers, or of what texts say in numbers."""
    return float(sum(num(value) for value in values))


def largest(values: list[Any]) -> float:
    """The largest of numbers.

    Raises:
        ValueError: there is none.
    """
    return max(num(value) for value in values)


def smallest(values: list[Any]) -> float:
    """The smallest of numbers.

    Raises:
        ValueError: there is none.
    """
    return min(num(value) for value in values)


def flat(values: list[Any]) -> list[Any]:
    """A list of lists as one list."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same, whatever the case, spacing and punctuation of texts; "5" and 5 are the same."""
    if equal(left, right, True):
        return True
    scalars = isinstance(left, (str, int, float)) and isinstance(right, (str, int, float))
    return scalars and fold(scalar_text(left)) == fold(scalar_text(right)) != ""


def text(value: Any) -> str:
    """A value as text: scalars as they are, others as JSON."""
    return scalar_text(value)


def words(value: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return fold(value).split()


def asks(value: str) -> bool:
    """Whether the text asks the person for something; courtesies ("anything else?") do not."""
    return bool(statement(value).questions)


def holds(value: Any, part: Any) -> bool:
    """Whether a text holds a text as whole words, a list a value, or an object members."""
    return holds_member(value, part)


def _key(value: Any) -> str:
    return f"{type(value).__name__ if isinstance(value, bool) else ''}{scalar_text(value)}"


def _cut(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else told[:57] + "…"


ANY = ("string", "int", "uint", "double", "bool", "null", "list", "map")
FUNCTIONS: dict[str, tuple[Callable[..., Any], str, tuple[tuple[str, ...], ...]]] = {
    "confirms": (confirms, "bool", (("string",),)),
    "mentions": (mentions, "bool", (("string",), ANY)),
    "mentions_any": (mentions_any, "bool", (("string",), ("list",))),
    "leaves": (leaves, "list", (ANY,)),
    "figures": (figures, "list", (("string",),)),
    "unsupported": (unsupported, "list", (("string",), ("list",))),
    "asks": (asks, "bool", (("string",),)),
    "holds": (holds, "bool", (("string", "list", "map", "null"), ANY)),
    "lower": (str.casefold, "string", (("string",),)),
    "words": (words, "list", (("string",),)),
    "text": (text, "string", (ANY,)),
    "num": (num, "dyn", (ANY,)),
    "day": (day, "timestamp", (("string",),)),
    "moment": (moment, "timestamp", (("string",),)),
    "minutes_between": (minutes_between, "dyn", (("string", "timestamp"), ("string", "timestamp"))),
    "get": (get, "dyn", (ANY, ("string",), ANY)),
    "unique": (unique, "list", (("list",),)),
    "sum": (total, "dyn", (("list",),)),
    "max": (largest, "dyn", (("list",),)),
    "min": (smallest, "dyn", (("list",),)),
    "flat": (flat, "list", (("list",),)),
    "same": (same, "bool", (ANY, ANY)),
}
"""Name: what computes it, the type of its result, and the types that each parameter may have."""
