"""Asking: items about turns in which the assistant rightly did not act: it asked, sought a yes, or refused.

What was asked follows from the data flow: the user's next message named a value that a later call used, so the question
was about that argument. A stock question or refusal fits any turn and earns nothing; an item therefore always holds on
to the subject.
"""

from __future__ import annotations

import re

from cm2.check import All, Any, Check, Reply
from cm2.checklist import Evidence, call_text
from cm2.judge.statement import statement
from cm2.label.arguments import Wanted
from cm2.label.candidate import CALLS, REPLY, Candidate
from cm2.label.doings import called
from cm2.label.forbidden import forbidden, in_words, not_called
from cm2.label.heard import FLAGS, content_words, names
from cm2.label.phrases import label, listed, quote
from cm2.label.reading import Deed, Reading
from cm2.writes import words

QUESTION, CONFIRMATION, REFUSAL, NO_WRITE = 2.0, 2.0, 3.0, 1.0
SHORT_ANSWER = 12
BRIEF_ANSWER = 5
"""An answer of so few words is the value itself, however the question was put."""
REFUSES = (
    r"(?i)\b(?:sorry|unfortunately|apologi[sz]e|unable|cannot|can't|can not|not able|won't|will not"
    r"|not (?:possible|something|allowed|permitted|available|supported)|don't have|do not have|only able|no way to"
    r"|beyond|outside|impossible)\b"
)
SEEKS = (
    r"(?i)\b(?:confirm\w*|correct|right|okay|ok|go ahead|proceed|shall i|should i|can i|may i|do you want"
    r"|would you like|is that|is this|does (?:that|this|it|everything)|look\w* good|sound\w* good|all good|ready"
    r"|sure|agree|want me to|like me to|verify|check|review)\b"
)
INVITES = (
    r"(?i)\b(?:confirm\w*|(?:double[- ])?check|verify|review|make sure|look (?:it |this |that |them )?over"
    r"|(?:take a )?look at)\b"
)
"""A request for a yes that is put as no question ("just confirm the order and I'll send it")."""
YES = (
    r"(?i)\b(?:y|yes|yeah|yep|yup|sure|ok|okay|correct|right|confirm\w*|go ahead|do (?:it|so|that)|perfect|great"
    r"|good|fine|sounds|looks|works|it is|book it|please|proceed|absolutely|definitely|of course|agreed?"
    r"|exactly|alright|cool|(?:it|they|that) do(?:es)?|that's (?:it|all|everything)|terrific)\b"
)
_ASKED_BY = (
    ({"name"}, ("name", "who")),
    ({"date", "day", "when", "birth", "dob"}, ("date", "day", "when")),
    ({"time", "hour"}, ("time", "when", "hour", "o'clock")),
    (
        {"city", "location", "destination", "place", "area", "town", "origin", "address"},
        ("where", "city", "location", "place"),
    ),
    (
        {"num", "number", "count", "quantity", "size", "seats", "guests", "people", "nights", "rooms"},
        ("how many", "number"),
    ),
    ({"price", "budget", "cost", "amount", "fare"}, ("price", "budget", "cost", "how much", "amount", "spend", "pay")),
)
_DULL = frozenset("the of to from for in on at is new id and number name type".split())  # noqa: SIM905


def askings(reading: Reading, turn: int) -> list[Candidate]:
    """The items about what the reply of a turn asks or refuses, and about what was rightly left undone."""
    dialogue = reading.dialogue
    reply = dialogue.turns[turn].reply
    if not reply or not reply.strip():
        return []
    deeds = reading.of(turn)
    asks = bool(statement(reply).questions)
    wanted = [_confirmation(reading, turn), _clarification(reading, turn) if asks else None]
    found = [item for item in wanted if item is not None]
    if found or any(deed.write for deed in deeds):
        return found
    item = _untouched(reading, turn, deeds) if deeds else None
    if not any(step.calls for step in dialogue.turns[turn].steps):
        item = _refusal(reading, turn, reply)
    return [item] if item is not None else []


def _clarification(reading: Reading, turn: int) -> Candidate | None:
    """The question whose answer a later call needed."""
    reply = reading.dialogue.turns[turn].reply or ""
    questions = " ".join(statement(reply).questions)
    for deed in reading.deeds:
        if deed.source.turn <= turn:
            continue
        missing = [wanted for wanted in deed.wanted if _answered_next(reading, wanted, turn, questions)]
        spoken = [wanted for wanted in missing if re.search(about(_asked_words(wanted)), questions)]
        brief = len(reading.dialogue.turns[turn + 1].user.split()) <= BRIEF_ANSWER if missing else False
        missing = spoken or (missing if brief and not reading.facts[turn] else [])
        if missing:
            return _question_item(reading, turn, deed, missing[:3], reply, questions)
    return None


def _asked_words(wanted: Wanted) -> list[str]:
    """The words by which a question about an argument is known."""
    parts = words(label(wanted.key))
    named = [word for word in parts if word not in _DULL]
    return list(dict.fromkeys([*named, *(word for keys, asked in _ASKED_BY if keys & set(parts) for word in asked)]))


def about(choice: list[str]) -> str:
    """The pattern of a text that has one of these words; one that nothing matches where there are none."""
    return rf"(?i)\b(?:{'|'.join(re.escape(word) for word in choice)})" if choice else r"[^\s\S]"


def _answered_next(reading: Reading, wanted: Wanted, turn: int, questions: str) -> bool:
    """Whether the user's next message is where an argument's value was first named."""
    reply = statement(reading.dialogue.turns[turn].reply or "")
    if turn + 1 >= len(reading.heard.messages) or names(reply, wanted.value):
        return False  # a reply that names the value offers it
    if isinstance(wanted.value, bool) or str(wanted.value).lower() in FLAGS:
        subject = [word for word in words(wanted.key) if len(word) > 3 and word not in _DULL]
        return any(re.search(rf"(?i)\b{word}", questions) for word in subject)
    values = wanted.value if isinstance(wanted.value, list) else [wanted.value]
    if wanted.named:
        return all(reading.heard.named_at(value, turn + 1) == turn + 1 for value in values)
    return False


def _question_item(
    reading: Reading, turn: int, deed: Deed, missing: list[Wanted], reply: str, questions: str
) -> Candidate | None:
    spoken = [word for wanted in missing for word in _asked_words(wanted)]
    own = [
        word
        for word in content_words(questions)
        if not word.isdigit() and word not in reading.heard.shared(questions, turn)
    ]
    untouched = not_called(
        reading, [deed.source.tool] if deed.write and deed.source.tool not in _written(reading, turn) else []
    )
    checks: list[Check] = []
    for choice in (spoken, own[:3]):
        if choice and re.search(about(choice), questions):
            check: Check = Reply(asks=True, pattern=about(choice))
            checks.append(All([*untouched, check]) if untouched else check)
    if not checks:
        return None
    named = re.search(about(spoken), questions) is not None
    what = listed(dict.fromkeys(label(wanted.key) for wanted in missing) if named else own[:2])
    before = f" before calling {in_words(untouched)}" if untouched else ""
    return Candidate(
        kind="clarification",
        key="clarification",
        focus=REPLY,
        checks=checks,
        question=f"Did the assistant ask the user for the {what}{before}?",
        passes=f"The reply asks for the {what}, alone or with other things, in any wording"
        f"{f', and {in_words(untouched)} is not called yet' if untouched else ''}.",
        weight=QUESTION,
        evidence=[
            Evidence(
                turn, len(reading.dialogue.turns[turn].steps) - 1, REPLY, quote(reply, statement(reply).questions[0])
            )
        ],
        failures=[f"the {what} is guessed", "the reply asks nothing, or for something that the user has already said"],
    )


def _confirmation(reading: Reading, turn: int) -> Candidate | None:
    """The request for a yes that the user's next message gave, before a write."""
    if turn + 1 >= len(reading.dialogue.turns):
        return None
    writes = [deed for deed in reading.of(turn + 1) if deed.write]
    answer = reading.dialogue.turns[turn + 1].user
    reply = reading.dialogue.turns[turn].reply or ""
    asks = statement(reply).questions
    if not writes or len(answer.split()) > SHORT_ANSWER or not re.search(SEEKS if asks else INVITES, reply):
        return None
    given = [
        wanted for deed in reading.of(turn + 1) for wanted in deed.wanted if _answered_next(reading, wanted, turn, "")
    ]
    if given or not re.search(YES, answer):
        return None
    written = _written(reading, turn)
    untouched = not_called(
        reading, [name for name in dict.fromkeys(deed.source.tool for deed in writes) if name not in written]
    )
    if not untouched:
        return None
    deeds = reading.of(turn)
    anchor: list[Check] = [called(deeds[-1])] if deeds else []
    seeks: Check = Any([Reply(asks=True, pattern=SEEKS), Reply(pattern=INVITES)])
    asked: list[list[Check]] = [[seeks]]
    told = next((stated.fact for stated in reading.facts[turn] if stated.pattern is None), None)
    if told is not None:
        asked.append([seeks, Reply(states=[told])])
    return Candidate(
        kind="confirmation",
        key="confirmation",
        focus=REPLY,
        checks=[All([*untouched, *anchor, *more]) for more in asked],
        question=f"Did the assistant ask the user to confirm before calling {in_words(untouched)}?",
        passes=f"The reply asks for a yes, in any wording, and {in_words(untouched)} is not called yet.",
        weight=CONFIRMATION,
        evidence=[
            Evidence(turn, len(reading.dialogue.turns[turn].steps) - 1, REPLY, quote(reply, asks[0] if asks else ""))
        ],
        failures=[f"{in_words(untouched)} is called without the user's yes", "the reply does not ask"],
    )


def _written(reading: Reading, turn: int) -> set[str]:
    """The tools that changed something in a turn."""
    return {deed.source.tool for deed in reading.of(turn) if deed.write}


def _refusal(reading: Reading, turn: int, reply: str) -> Candidate | None:
    """A refusal that names what is refused."""
    if not re.search(REFUSES, reply):
        return None
    asked = set(content_words(reading.dialogue.turns[turn].user))
    stems = {word.rstrip("s") for word in asked}
    subject = [word for word in content_words(reply) if (word in asked or word.rstrip("s") in stems) and len(word) > 3][
        :5
    ]
    if not subject:
        return None
    topic = Reply(pattern=about([word.rstrip("s") for word in subject]))
    untouched = forbidden(reading, turn, refused=True)
    return Candidate(
        kind="refusal",
        key="refusal",
        focus=REPLY,
        checks=[All([*untouched, Reply(pattern=REFUSES), topic])],
        question=f"Did the assistant tell the user that it cannot do this ({listed(subject, 'or')})"
        f"{' and leave everything as it was' if untouched else ''}?",
        passes="The reply says no to what was asked and names it, in any wording"
        f"{f'; {in_words(untouched)} is not called' if untouched else ''}.",
        weight=REFUSAL,
        evidence=[Evidence(turn, len(reading.dialogue.turns[turn].steps) - 1, REPLY, quote(reply))],
        failures=["the assistant claims to have done it", "the assistant does something else unasked"],
    )


def _untouched(reading: Reading, turn: int, deeds: list[Deed]) -> Candidate | None:
    """That a turn of look-ups changed nothing."""
    checks = forbidden(reading, turn)
    if not checks:
        return None
    last = deeds[-1]
    return Candidate(
        kind="no_write",
        key="no write",
        focus=CALLS,
        checks=[All([called(last), *checks])],
        question=f"Did the assistant only look things up, without calling {in_words(checks)}?",
        passes=f"`{last.source.tool}` is called and {in_words(checks)} is not, up to the end of the reply.",
        weight=NO_WRITE,
        evidence=[Evidence(turn, last.source.step, CALLS, call_text(last.source.tool, last.source.call.arguments))],
        failures=[f"{in_words(checks)} is called although the user has not asked for it yet"],
    )
