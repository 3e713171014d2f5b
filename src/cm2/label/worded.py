"""Worded: how an argument is matched that is text, by the words that it shares with what the user said.

| the text | must hold |
|---|---|
| has numbers and is no message (an address, say) | the numbers that the user said, and one of the words |
| has two words that tell, and is no message or was given literally by the user | both |
| has three or more words that tell | two of them |
| has one or two | one |

Words that stand in many such texts ("street", "order") tell nothing beside others. A word matches as a whole; where the
assistant worded the text itself, a long one in other endings too ("cancelled" and "cancelling").
"""

from __future__ import annotations

import re
from itertools import permutations

from cm2.check import Contains, Matcher, Pattern
from cm2.judge.text import clean
from cm2.judge.values import regex
from cm2.writes import words

PROSE = frozenset(
    """message content text body note notes comment comments reason description subject title query question request
    requests symptoms details feedback summary report instructions prompt keyword keywords search topic thought
    expression""".split()  # noqa: SIM905
)
_COMMON = frozenset(
    """street st avenue ave road rd boulevard blvd drive dr lane ln suite ste unit apt apartment
    room floor building city north south east west northeast northwest southeast southwest
    order item new one two first next last day week time thing things issue information info user customer
    person people name number type size""".split()  # noqa: SIM905
)
_MOST_WORDS = 6
_MOST_NUMBERS = 2
_STEMMED = 5
"""Words of so many letters match in other endings."""


def wording(key: str, value: str, shared: list[str], named: bool) -> Matcher | None:
    """The matcher of a text by what it shares with the user's words; None where that is nothing.

    Args:
        key: the argument's name.
        value: the reference's value.
        shared: the folded words of the value that the user had said too, in its order.
        named: whether the user gave the whole value literally.
    """
    text = clean(value)
    prose = bool(PROSE & set(words(key)))
    literal = named or not prose
    standing = [word for word in shared if regex(rf"(?i){_form(word, False)}").search(text)]
    numbers = [word for word in standing if any(map(str.isdigit, word))] if not prose else []
    others = [word for word in standing if word not in numbers]
    telling = [word for word in others if word not in _COMMON] or others
    forms = [_form(word, not literal) for word in telling[:_MOST_WORDS]]
    if numbers and (forms or len(numbers) > 1):
        parts = [_form(word, False) for word in numbers[:_MOST_NUMBERS]]
        return Pattern(rf"(?is){_in_any_order([*parts, _one_of(forms)] if forms else parts)}")
    if len(forms) < 2:
        alone = numbers or telling or shared
        return Contains(alone[0]) if alone else None
    if len(forms) == 2 and not literal:
        return Pattern(rf"(?i){_one_of(forms)}")
    # RE2 has no look-ahead: two different words are one of them, then one of the others.
    pairs = [f"{form}.*{_one_of([other for other in forms if other != form])}" for form in forms]
    return Pattern(rf"(?is){_one_of(pairs)}")


def _form(word: str, endings: bool) -> str:
    """The expression of a whole folded word: apostrophes are folded away, a plural counts.

    RE2 knows boundaries beside ASCII letters only; none is asked elsewhere.
    """
    start = r"\b" if word[0].isascii() else ""
    if any(map(str.isdigit, word)) or not word[-1].isascii():
        return start + re.escape(word) + (r"\b" if word[-1].isascii() else "")
    stem = word.rstrip("s") or word
    ending = r"\w{0,3}" if endings and len(stem) >= _STEMMED else "(?:'?e?s)*"
    return rf"{start}{re.escape(stem)}{ending}\b"


def _one_of(forms: list[str]) -> str:
    return forms[0] if len(forms) == 1 else f"(?:{'|'.join(forms)})"


def _in_any_order(parts: list[str]) -> str:
    return _one_of([".*".join(order) for order in permutations(parts)])
