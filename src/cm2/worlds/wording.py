"""Wording: many ways for a person to say one thing.

A text is written once with its alternatives: `{Book|Get} me <which> room{ please|}`. Braces hold choices and may nest;
`<name>` is a value that must come through as it is, so styles (lower case, dropped punctuation, chat abbreviations, a
slip of the finger) touch only the words around the values. A person keeps one style through a dialogue.
"""

from __future__ import annotations

import random
import re
from typing import Any

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"(<\w+>)")
_LONG_WORD = re.compile(r"[a-z]{5,}")
_CHAT = {"please": "pls", "you": "u", "your": "ur", "thanks": "thx", "tomorrow": "tmrw", "and": "n", "are": "r"}
_STYLES = ("plain", "lower", "chat", "slip")
_SHARES = (55, 20, 15, 10)
_SLIPS = 0.6
"""Share of the texts of a person who mistypes that have a slip in them."""


def expand(rng: random.Random, text: str) -> str:
    """One of the ways that the braces of a text allow."""
    while "{" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


class Voice:
    """How one person, or the agent, writes.

    Args:
        rng: what the choices are drawn with.
        style: plain, lower, chat or slip; drawn where None.
    """

    def __init__(self, rng: random.Random, style: str | None = None):
        self.rng = rng
        self.style = style or rng.choices(_STYLES, _SHARES)[0]

    def say(self, text: str, /, **values: Any) -> str:
        """The text with its choices made, in this style, with the values put in."""
        return fill(self._styled(expand(self.rng, text)), **values)

    def _styled(self, text: str) -> str:
        if self.style == "plain":
            return text
        parts = _SLOT.split(text)
        if self.style == "slip":
            places = [index for index, part in enumerate(parts) if index % 2 == 0 and _LONG_WORD.search(part)]
            if places and self.rng.random() < _SLIPS:
                index = self.rng.choice(places)
                parts[index] = self._slip(parts[index])
            return "".join(parts)
        parts[::2] = [part.lower() for part in parts[::2]]
        if self.style == "chat":
            parts[::2] = [re.sub(r"\b[a-z]+\b", lambda word: _CHAT.get(word[0], word[0]), part) for part in parts[::2]]
            parts[-1] = parts[-1].rstrip(".!")
        return "".join(parts)

    def _slip(self, part: str) -> str:
        word = self.rng.choice(list(_LONG_WORD.finditer(part)))
        at = self.rng.randrange(word.start() + 1, word.end() - 2)
        return part[:at] + part[at + 1] + part[at] + part[at + 2 :]


def fill(text: str, /, **values: Any) -> str:
    """The text with each `<name>` replaced; a name that is not given is a KeyError."""
    return _SLOT.sub(lambda match: str(values[match[1][1:-1]]), text)
