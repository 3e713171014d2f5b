"""Mint: made-up ids that the world recognises again without remembering them.

The last two digits of a minted id are a checksum keyed by the world's seed, so an id that the world made up for one
session is known wherever it comes back, and one that an agent invented is not (99 of 100 times).
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

_ID_NAME = re.compile(
    r"(?:^|[_\W])(?:id|uuid|guid|token|reference|ref|sku|pnr)s?$|(?<=[a-z])(?:Id|ID|Token|Ref|Reference)s?$"
)
_LEAST_DIGITS = 4


def is_id_name(name: str) -> bool:
    """Whether a field or argument of this name refers to something that the world hands out."""
    return bool(_ID_NAME.search(name)) or name in ("id", "ids")


class Mint:
    """Makes and recognises ids.

    Args:
        seed: the world's; another world does not know these ids.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def make(self, like: Any, rng: random.Random) -> Any:
        """A new id that looks like this one (text or integer): the same letters, other digits."""
        digits = [index for index, char in enumerate(str(like)) if char.isdigit()]
        text = str(like)
        if len(digits) < _LEAST_DIGITS:
            text += ("-" if isinstance(like, str) and not digits else "") + "0" * (_LEAST_DIGITS - len(digits))
            digits = [index for index, char in enumerate(text) if char.isdigit()]
        chars = list(text)
        for place, index in enumerate(digits[:-2]):
            chars[index] = str(rng.randint(1 if place == 0 else 0, 9))
        for index, char in zip(digits[-2:], self._check(chars, digits), strict=True):
            chars[index] = char
        made = "".join(chars)
        return made if isinstance(like, str) else int(made)

    def made(self, value: Any) -> bool:
        """Whether this world minted the value."""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            return False
        chars = list(str(value))
        digits = [index for index, char in enumerate(chars) if char.isdigit()]
        return len(digits) >= _LEAST_DIGITS and "".join(chars[i] for i in digits[-2:]) == self._check(chars, digits)

    def _check(self, chars: list[str], digits: list[int]) -> str:
        body = "".join(char for index, char in enumerate(chars) if index not in digits[-2:])
        digest = hashlib.blake2b(f"{self._seed}\n{body}".encode(), digest_size=4).digest()
        return f"{int.from_bytes(digest, 'big') % 100:02d}"
