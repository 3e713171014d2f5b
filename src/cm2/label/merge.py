"""Merge: a duty that a checklist names twice is one duty.

Two items are the same when they have the same check, or when all of this holds:

- they focus on the same part, and their evidence overlaps there;
- they name the same tools, and the same values (quoted texts and numbers), unless one of them names none;
- both or neither is negated, and where one speaks of an order (before, after), they name things in the same order;
- the words left over, without those that any question may have, overlap by at least `ALIKE` (shared over all words,
  endings cut);
- they do not have two different checks.

The measure is blind to synonyms ("total" and "sum" stay two items) on purpose: a duty that is weighed twice costs less
than a duty that is lost. `ALIKE` lies in the gap that the examples in the tests leave: paraphrases two thirds and more,
different duties one half and less.

Of two the one with the check stays (else the first); the weights are added, it is strict if either was, evidence and
examples are joined, and who depended on the other depends on it. An item of the code stays as it is, weight included.
"""

from __future__ import annotations

import re
from functools import cache

import msgspec
from msgspec.structs import replace

from cm2.checklist import Checklist, Evidence, dependency_cycle
from cm2.dialogue import Dialogue
from cm2.judge.text import fold
from cm2.label.draft import Draft
from cm2.label.evidence import MOST_POINTERS, text_of
from cm2.label.heard import content_words
from cm2.label.wording import GENERAL, unquoted

ALIKE = 0.6
MOST_EXAMPLES = 8
_NAME = re.compile(r"`([^`\n]*)`")
_QUOTE = re.compile(r"“([^”\n]*)”|\"([^\"\n]*)\"|«([^»\n]*)»")
_NUMBER = re.compile(r"\d[\d.,:/-]*")
_NEGATED = re.compile(
    r"\b(?:not|no|never|none|nothing|without|neither|nor|cannot|refrain|avoid)\b|n['’]t\b", re.IGNORECASE
)
_ORDER = re.compile(r"\b(?:before|after|first|then|until|instead)\b", re.IGNORECASE)
_OWNER = re.compile(r"['’]s\b")
_PLAIN = GENERAL | frozenset(
    """ask contain display give given include inform made make mention name present provide receive report return show
    specify stated use""".split()  # noqa: SIM905
)


class _Read(msgspec.Struct):
    """What a question is compared by."""

    words: frozenset[str]
    names: list[str]
    values: frozenset[str]
    negated: bool
    ordered: bool


def merged(drafts: list[Draft], dialogue: Dialogue) -> tuple[list[Draft], int]:
    """The drafts (all of them sound) with doubles joined, and how many went."""
    left, apart = list(drafts), set[tuple[str, str]]()
    read = {draft.id: _read(draft.item.question) for draft in left if draft.item is not None}
    while True:
        pair = next(
            (
                (one, other)
                for at, one in enumerate(left)
                for other in left[at + 1 :]
                if not other.code and (one.id, other.id) not in apart and _same(one, other, read, dialogue)
            ),
            None,
        )
        if pair is None:
            return left, len(drafts) - len(left)
        joined = _joined(left, *pair)
        if joined is None:
            apart.add((pair[0].id, pair[1].id))
        else:
            left = joined


def similarity(one: str, other: str) -> float:
    """How alike two questions are, from 0 to 1: shared words over all words, 0 where names, values, negation or order
    set them apart."""
    return _similarity(_read(one), _read(other))


def _same(one: Draft, other: Draft, read: dict[str, _Read], dialogue: Dialogue) -> bool:
    a, b = one.item, other.item
    assert a is not None and b is not None
    if a.check is not None and b.check is not None:
        return a.check == b.check
    alike = a.focus_on == b.focus_on and _similarity(read[one.id], read[other.id]) >= ALIKE
    return alike and _overlap(a.evidence, b.evidence, dialogue)


def _similarity(one: _Read, other: _Read) -> float:
    if one.negated != other.negated or not _compatible(set(one.names), set(other.names)):
        return 0.0
    if not _compatible(one.values, other.values):
        return 0.0
    if (one.ordered or other.ordered) and (one.names != other.names or one.ordered != other.ordered):
        return 0.0
    every = one.words | other.words
    return len(one.words & other.words) / len(every) if every else float(bool(one.names or one.values))


def _compatible(one: set[str] | frozenset[str], other: set[str] | frozenset[str]) -> bool:
    return not one or not other or one == other


def _read(question: str) -> _Read:
    names = [fold(name) for name in _NAME.findall(question)]
    values = {fold(next(filter(None, quote), "")) for quote in _QUOTE.findall(question)}
    bare = unquoted(question)
    values |= {number.rstrip(".,:/-") for number in _NUMBER.findall(bare)}
    plain = _OWNER.sub("", bare)
    words = {_stem(word) for word in content_words(plain) if not word[0].isdigit()} - _plain_stems()
    negated, ordered = _NEGATED.search(bare) is not None, _ORDER.search(bare) is not None
    return _Read(frozenset(words), names, frozenset(values - {""}), negated, ordered)


def _stem(word: str) -> str:
    """The word without its ending: bookings, booking, booked are book; city and cities are cit."""
    for ending in ("ings", "ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            return _shorter(word[: -len(ending)])
    return _shorter(word)


@cache
def _plain_stems() -> frozenset[str]:
    return frozenset(map(_stem, _PLAIN))


def _shorter(word: str) -> str:
    return word[:-1] if word[-1] in "eyi" and len(word) > 2 else word


def _overlap(one: list[Evidence], other: list[Evidence], dialogue: Dialogue) -> bool:
    return any(_touch(a, b, dialogue) for a in one for b in other)


def _touch(a: Evidence, b: Evidence, dialogue: Dialogue) -> bool:
    """Whether two snippets share a character of the reference."""
    if (a.turn, a.step, a.source) != (b.turn, b.step, b.source):
        return False
    if a.snippet in b.snippet or b.snippet in a.snippet:
        return True
    text = text_of(dialogue.turns[a.turn].steps[a.step], a.source)
    first, second = text.find(a.snippet), text.find(b.snippet)
    return first >= 0 and second >= 0 and first < second + len(b.snippet) and second < first + len(a.snippet)


def _joined(drafts: list[Draft], one: Draft, other: Draft) -> list[Draft] | None:
    """The drafts with two of them made one, None where its dependencies would then run in a circle."""
    kept, gone = one, other
    if not one.code and _before(other, one):
        kept, gone = other, one
    item, lost = kept.item, gone.item
    assert item is not None and lost is not None
    if not kept.code:
        item = replace(
            item,
            weight=item.weight + lost.weight,
            required_for_next_turn=item.required_for_next_turn or lost.required_for_next_turn,
            evidence=_union(item.evidence, lost.evidence)[:MOST_POINTERS],
            failure_examples=_union(item.failure_examples, lost.failure_examples)[:MOST_EXAMPLES],
        )
        if item.check == lost.check:  # else lint has not seen the check after those dependencies
            item = replace(item, depends_on=_union(item.depends_on, lost.depends_on))
    found = []
    for draft in drafts:
        if draft is gone:
            continue
        mine = item if draft is kept else draft.item
        assert mine is not None
        named = [kept.id if id == gone.id else id for id in mine.depends_on]
        if item.focus_on != "tool.content":
            named = [id for id in named if id != kept.id]
        mine = replace(mine, depends_on=[id for id in dict.fromkeys(named) if id != draft.id])
        found.append(msgspec.structs.replace(draft, item=mine))
    items = [draft.item for draft in found if draft.item is not None]
    return None if dependency_cycle(Checklist(0, items)) else found


def _before(one: Draft, other: Draft) -> bool:
    """Whether `one` stays rather than `other`, which comes first."""
    a, b = one.item, other.item
    assert a is not None and b is not None
    if (a.check is None) != (b.check is None):
        return a.check is not None
    return a.focus_on == "tool.content" != b.focus_on


def _union(one: list, other: list) -> list:  # type: ignore[type-arg]
    return [*one, *(each for each in other if each not in one)]
