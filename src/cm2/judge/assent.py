"""Assent: whether a user message says yes to what it was asked.

Only an explicit yes counts: one at the start of a sentence ("yes", "yes please"), a go-ahead ("please proceed", "do
it"), or a bare "ok". A question is none, and neither is a yes that is taken back or hangs on something ("yes, but …",
"only if …"). What is unclear is no yes: a write that rests on it is worth looking at.
"""

from __future__ import annotations

import re

from cm2.judge.text import clean

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_LEAD = re.compile(r"^(?:(?:oh|ah|well|great|thanks|thank you|perfect|alright|all right|hi|hello)\b[\s,!.–-]*)+")
_YES = re.compile(
    r"^(?:yes|yep|yeah|yup|aye|absolutely|definitely|certainly|of course|by all means|confirmed|agreed|approved"
    r"|i (?:do |hereby |can |would like to |want to )?(?:confirm|agree|approve|accept|consent)|affirmative)\b"
)
_WEAK = re.compile(
    r"^(?:(?:ok|okay|sure|right|correct|exactly|fine|sounds (?:good|great|right|fine)|looks (?:good|great|right)"
    r"|(?:that is|that's|thats|this is|it's|it is) (?:correct|right|fine|ok|okay|good)|please|confirm)"
    r"(?=\s*(?:[^\w\s]|$|(?:please|thanks?|go|do|then|(?:to|by|with|for) me)\b))|please do|do so)"
)
_GO = re.compile(
    r"\b(?:go ahead|go for it|please proceed|proceed|do (?:it|that|so)|make it so|carry on|please do|continue)\b"
)
_HELD = re.compile(r"(?:\bnot|n't|\bnever|\bcannot|\bwithout|\bbefore (?:you|we|i)|\bbefore)\s+(?:\w+\s+){0,3}$")
_HANGS = re.compile(
    r"\b(?:but|however|except|instead|unless|until|only if|as long as|provided that|if you can|on (?:the )?condition)\b"
    r"|\b(?:yes|proceed|go ahead|do it),? (?:only |if\b)|^if\b"
)
_NO = re.compile(
    r"^(?:(?:no|nope|nah|not)\b"
    r"(?! (?:problem|worries|issue|objection|need|concerns?|more|other|further|changes?|doubt))"
    r"|wait\b|stop\b|hold (?:on|off)\b|never ?mind\b|(?:please )?(?:do not|don't|cancel that)\b|but\b|however\b)"
)
_POLITE = re.compile(r"\b(?:can|could|would|will) you (?:please |kindly |just )*(?=go ahead|proceed|do (?:it|that|so))")
_PLAIN_NO = re.compile(r"^(?:no|nope|nah|not)\b\s*[^\s,.;:!–-]")
"""After a yes, "no insurance, please" is a wish and no denial."""
_ASKS = re.compile(
    r"^(?:can|could|would|will|should|shall|may|what|how|why|when|which|who|where|is|are"
    r"|(?:do|does|did) (?:you|i|we))\b"
)
WEAK_WORDS = 5


def confirms(text: str) -> bool:
    """Whether the message is an explicit yes."""
    yes = asked = weak = False
    for sentence in _SENTENCE.split(clean(text).casefold()):
        low = _LEAD.sub("", sentence.strip()).strip()
        question = low.rstrip("\"')*_ ").endswith(("?", "？"))
        asked = asked or question
        if _NO.search(low) and not (yes and _PLAIN_NO.search(low)):
            return False
        strong, mild = _YES.search(low), _WEAK.search(low)
        go = _GO.search(low)
        if go and _HELD.search(low[: go.start()]):
            return False
        if not (strong or mild or go):
            continue
        if _HANGS.search(low):
            return False
        if question:
            yes = yes or bool(go and (strong or mild or _POLITE.search(low)))
        elif strong or (go and (mild or not _ASKS.search(low))):
            yes = True
        elif mild and len(low.split()) <= WEAK_WORDS:
            weak = True
    return yes or (weak and not asked)
