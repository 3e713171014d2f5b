"""Quote: the passage that a judge copied out as evidence, and where it stands.

A yes rests on a passage of the judged turn, no later than the step from which the item is said to hold, in the part
that the item looks at: a reply that claims a call is no evidence of it, and neither is anything that a user or the
future says. Items about what must not happen have no passage of their own: the reply that ended the turn will do.

Judges copy carelessly, so case and white space are folded, an ellipsis may stand for what was left out, and JSON may be
quoted with or without its escapes. Everything else must stand there. What is compared is the original text; of that and
of the quote alike, what the fence takes out of a prompt is taken out first.
"""

from __future__ import annotations

import re

from cm2.checklist import FocusOn, Item, part_of
from cm2.dialogue import Step
from cm2.formats.jsonlines import encode
from cm2.judge.prospect import negative
from cm2.judge.text import clean
from cm2.llm.fence import neutral
from cm2.verdict import Pointer

SNIPPET = 200
SHORT = 4
"""A quote of fewer characters must be a whole word: "5" does not stand in 15. One without any letter or digit must be a
whole line."""
REPLY: FocusOn = "assistant.content.user_visible_reply"
_ELLIPSIS = re.compile(r"\s*(?:\[…\]|\[\.{3}\]|\(…\)|…|\.{3,})\s*")
_PREFIX = re.compile(r"^\s*\| ?", re.MULTILINE)
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|[nrt]|(?=["\\/]))')
_SPACE = re.compile(r"\s*([^\w\s])\s*|\s+")


def find_quote(quote: str, item: Item, steps: list[Step], turn: int, nonce: str = "") -> Pointer | None:
    """Where a quote stands that is to carry a yes about `item`, or None where it stands nowhere that counts.

    Args:
        quote: as the judge wrote it.
        item: what it is evidence of.
        steps: of the turn, up to the one from which the item is said to hold; the latest are looked at first.
        turn: for the pointer.
        nonce: of the fence that the judge read the record in.
    """
    parts: list[FocusOn] = [item.focus_on]
    if negative(item) and item.focus_on != REPLY:
        parts.append(REPLY)
    for part in parts:
        for s in range(len(steps) - 1, -1, -1):
            if quoted(quote, part_text(steps[s], part), nonce):
                return Pointer(turn, s, part, quote.strip()[:SNIPPET])
    return None


def part_text(step: Step, focus: FocusOn) -> str:
    """The text of a part of a step; half a surrogate pair in an argument, which JSON cannot hold, is escaped."""
    try:
        return part_of(step, focus)
    except UnicodeEncodeError:
        bodies = (call.raw if call.raw is not None else encode(call.arguments).decode() for call in step.calls)
        return "\n".join(f"{call.name}({body})" for call, body in zip(step.calls, bodies, strict=True))


def quoted(quote: str, text: str, nonce: str = "") -> bool:
    """Whether the text has this passage."""
    shown = neutral(text, nonce)
    within = _fold(shown)
    copies = [neutral(said, nonce).strip() for said in (quote, _PREFIX.sub("", quote))]
    copies += [said.strip("\"'`“”‘’") for said in copies]  # the quotation marks of the one who quotes
    if not any(map(str.isalnum, quote)):  # "[]" may be all that a tool answered
        return any(copy and copy in map(_fold, shown.split("\n")) for copy in map(_fold, copies))
    return any(_stands([said], within) or _stands(_ELLIPSIS.split(said), within) for said in dict.fromkeys(copies))


def _stands(pieces: list[str], within: str) -> bool:
    """Whether the pieces stand in the text, one after the other."""
    folded = [piece for piece in map(_fold, pieces) if piece]
    if not folded or not any(any(map(str.isalnum, piece)) for piece in folded):
        return False
    if len(folded) > 1 and min(map(len, folded)) < SHORT:
        return False
    at = 0
    for piece in folded:
        at = _find(piece, within, at)
        if at < 0:
            return False
    return True


def _find(piece: str, within: str, start: int) -> int:
    """Where the piece ends in the text, or -1."""
    while (at := within.find(piece, start)) >= 0:
        end = at + len(piece)
        cut = (at and piece[0].isalnum() and within[at - 1].isalnum()) or (
            end < len(within) and piece[-1].isalnum() and within[end].isalnum()
        )
        if not cut or len(piece) >= SHORT:
            return end
        start = at + 1
    return -1


def _fold(text: str) -> str:
    """Lower case, no space around punctuation and single spaces elsewhere, plain quotes, JSON escapes resolved."""
    return _SPACE.sub(lambda space: space[1] or " ", _ESCAPE.sub(_unescaped, clean(text))).casefold().strip()


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        code = int(escape[1], 16)
        return "" if 0xD800 <= code <= 0xDFFF else chr(code)
    return " " if len(escape[0]) == 2 else ""
