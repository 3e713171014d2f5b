"""Denial: the words by which a reply says that something was not done, as one RE2 expression.

"It could not be placed" holds "placed" too, so that the words for a success alone tell nothing. A denial is

- a negation right before a word for the deed, with nothing but auxiliaries between ("nothing has been added", "was not
  able to book", "hasn't gone through"): "can't wait", "no problem" and "don't worry, it is booked" deny nothing;
- a word for a failure ("failed", "declined", "unable", "unfortunately", "fully booked").

What can be undone only later ("it cannot be refunded or changed") is a condition of a deed that was done: for such
words only the past counts.
"""

from __future__ import annotations

_NOT = (
    r"(?:\w+n't|(?:ca|could|did|does|do|has|have|had|is|are|was|were|wo|would)nt|cannot|not|never|nothing|none|neither"
    r"|nobody|no (?:\w+ )?(?:was|were|is|has|have|had|could|can|will))"
)
_PAST = (
    r"(?:(?:could|was|were|has|have|had|did)(?:n'?t| not)|never|nothing|none"
    r"|no (?:\w+ )?(?:was|were|has|have|could))"
)
_BETWEEN = (
    r"(?: (?:yet|be|been|being|able|going|to|get|got|successfully|actually|properly|has|have|had|was|were|is|are|of|it"
    r"|them|this|that|your|the|my|an?|order|booking|reservation|request))*"
)
_DEED = (
    r"(?:book(?:ed)?|reserved?|scheduled?|confirmed|set|add(?:ed)?|created?|placed?|sen[dt]|submit(?:ted)?|updated?"
    r"|success\w*|done|completed?|finish(?:ed)?|made|make|purchased?|bought|buy|ordered|processed|process|accepted"
    r"|approved?|succeed(?:ed)?|(?:go|gone|went) through|work(?:ed)?|registered?|possible)"
)
_UNDONE = (
    r"(?:cancel+(?:ed)?|changed?|paid|transfer(?:red)?|removed?|deleted?|saved?|recorded|reported|filed|refund(?:ed)?"
    r"|return(?:ed)?|exchanged?|played|turned|open(?:ed)?|unlock(?:ed)?|charged)"
)
_FAILURE = (
    r"(?:unable|unfortunately|fail(?:ed|s|ure)|unsuccessful\w*|declined|denied|rejected|refused|impossible"
    r"|no longer (?:available|possible)|went wrong|without success|fully booked|booked (?:up|out|solid)"
    r"|an? (?:error|problem|issue) (?:occurred|with))"
)
DENIES = rf"(?i)\b(?:{_NOT}{_BETWEEN} {_DEED}|{_PAST}{_BETWEEN} {_UNDONE}|{_FAILURE})\b"
