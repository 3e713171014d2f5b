"""Text as a judge compares it: folded, and looked up as whole words.

Pure functions of the text, cached by text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_LONE = re.compile("[\ud800-\udfff]")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-"})
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Points and colons stay inside numbers, + and # after a letter ("C++", "C#"); all else separates words.
_SEPARATOR = re.compile(r"(?<!\d)[.:]|[.:](?!\d)|[^\w\s.:+#]|(?<![^\W\d_])(?<!\+)[+#]|_")
_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# Scripts that do not put spaces between words: a match needs no word boundary there.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")

UNITS = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
WORDS = {word: number for number, word in enumerate(UNITS)} | {word: 10 * n for n, word in enumerate(TENS, 2)}


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """The text without invisible characters, private thinking, and exotic spaces, quotes and dashes; case is kept."""
    if not text.isascii():
        text = _LONE.sub("\ufffd", text)  # half a surrogate pair is no text: nothing that looks for words can take it
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_QUOTES)
    if "<think>" in text:
        text = _THINK.sub(" ", text)
    return text


@lru_cache(maxsize=16384)
def fold(text: str) -> str:
    """Case, spacing and punctuation folded away: lower-case words with one space between, separators inside a number
    kept ("5.70", "16:00"), thousands separators dropped ("1,000" is "1000")."""
    text = THOUSANDS.sub("", clean(text).casefold().replace("'", ""))
    return " ".join(_SEPARATOR.sub(" ", text).split())


def holds(text: str, part: str) -> bool:
    """Whether folded `text` holds folded `part` as whole words (no boundary is asked in scripts without spaces)."""
    if not part:
        return False
    start = text.find(part)
    while start >= 0:
        end = start + len(part)
        if _boundary(text, start) and _boundary(text, end):
            return True
        start = text.find(part, start + 1)
    return False


def _boundary(text: str, at: int) -> bool:
    if at in (0, len(text)) or text[at - 1] == " " or text[at] == " ":
        return True
    return bool(_UNSPACED.match(text[at - 1]) or _UNSPACED.match(text[at]))
