"""Witness: what of a state an expression turned on, read from how it is written.

`writes.all(w, confirms(w.user))` fails because of the writes that `writes.filter(w, !(confirms(w.user)))` gives: those
are the places that a person wants to see. So the loop at the root of an expression is turned into the one that
collects; an expression of another form has no witness, which costs an explanation and no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

_TEXT = re.compile(
    r"""[rRbB]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|//[^\n]*""",
    re.DOTALL,
)
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_HEAD = re.compile(r"^(?P<over>.*\S)\s*\.\s*(?P<loop>all|exists)\s*$", re.DOTALL)
_BODY = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*,")


@lru_cache(maxsize=4096)
def blanked(cel: str) -> str:
    """The expression with its texts and comments blanked out, character by character."""
    return _TEXT.sub(lambda found: "_" * len(found[0]), cel)


def loop_depth(cel: str) -> int:
    """How many loops stand inside each other at most."""
    text = blanked(cel)
    starts = {found.end() - 1 for found in _LOOP.finditer(text)}
    open_: list[bool] = []
    deepest = depth = 0
    for at, char in enumerate(text):
        if char in "([{":
            open_.append(at in starts)
            depth += at in starts
            deepest = max(deepest, depth)
        elif char in ")]}" and open_:
            depth -= open_.pop()
    return deepest


@lru_cache(maxsize=4096)
def conjuncts(cel: str) -> list[str]:
    """The parts of a condition that `&&` joins at its root; one where there is no other."""
    text = blanked(cel)
    cuts = [at for at in _root(text) if text.startswith("&&", at)]
    if not cuts or any(text.startswith(("||", "?"), at) for at in _root(text)):
        return [cel]
    bounds = [-2, *cuts, len(cel)]
    return [cel[start + 2 : end] for start, end in pairwise(bounds)]


@lru_cache(maxsize=4096)
def witness(cel: str, met: bool) -> str | None:
    """An expression that gives the elements of a list because of which this one is true (`met`) or not; None where
    it is not of such a form."""
    cel = cel.strip()
    while cel.startswith("!") and not cel.startswith("!="):
        inner = cel[1:].strip()
        if inner.startswith("(") and _closing(blanked(inner), 0) == len(inner) - 1:
            inner = inner[1:-1].strip()
        cel, met = inner, not met
    text = blanked(cel)
    if not text.endswith(")") or any(text.startswith(("&&", "||", "?"), at) for at in _root(text)):
        return None
    start = _opening(text)
    head, body = _HEAD.match(text[: max(start, 0)]), _BODY.match(text[start + 1 :])
    if head is None or body is None or head["loop"] == ("all" if met else "exists"):
        return None  # every element bears it, which says nothing
    over, name = cel[: head.end("over")], body["name"]
    condition = cel[start + 1 + body.end() : -1]
    return f"{over}.filter({name}, {'' if met else '!'}({condition}))"


def _root(text: str) -> Iterator[int]:
    """The places that no bracket encloses."""
    depth = 0
    for at, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0:
            yield at


def _opening(text: str) -> int:
    """Where the bracket opens that the last character closes, or -1."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += text[at] in ")]}"
        depth -= text[at] in "([{"
        if depth == 0:
            return at
    return -1


def _closing(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += text[at] in "([{"
        depth -= text[at] in ")]}"
        if depth == 0:
            return at
    return -1
