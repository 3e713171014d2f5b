"""Phrases: what questions and pass conditions are made of, so that they read as a person wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cm2.check import CameFrom, Contains, Pattern
from cm2.judge.values import is_number, scalar_text
from cm2.label.arguments import Wanted
from cm2.label.paths import Leaf

LONGEST = 48
QUOTE = 160
_PART = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ACRONYM = re.compile(r"[A-Z]{2,}s?")
_WRAPPERS = frozenset("output result results data value response content item".split())  # noqa: SIM905
_PARTICLES = frozenset("to from for by at on in with of after before until".split())  # noqa: SIM905
_SPELT_OUT = {"num": "number", "qty": "quantity", "addr": "address", "dob": "date of birth", "desc": "description"}
# What the rules for questions forbid inside a quoted value: an index, a condition.
_FORBIDDEN = re.compile(
    r"\b(turn|step)\s*(?:#|no\.?|number)?\s*\d|\d(?:st|nd|rd|th)\s+(?:turn|step)\b|,\s*(?:if|when)\b", re.IGNORECASE
)


def label(name: str) -> str:
    """An identifier as words: "hotel_id" is "hotel id", "attributes[*].option" is "option"."""
    last = name.split(" || ")[-1].replace("[*]", "").rsplit(".", 1)[-1]
    found = [part if _ACRONYM.fullmatch(part) else part.lower() for part in _PART.findall(last)]
    return " ".join(_SPELT_OUT.get(part, part) for part in found) or "value"


def label_of(leaf: Leaf) -> str:
    """What a value of an answer is called: its field, or "answer" where the field's name says no more than that."""
    return label(leaf.name) if leaf.name and leaf.name.lower() not in _WRAPPERS else "answer"


def article(noun: str) -> str:
    """The noun with "a" or "an", none before a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def shown(value: Any) -> str:
    """A value as a sentence quotes it: texts in quotes, long ones cut."""
    if isinstance(value, list):
        return listed([shown(each) for each in value[:4]])
    text = " ".join(scalar_text(value).split()) if not isinstance(value, dict) else "the given object"
    text = text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
    if _FORBIDDEN.search(text):
        text = re.sub(r"[\d,]", "·", text)
    return text if is_number(value) else f"“{text}”"


def listed(parts: Iterable[str], last: str = "and") -> str:
    """Parts as a list in a sentence: "a, b and c"."""
    found = [*parts]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else ""


def the_argument(wanted: Wanted) -> str:
    """An argument as a sentence asks for it."""
    if wanted.key.startswith("length("):
        return f"{len(wanted.value)} of them in all"
    name, matcher = label(wanted.key), wanted.matcher
    name = f"`{name}`" if name in _PARTICLES else name
    if isinstance(matcher, CameFrom):
        return f"the {name} from `{matcher.tool}`"
    if isinstance(matcher, (Contains, Pattern)) and not wanted.named:
        return f"{article(name)} about {shown(wanted.value)}"
    return f"{name} {shown(wanted.value)}"


def with_arguments(wanted: list[Wanted]) -> str:
    """ " with A, B and C", "" where nothing matters."""
    return f" with {listed(the_argument(each) for each in wanted)}" if wanted else ""


def tolerance(wanted: list[Wanted]) -> str:
    """What is free in the arguments of a call, as sentences of a pass condition."""
    found = []
    if any(isinstance(each.matcher, CameFrom) for each in wanted):
        found.append("A value that a tool handed out counts by where it came from, whatever it is.")
    if any(not isinstance(each.matcher, (CameFrom, Contains, Pattern)) for each in wanted):
        found.append("Case, punctuation and the spelling of numbers, dates and times are free.")
    if any(isinstance(each.matcher, (Contains, Pattern)) for each in wanted):
        found.append("Free text may be worded otherwise; the numbers and words that tell it apart must stand in it.")
    return " ".join([*found, "Other arguments, the order of calls and further look-ups are free."])


def quote(text: str, part: str = "") -> str:
    """A snippet of a text that holds `part` where it stands there literally, cut from the text as it is."""
    at = text.lower().find(part.lower()) if part else 0
    if len(text) <= QUOTE:
        return text.strip()
    start = max(0, at - QUOTE // 3) if at > 0 else 0
    return text[start : start + QUOTE].strip()
