"""Text of a transcript, made fit to be looked at.

A transcript is written by models, tools and strangers. Before any of it reaches a page, what looks like a credential is
hidden, and every character that a reader could not see (control characters, bidirectional overrides, zero-width and
tag characters, lone surrogates) is put there as something visible. Escaping for HTML comes after that and is the
template's business, everywhere and always.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Any

import msgspec

HIDDEN = "[hidden]"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"),
    re.compile(
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bhf_[A-Za-z0-9]{16,}|\bxox[a-z]-[\w-]{10,}"
    ),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
)
_AFTER = (  # what comes before the secret stays
    re.compile(r"(\bBearer\s+)[\w.~+/=-]{6,}", re.IGNORECASE),
    re.compile(
        r"((?<![A-Za-z])(?:(?:api|access|secret|private|client|auth)[_-]?(?:key|token|secret)|password|passwd|secret)"
        r"[\\\"']*\s*[:=]\s*[\\\"']*)[^\s\\\"'&,;{}\[\]]{4,}",
        re.IGNORECASE,
    ),
    re.compile(r"((?<![A-Za-z_-])key=[\"']?)[^\s\"'&,;{}\[\]]{4,}", re.IGNORECASE),
    re.compile(r"(://[^\s/:@]+:)[^\s/@]+(?=@)"),
)
_HINTS = (  # of which every pattern needs one; most texts have none, and are not searched
    *("-----begin", "sk-", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_", "xox", "eyj"),
    *("bearer", "key", "token", "secret", "passw", "://"),
)
_ODD = re.compile(r"[^\n\t\x20-\x7e]")
_JOINERS = "\u200c\u200d"  # they shape emoji and several scripts
_KEPT = "\n\t"


def scrub(text: str) -> str:
    """The text with everything that looks like a credential replaced by `[hidden]`."""
    folded = text.casefold()
    if not any(hint in folded for hint in _HINTS):
        return text
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    for pattern in _AFTER:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def visible(value: Any) -> str:
    """A value as text that a page, an XML document and a UTF-8 file can hold: scrubbed, nothing invisible in it."""
    text = value if isinstance(value, str) else "" if value is None else _json(value)
    return _ODD.sub(lambda found: _seen(found[0]), scrub(text.replace("\r\n", "\n")))


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (UnicodeEncodeError, TypeError):
        return repr(value)


def _seen(char: str) -> str:
    code = ord(char)
    if char in _KEPT or char in _JOINERS:
        return char
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return char


class Piece(msgspec.Struct, frozen=True):
    """A stretch of text and the marks (keys of evidence) that lie on all of it."""

    text: str
    marks: tuple[str, ...] = ()


def cut(text: str, snippets: list[tuple[str, str]], longest: int) -> tuple[list[Piece], int]:
    """Cut a text where evidence begins and ends.

    Args:
        text: as it stands in the transcript; it is made visible here.
        snippets: (mark, snippet) pairs; one that does not stand in the text marks nothing.
        longest: characters to keep.

    Returns:
        The pieces, and how many characters were left out at the end.
    """
    whole = visible(text)
    shown = whole[:longest]
    spans: list[tuple[int, int, str]] = []
    for mark, snippet in snippets:
        wanted = visible(snippet)
        start = whole.find(wanted) if wanted.strip() else -1
        if 0 <= start < len(shown):
            spans.append((start, min(len(shown), start + len(wanted)), mark))
    cuts = sorted({0, len(shown), *(edge for start, end, _ in spans for edge in (start, end))})
    pieces = [
        Piece(shown[a:b], tuple(dict.fromkeys(mark for start, end, mark in spans if start <= a and b <= end)))
        for a, b in pairwise(cuts)
    ]
    return pieces, len(whole) - len(shown)
