"""Scramble: another value of the same shape, and a reply that states another value. The same value gives the same."""

from __future__ import annotations

import re
from typing import Any as Json

from cm2.judge.text import THOUSANDS, WORDS, clean, fold
from cm2.judge.values import is_number, scalar_text

_SHIFT = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA1234567890",
)
_MOMENT_WORDS = (
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec noon midday midnight first second third fourth fifth sixth seventh eighth ninth tenth"
)
_COUNTED = re.compile(rf"\b(?:{'|'.join([*WORDS, *_MOMENT_WORDS.split()])})\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")


def scramble(value: Json) -> Json:
    """Another value of the same shape: letters and digits shifted, numbers far off, truth flipped, at every depth."""
    if isinstance(value, bool):
        return not value
    if is_number(value):
        return value + 7013
    if isinstance(value, str):
        return "".join(char if char.isascii() or not char.isalnum() else "x" for char in value.translate(_SHIFT)) + "q7"
    if isinstance(value, list):
        return [scramble(each) for each in value] or ["changed"]
    if isinstance(value, dict):
        return {key: scramble(each) for key, each in value.items()} or {"changed": True}
    return "changed"


def unsaid(text: str, value: Json, kind: str) -> str:
    """The reply with this one value changed: every number, month and number word for numbers and moments (in all their
    spellings), the words of the value for text."""
    if value is None:
        return text
    if kind != "text" or is_number(value):
        text = _COUNTED.sub("several", re.sub(r"\d+", lambda run: f"777{run[0]}", text))
    words = set(_WORD.findall(fold(scalar_text(value))))
    text = THOUSANDS.sub("", text.replace(scalar_text(value), scramble(scalar_text(value))))
    return _WORD.sub(
        lambda word: scramble(word[0]) if word[0].casefold() in words else word[0], clean(text).replace("'", "")
    )
