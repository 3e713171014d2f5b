"""Saying: what a text states that could be invented: numbers, identifiers, quotations, names; and a memory of it.

Texts are compared folded: case, white space and kinds of quotation marks do not count, `1,200.0` is `1200`, `two` is 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from importlib import resources
from typing import Any

_TOKEN = re.compile(r"\w(?:\w|[-./:@#&+%'’](?=\w)|,(?=\d{3}(?!\d)))*")
_LIST_MARK = re.compile(r"(?:^|(?<=\n))[ \t]*(?:\(?\d{1,2}[.)]|[-*•])(?=\s)|(?<=\s)\(\d\)(?=\s)")
_PLAIN_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)(am|pm|st|nd|rd|th|s|m|h|k|km|kg|g|min|mins|hrs|x|gb|mb|ft|in|cm|mm|%)")
_PARTS = re.compile(r"[-./:@#&+%'’,_]")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_CAMEL = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_QUOTED = re.compile(
    r'"([^"\n]{1,400})"|“([^”\n]{1,400})”|«([^»\n]{1,400})»|`([^`\n]{1,400})`|(?<!\w)[\'‘]([^\'‘’\n]{2,400})[\'’](?!\w)'
)
_ENDS = ".!?:;\n•-–—*([{\"“'‘`«|>#="
_UNDER_TWENTY = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_UNDER_TWENTY)}
_NUMBER_WORDS |= {word: str(10 * value) for value, word in enumerate(_TENS, 2)}
_NOT_COUNTED = {"zero", "one"}
"""Number words that are mostly none ("this one")."""
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "«": '"', "»": '"', "`": "'"})
_OPENERS = frozenset(resources.files("cm2.curate").joinpath("openers.txt").read_text(encoding="utf-8").split())
"""Words that open sentences of any thinking and name nothing."""


def fold(text: str) -> str:
    """The text as it is compared."""
    return " ".join(text.translate(_QUOTES).casefold().split())


def holds(text: str, needle: str) -> bool:
    """Whether something stands in a text as a whole, not inside a longer word."""
    return _holds(fold(text), fold(needle))


def _holds(text: str, needle: str) -> bool:
    if not needle:
        return True
    at = text.find(needle)
    while at >= 0:
        end = at + len(needle)
        free_before = at == 0 or not (_is_word(text[at - 1]) and _is_word(needle[0]))
        free_after = end == len(text) or not (_is_word(text[end]) and _is_word(needle[-1]))
        if free_before and free_after:
            return True
        at = text.find(needle, at + 1)
    return False


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def tokens(text: str) -> list[str]:
    """Words, numbers and what is joined without a space (dates, times, ids, addresses), marks of lists left out."""
    return _TOKEN.findall(_LIST_MARK.sub(" ", text))


def number(value: Any) -> str | None:
    """A number (or text that is nothing but one) in one form; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(text):
        return None
    try:
        found = abs(Decimal(text.replace(",", "")))
    except InvalidOperation:
        return None
    return format(found.normalize(), "f") if found.is_finite() else None


def numbers(text: str) -> set[str]:
    """The numbers that a text states, as digits or words; not those inside of ids, dates and the like."""
    return _numbers(tokens(text), _words(text) - _NOT_COUNTED)


def figures(text: str) -> set[str]:
    """Every number in a text, those inside of ids, dates and the like too: what it can have been taken from."""
    found = tokens(text)
    known = _numbers(found, _words(text))
    for token in found:
        if not token.isalpha() and any(map(str.isdigit, token)):
            for part in (*_PARTS.split(token), *_DIGITS.findall(token)):
                if (figure := number(part)) is not None:
                    known.add(figure)
    return known


def _numbers(found: list[str], words: set[str]) -> set[str]:
    known = {figure for token in found if token[0].isdigit() and (figure := number(token)) is not None}
    return known | {_NUMBER_WORDS[word] for word in words & _NUMBER_WORDS.keys()}


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def identifiers(text: str) -> list[str]:
    """Tokens that are no plain words and no plain numbers: ids, dates, times, addresses, names in code."""
    found = []
    for token in tokens(text):
        if number(token) is None and (
            any(map(str.isdigit, token)) or "_" in token.strip("_") or "@" in token or _CAMEL.search(token)
        ):
            found.append(token)
    return found


def quotations(text: str) -> list[str]:
    """What stands in quotation marks or backticks."""
    return ["".join(groups).strip(" .,!?;:") for groups in _QUOTED.findall(text)]


def capitals(text: str) -> Iterator[tuple[str, bool]]:
    """Capitalised words, and whether each opens a sentence (or a list entry, a bracket, a quotation)."""
    for match in _WORD.finditer(text):
        word = match.group()
        if not word[0].isupper() or word in ("I", "I'm", "I’m", "I'll", "I’ll", "I've", "I’ve", "I'd", "I’d", "OK"):
            continue
        before = text[: match.start()].rstrip(" \t")
        if before[-1:] and (before[-1].isdigit() or before[-1] == "_"):
            continue  # part of an identifier
        yield word.removesuffix("'s").removesuffix("’s"), not before or before[-1] in _ENDS


def is_opener(word: str) -> bool:
    """Whether a word opens sentences everywhere."""
    return re.split("['’]", word.lower())[0] in _OPENERS


def leaves(value: Any, keys: bool = False) -> Iterator[Any]:
    """The texts and numbers in a JSON value; with `keys` the names too."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.values()
            if keys:
                yield from each
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str | int | float) and not isinstance(each, bool):
            yield each


class Saying:
    """Everything that was said so far, to be asked whether something stood in it."""

    def __init__(self) -> None:
        self.figures: set[str] = set()
        self._words: set[str] = set()
        self._stems: set[str] = set()
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Remember a text."""
        if not text:
            return
        self._texts.append(fold(text))
        self.figures |= figures(text)
        words = _words(text)
        words |= {part for word in words if not word.isalpha() for part in re.split("['’]", word)}
        self._stems |= set(map(_stem, words - self._words))
        self._words |= words

    def has(self, text: str) -> bool:
        """Whether something stood in it as a whole."""
        needle = fold(text)
        return any(_holds(said, needle) for said in self._texts)

    def has_identifier(self, token: str) -> bool:
        """Whether an identifier stood in it, or is a known number with a word or unit joined to it (`2-person`)."""
        if self.has(token):
            return True
        unit = _WITH_UNIT.fullmatch(token.lower())
        if unit:
            return number(unit[1]) in self.figures
        parts = _PARTS.split(token)
        plain = [part for part in parts if not part.isalpha()]
        return len(parts) > 1 and len(plain) == 1 and number(plain[0]) in self.figures

    def has_name(self, word: str) -> bool:
        """Whether a word stood in it, in whatever case."""
        return word.lower() in self._words

    def has_stem(self, word: str) -> bool:
        """Whether a word of the same stem stood in it (checking, check)."""
        return _stem(word.lower()) in self._stems


def _stem(word: str) -> str:
    for suffix in ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word
