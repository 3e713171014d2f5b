"""Evidence that a model gave: does the snippet really stand where it points?

A pointer counts when its turn and step exist, its part is one of the four, and the snippet stands in that part of that
step. The user's words are no evidence, and neither is what happens after the turn. A snippet that misses by white space
only (JSON quoted with spaces, a line end read as a space), or by what the prompt's fence defuses, becomes the exact
text of the reference. Anything else is a fault, told with the place where the snippet does stand, to help mending.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, get_args

import msgspec

from cm2.checklist import Evidence, FocusOn, part_of
from cm2.dialogue import Dialogue, Step
from cm2.llm.fence import neutral

PARTS: tuple[FocusOn, ...] = get_args(FocusOn)
MOST_POINTERS = 8
LONGEST = 600
"""Characters of a snippet that are kept; its beginning stands where the whole stood."""
_PREFIXED = re.compile(r"^\| ?", re.MULTILINE)
_USER = re.compile(r"user(?!_visible)", re.IGNORECASE)


class Verified(msgspec.Struct):
    """The pointers that stand, what is wrong with the others, and how many had to be mended."""

    pointers: list[Evidence] = []
    problems: list[str] = []
    mended: int = 0


def verified(given: Any, dialogue: Dialogue, turn: int) -> Verified:
    """Hold what a model gave as evidence of an item of a turn against the reference."""
    found = Verified()
    pointers = given if isinstance(given, list) else []
    for pointer in pointers[:MOST_POINTERS]:
        one = _pointer(pointer, dialogue, turn)
        if isinstance(one, str):
            found.problems.append(one)
        elif one not in found.pointers:
            found.pointers.append(one)
            found.mended += one.snippet not in (pointer["snippet"], pointer["snippet"][:LONGEST])
    if not found.pointers and not found.problems:
        found.problems.append("there is no evidence; quote the place in the turn on which the item rests")
    elif found.pointers and all(pointer.turn != turn for pointer in found.pointers):
        found.problems.append(f"no evidence is from turn {turn}, which the item is about")
        found.pointers = []
    return found


def _pointer(given: Any, dialogue: Dialogue, turn: int) -> Evidence | str:
    """The pointer as the reference has it, or what is wrong with it."""
    if not isinstance(given, dict):
        return 'evidence is an object: {"turn": …, "step": …, "from": …, "snippet": …}'
    source, snippet = given.get("from"), given.get("snippet")
    if isinstance(source, str) and source not in PARTS and _USER.search(source):
        return "the user message is no evidence; quote what the assistant or a tool did about it"
    if source not in PARTS:
        return f"evidence comes from one of {', '.join(PARTS)}"
    if not isinstance(snippet, str) or not any(map(str.isalnum, snippet)):
        return "the snippet is empty; quote the words that show it"
    at, step = _whole(given.get("turn")), _whole(given.get("step"))
    if at is None or not 0 <= at < len(dialogue.turns):
        return f"evidence names a turn from 0 to {len(dialogue.turns) - 1}"
    if at > turn:
        return f"evidence is from turn {at}, which comes later than turn {turn}"
    steps = dialogue.turns[at].steps
    if step is None or not 0 <= step < len(steps):
        return f"turn {at} has the steps 0 to {len(steps) - 1}" if steps else f"turn {at} has no step"
    exact = _exact(snippet, text_of(steps[step], source))
    if exact:
        return Evidence(at, step, source, exact[:LONGEST])
    return _missing(snippet, at, step, source, dialogue, turn)


def text_of(step: Step, source: FocusOn) -> str:
    """See `part_of`; "" where the part cannot be written as text (half a surrogate pair in an argument)."""
    try:
        return part_of(step, source)
    except UnicodeEncodeError:
        return ""


def _missing(snippet: str, at: int, step: int, source: FocusOn, dialogue: Dialogue, turn: int) -> str:
    """Why a snippet does not count, with the place where it stands if there is one."""
    wrong = f"the snippet does not stand at turn {at} step {step} {source}"
    for t in sorted(range(turn + 1), key=lambda t: abs(t - at)):
        for s, each in enumerate(dialogue.turns[t].steps):
            for part in PARTS:
                if _exact(snippet, text_of(each, part)):
                    return f"{wrong}; it stands at turn {t} step {s} {part}"
    if any(_exact(snippet, each.user) for each in dialogue.turns):
        return f"{wrong}; it stands only in a user message, which is no evidence"
    return f"{wrong}; copy it exactly"


def _exact(snippet: str, text: str) -> str:
    """The text's own words where the snippet stands in it, "" where it does not."""
    if snippet in text:
        return snippet
    kept, places = _skeleton(text)
    for quoted in (snippet, _PREFIXED.sub("", snippet)):  # the prompt's line prefixes may have been quoted too
        wanted, _ = _skeleton(quoted)
        start = kept.find(wanted) if wanted else -1
        if start >= 0:
            return text[places[start] : places[start + len(wanted) - 1] + 1]
    return ""


def _skeleton(text: str) -> tuple[str, list[int]]:
    """The characters that any faithful quotation keeps, and where each stands in the text."""
    kept, places = [], []
    for place, char in enumerate(text):
        if plain := _plain(char):
            kept.append(plain)
            places.append(place)
    return "".join(kept), places


@lru_cache(maxsize=8192)
def _plain(char: str) -> str:
    """The character as the fence shows it, "" where it shows none or white space."""
    if char.isspace() or unicodedata.category(char) in ("Cc", "Cf", "Cs") or neutral(f"a{char}a") == "aa":
        return ""
    return "'" if char in "`~\uff40" else char


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None
