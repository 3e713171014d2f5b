"""Dates and clock times in their usual spellings.

A tool writes 2019-03-01 and 16:00; a person reads "March 1st", "3/1" or "4 pm". What a spelling leaves out (the year,
the half of the day) is free: it matches every moment that agrees with what it says.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from cm2.judge.text import WORDS, clean

_MONTHS = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
_MONTH = {name: number for number, name in enumerate(_MONTHS, 1)} | {name[:3]: n for n, name in enumerate(_MONTHS, 1)}
_MONTH["sept"] = 9
_NAMES = "|".join(sorted(_MONTH, key=len, reverse=True))
_ORDINALS = (  # noqa: SIM905
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_DAY_WORDS = {word: number for number, word in enumerate(_ORDINALS, 1)} | {"thirtieth": 30, "thirty-first": 31}
_DAY_WORDS |= {f"twenty-{word}": 20 + number for word, number in list(_DAY_WORDS.items())[:9]}
_DAY = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{'|'.join(sorted(_DAY_WORDS, key=len, reverse=True))})"
_DATES = (
    re.compile(r"(?<![\d-])(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})(?!\d)"),
    re.compile(r"(?<![\d/.-])(?P<month>\d{1,2})[/.-](?P<day>\d{1,2})[/.-](?P<year>\d{4}|\d{2})(?![\d/-])"),
    re.compile(r"(?<![\d/.-])(?P<month>\d{1,2})/(?P<day>\d{1,2})(?![\d/-])"),
    re.compile(rf"\b(?P<name>{_NAMES})\b\.?,? +(?:the +)?(?P<day>{_DAY})\b(?:,? +(?P<year>\d{{4}})\b)?"),
    re.compile(rf"\b(?P<day>{_DAY}) +(?:of +)?(?P<name>{_NAMES})\b(?:\.?,? +(?P<year>\d{{4}})\b)?"),
    re.compile(r"\bthe (?P<day>\d{1,2}(?:st|nd|rd|th))\b"),
)

_HOUR_WORDS = "|".join(word for word, number in WORDS.items() if 1 <= number <= 12)
_HALF = r"(?P<half>a\.?m\b\.?|p\.?m\b\.?|in the (?:morning|afternoon|evening)|at night|tonight)"
_MINUTE_WORDS = {"fifteen": 15, "thirty": 30, "forty-five": 45, "forty five": 45}
_TIMES = (
    re.compile(rf"\b(?P<shift>half past|quarter past|quarter to) (?P<hour>\d{{1,2}}|{_HOUR_WORDS})\b(?: *{_HALF})?"),
    re.compile(rf"(?<![\d:.])(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::\d{{2}}(?:\.\d+)?)?(?![\d:])(?: *{_HALF})?"),
    re.compile(
        rf"(?<![\w:.])(?P<hour>\d{{1,2}}|{_HOUR_WORDS})(?:[ -](?P<minute>{'|'.join(_MINUTE_WORDS)}))?"
        rf" *(?:o'?clock(?: *{_HALF})?|{_HALF.replace('half', 'half2')})"
    ),
    re.compile(r"\b(?P<name>noon|midday|midnight)\b"),
    re.compile(r"\b(?:at|from|until|till|by|around|for|to) (?P<hour>\d{1,2})(?![\w:/-]|[.,]\d)"),
)
# What `without` leaves in place: "4/5" may be a score, "at 5" a price.
_VAGUE = (_DATES[2], _TIMES[-1])
_CLOCK = re.compile(r"(?:\d{4}-\d{2}-\d{2}[t ])?(\d{2}):(\d{2})(?::\d{2}(?:\.\d+)?)?(?:z|[+-]\d{2}:?\d{2})?")


class Day(NamedTuple):
    """A calendar day; the month or year is None where the spelling leaves it out."""

    year: int | None
    month: int | None
    day: int


class Clock(NamedTuple):
    """Minutes after midnight; `exact` is False where the spelling leaves the half of the day open (minutes < 720)."""

    minutes: int
    exact: bool


@lru_cache(maxsize=4096)
def dates(text: str) -> tuple[Day, ...]:
    """Every date that the text states. "3/1" is March 1st; where the first number cannot be a month it is the day."""
    text = clean(text).casefold()
    found: dict[Day, None] = {}
    for pattern in _DATES:
        for match in pattern.finditer(text):
            groups = match.groupdict()
            day_text = groups["day"]
            day = _DAY_WORDS.get(day_text) or int(re.match(r"\d+", day_text)[0])  # type: ignore[index]
            month = (
                _MONTH[groups["name"]] if groups.get("name") else int(groups["month"]) if groups.get("month") else None
            )
            year = int(groups["year"]) if groups.get("year") else None
            if year is not None and year < 100:
                year += 2000
            if month is not None and month > 12 >= day:
                month, day = day, month
            if 1 <= day <= 31 and (month is None or 1 <= month <= 12):
                found[Day(year, month, day)] = None
    return tuple(found)


@lru_cache(maxsize=4096)
def times(text: str) -> tuple[Clock, ...]:
    """Every clock time that the text states."""
    text = clean(text).casefold()
    found: dict[Clock, None] = {}
    for pattern in _TIMES:
        for match in pattern.finditer(text):
            clock = _clock(match.groupdict())
            if clock is not None:
                found[clock] = None
        text = pattern.sub(" ", text)
    return tuple(found)


def without(text: str) -> str:
    """A lower-case text with its dates and clock times blanked out, so that their digits are not taken for numbers."""
    for pattern in (*_DATES, *_TIMES):
        if pattern not in _VAGUE:
            text = pattern.sub(" ", text)
    return text


def _clock(groups: dict[str, str | None]) -> Clock | None:
    if groups.get("name"):
        return Clock(0 if groups["name"] == "midnight" else 720, True)
    said = groups["hour"] or ""
    hour = WORDS[said] if said in WORDS else int(said)
    minute_text = groups.get("minute") or "0"
    minute = _MINUTE_WORDS[minute_text] if minute_text in _MINUTE_WORDS else int(minute_text)
    half = groups.get("half") or groups.get("half2")
    shift = {"half past": 30, "quarter past": 15, "quarter to": -15}.get(groups.get("shift") or "", 0)
    if hour > 24 or minute > 59 or (half and hour > 12 and not half.startswith(("a", "p"))):
        return None
    exact = half is not None or hour > 12 or hour == 0 or said.startswith("0")
    if half and hour <= 12:
        later = half.startswith("p") or "afternoon" in half or "evening" in half or "night" in half
        hour = hour % 12 + (12 if later else 0)
    total = (hour * 60 + minute + shift) % 1440
    return Clock(total if exact else total % 720, exact)


def date_of(text: str) -> Day | None:
    """The one date that a value names, or None where it names none or several."""
    found = dates(text)
    return found[0] if len(found) == 1 else None


def time_of(text: str) -> Clock | None:
    """The one clock time that a value names ("16:00", "2019-03-01T16:00:00Z", "4 pm"), or None for none or several.

    A value of the form HH:MM is read on the 24-hour clock.
    """
    match = _CLOCK.fullmatch(text.strip().casefold())
    if match:
        minutes = int(match[1]) * 60 + int(match[2])
        return Clock(minutes, True) if minutes < 1440 and int(match[2]) < 60 else None
    found = times(text)
    return found[0] if len(found) == 1 else None


def same_day(value: Day, stated: Day) -> bool:
    """Whether a stated date agrees with the value in everything that both say."""
    return value.day == stated.day and all(
        a is None or b is None or a == b for a, b in ((value.month, stated.month), (value.year, stated.year))
    )


def same_time(value: Clock, stated: Clock) -> bool:
    """Whether a stated time agrees with the value; an open half of the day agrees with both."""
    if value.exact and stated.exact:
        return value.minutes == stated.minutes
    return value.minutes % 720 == stated.minutes % 720
