"""Statement: a visible reply as a judge reads it, with the numbers, moments and questions that it holds.

A person writes "$1,250.00", "1250" or "twelve"; a tool returns 1250.0. Numbers are whole tokens: 5 stands neither in 15
nor in 5.7, nor in a date, a clock time or an ordinal.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from cm2.judge import moments
from cm2.judge.text import TENS, UNITS, WORDS, clean, fold, holds

_WORD_NUMBER = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(TENS)})(?:[ -](?P<unit>{'|'.join(UNITS[1:10])}))?|(?P<small>{'|'.join(UNITS)}))"
    r"(?P<hundred> hundred)?\b"
)
_UNIT = "kg|km|lbs?|mi|oz|ml|cm|mm|ft|gb|mb|tb|mins?|hrs?|secs?|mph|usd|eur|gbp|°[cf]?|[cfghklmsx]"
_DIGITS = re.compile(
    r"(?<![\w])(?<!\d[.:/])(?P<sign>(?:(?<=\s)|(?<=^)|(?<=[(\[]))-(?=[$€£¥]?\d))?[$€£¥]?"
    r"(?P<number>\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+,\d{2}(?=\s?€)|\d+(?:\.\d+)?|\.\d+)"
    rf"(?![.:]\d)(?P<unit>(?:{_UNIT})\b|)(?![\w])"
)
_EUROPEAN = re.compile(r"\d{1,3}(?:\.\d{3})+,\d{1,2}|\d+,\d{2}")

_SENTENCE_END = re.compile(r"(?<=[.!?？])\s+|\n+")
_REQUEST = re.compile(
    r"\b(?:please (?:\w+ ){0,2}?(?:provide|tell|specify|share|confirm|let me know|give|clarify|choose|select|enter"
    r"|verify)"
    r"|let me know (?:which|what|when|where|who|how|your|the|if|whether)"
    r"|(?:i|we)(?:'ll| will|'d| would)? (?:also |just |still )?need (?:to know |to have )?"
    r"(?:your|the|a|an|some|more|which|what)"
    r"|(?:tell|give) me (?:your|the|which|what|more))\b"
)
_COURTESY = re.compile(
    r"\b(?:anything|something|any) (?:else|other|more)\b"
    r"|\b(?:further|additional|other) (?:assistance|help|questions?)\b"
    r"|\b(?:can|may|could) i (?:help|assist)(?: you)?"
    r"(?: with (?:anything|something).*| further.*| more.*| today)?\s*\??$"
    r"|\bhow are you\b|\bneed (?:any )?(?:more|further) (?:help|assistance)\b|\blet me know if (?:you|there)\b"
)


class Statement:
    """A visible reply as a judge reads it. Parts are computed when asked for and kept."""

    def __init__(self, text: str):
        self.text = clean(text)

    @cached_property
    def folded(self) -> str:
        """The text, folded."""
        return fold(self.text)

    @cached_property
    def numbers(self) -> list[tuple[float, int]]:
        """Every number that the text states, with the count of decimals shown; dates and clock times are none."""
        text = moments.without(self.text.casefold())
        found = _digits(text)
        for match in _WORD_NUMBER.finditer(text):
            value = WORDS[match["tens"]] + WORDS.get(match["unit"] or "", 0) if match["tens"] else WORDS[match["small"]]
            found.append((float(value * (100 if match["hundred"] else 1)), 0))
        return found

    def states_text(self, value: str) -> bool:
        """Whether the text states these words."""
        return holds(self.folded, fold(value))

    def states_number(self, value: float) -> bool:
        """Whether the text states this number. A value of more than two decimals may be stated rounded."""
        exact = f"{value:.10f}".rstrip("0")
        fine = len(exact.partition(".")[2]) > 2
        for number, decimals in self.numbers:
            if abs(number - value) <= max(1e-9, 1e-12 * abs(value)):
                return True
            if fine and decimals >= 1 and abs(number - value) <= 0.5 * 10.0**-decimals + 1e-12:
                return True
        return False

    def states_date(self, value: moments.Day) -> bool:
        """Whether the text states a date that agrees with the value in everything that it says."""
        return any(moments.same_day(value, day) for day in moments.dates(self.text))

    def states_time(self, value: moments.Clock) -> bool:
        """Whether the text states a clock time that agrees with the value."""
        return any(moments.same_time(value, clock) for clock in moments.times(self.text))

    @cached_property
    def questions(self) -> list[str]:
        """The sentences that ask the person for something; courtesies ("anything else?") are not among them."""
        found = []
        for sentence in _SENTENCE_END.split(self.text):
            low = sentence.strip().rstrip("\"')*_ ").casefold()
            asks = low.endswith(("?", "？")) or bool(_REQUEST.search(low))
            if asks and not _COURTESY.search(low):
                found.append(sentence.strip())
        return found


def _digits(text: str) -> list[tuple[float, int]]:
    found = []
    for match in _DIGITS.finditer(text):
        digits = match["number"]
        if _EUROPEAN.fullmatch(digits):
            digits = digits.replace(".", "").replace(",", ".")
        digits = digits.replace(",", "")
        scale = 1000.0 if match["unit"] == "k" else 1.0
        found.append((float(digits) * scale * (-1 if match["sign"] else 1), len(digits.partition(".")[2])))
    return found


def number_of(text: str) -> float | None:
    """The number that a whole text is ("$5.00", "five", "1,250"), or None where it is anything else."""
    match = _DIGITS.fullmatch(clean(text).strip().casefold())
    if match and match["unit"] == "":
        return _digits(clean(text).strip().casefold())[0][0]
    word = _WORD_NUMBER.fullmatch(clean(text).strip().casefold())
    return Statement(text).numbers[0][0] if word else None


@lru_cache(maxsize=4096)
def statement(text: str) -> Statement:
    """The reading of a reply, cached by its text."""
    return Statement(text)
