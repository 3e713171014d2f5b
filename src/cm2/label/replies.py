"""Replies: items about what a reply must tell: the facts that the tools returned, and how a deed came out."""

from __future__ import annotations

import re

from cm2.check import All, Called, Check, Not, Reply
from cm2.checklist import Evidence
from cm2.judge.statement import statement
from cm2.judge.text import clean, fold
from cm2.judge.values import regex, scalar_text
from cm2.label.candidate import REPLY, Candidate
from cm2.label.denial import DENIES
from cm2.label.doings import answer_key, called
from cm2.label.facts import Stated
from cm2.label.forbidden import forbidden, in_words
from cm2.label.phrases import label_of, listed, quote, shown, with_arguments
from cm2.label.reading import Deed, Reading
from cm2.writes import mode

MOST_FACTS = 5
MOST_PROSE = 2
ASKED, WRITTEN, FOUND, TOLD, OUTCOME, REFUSED = 3.0, 2.5, 2.0, 1.5, 1.0, 3.0
DONE_ITEM = "done"
"""The key of the item that a deed is reported."""
DONE = (
    r"(?i)\b(?:booked|reserved|scheduled|confirmed|all set|is set|been set|added|created|placed|sent|submitted"
    r"|cancel+ed|updated|changed|success\w*|done|completed?|finished|taken care|made|purchased|bought|ordered|paid"
    r"|transferred|registered|removed|deleted|saved|recorded|reported|filed|refunded|returned|exchanged|ready"
    r"|on (?:its|the) way|coming (?:right )?up|in (?:a|the) (?:few|moment)|shortly|soon|playing|turned|opened"
    r"|unlocked|enjoy|see you)\b"
)
NOT_DONE = (
    r"(?i)\b(?:sorry|unfortunately|apologi[sz]e|unable|unavailable|unsuccessful\w*|fail\w*|declined|denied|refused"
    r"|invalid|incorrect|already|impossible|none|nothing|not|no|cannot|can't|couldn't|didn't|wasn't|isn't|aren't"
    r"|doesn't|won't|don't)\b"
)
SAYS_NO = (
    r"(?i)\b(?:sorry|unfortunately|apologi[sz]e|unable|unavailable|unsuccessful\w*|fail\w*|declined|denied|refused"
    r"|(?:is|are|was|were|do|does|did|could|can) ?no[nt]|cannot|can't|couldn't|didn't|wasn't|isn't|aren't|doesn't"
    r"|no (?:match|such|results?|longer|other|more)|there(?:'s| is| are) no|none|nothing|invalid|incorrect)\b"
)
CANNOT = r"(?i)\b(?:cannot|can't|can not|unable|not able|not possible|not allowed|couldn't|could not|not eligible)\b"


def replies(reading: Reading, turn: int) -> list[Candidate]:
    """The items about the final reply of a turn."""
    reply = reading.dialogue.turns[turn].reply
    if not reply or not reply.strip():
        return []
    deeds = reading.of(turn)
    facts = _worth_telling(reading, turn, deeds)
    found = [_fact_item(reading, stated, turn, deeds) for stated in facts]
    written = {id(deed.source) for deed in deeds if deed.write}
    if deeds and not any(id(stated.source) in written for stated in facts):
        outcome = _outcome(reading, deeds, turn, bool(facts))
        found += [outcome] if outcome is not None else []
    return found


def _worth_telling(reading: Reading, turn: int, deeds: list[Deed]) -> list[Stated]:
    """The facts that are duties: what was asked for, what a write gave, else what was found; one item a fact."""
    written = {id(deed.source) for deed in deeds if deed.write}
    facts = [each for each in reading.facts[turn] if each.pattern is None or _must_be_passed_on(each, turn, written)]
    facts = [each for each in facts if each.source.turn == turn or each.asked_now or not each.told_before]
    if written:
        facts = [
            each
            for each in facts
            if id(each.source) in written or (each.asked and each.source.turn == turn) or each.asked_now
        ]
    unique: dict[str, Stated] = {}
    for stated in facts:
        unique.setdefault(repr((stated.fact.tool, stated.fact.path, stated.pattern)), stated)
    ranked = sorted(unique.values(), key=lambda stated: (not stated.asked, stated.source.turn != turn, not stated.sure))
    prose = [stated for stated in ranked if stated.pattern is not None]
    return [stated for stated in ranked if stated not in prose[MOST_PROSE:]][:MOST_FACTS]


def _must_be_passed_on(stated: Stated, turn: int, written: set[int]) -> bool:
    """Whether a text in other words is a duty: a write's message is its outcome, an old one must be asked for."""
    return id(stated.source) not in written and (stated.source.turn == turn or stated.asked_now)


def _fact_item(reading: Reading, stated: Stated, turn: int, deeds: list[Deed]) -> Candidate:
    source, value = stated.source, stated.leaf.value
    reply = reading.dialogue.turns[turn].reply or ""
    what = label_of(stated.leaf)
    deed = next((each for each in deeds if each.source is source), None)
    weight = ASKED if stated.asked else WRITTEN if deed and deed.write else FOUND if source.turn == turn else TOLD
    evidence = [Evidence(turn, len(reading.dialogue.turns[turn].steps) - 1, REPLY, quote(reply, scalar_text(value)))]
    later = reading.heard.messages[turn + 1 :]
    strict = isinstance(value, str) and stated.pattern is None and any(said.states_text(value) for said in later)
    if stated.pattern is not None:
        fact: Check = Reply(pattern=stated.pattern)
        question = f"Did the assistant pass on the {what} from `{source.tool}`: {shown(value)}?"
        passes = (
            f"The reply tells the gist of it ({listed(map(shown, stated.says))} or as much of it); the wording is free."
        )
        failures = ["the reply leaves it out or says something else"]
    else:
        fact = Reply(states=[stated.fact])
        which = "the" if stated.sure else "a"
        others = "" if stated.sure else " or another record's"
        question = f"Does the reply state {which} {what} that `{source.tool}` returned ({shown(value)}{others})?"
        passes = (
            f"The reply states the {what} of the agent's own latest `{source.tool}` answer, in any spelling"
            f"{'' if stated.sure else '; that of any record which it may have chosen'}."
        )
        failures = [
            f"another {what} is stated, or none",
            f"the {what} is stated although `{source.tool}` did not return it",
        ]
    return Candidate(
        kind="reply",
        key=f"fact {fold(scalar_text(value))}",
        focus=REPLY,
        checks=[fact, *([All([called(deed), fact])] if deed is not None else [])],
        question=question,
        passes=passes,
        weight=weight * (0.75 if stated.pattern else 1),
        evidence=evidence,
        failures=failures,
        strict=strict,
        depends=[answer_key(deed)] if deed is not None else [],
    )


def _outcome(reading: Reading, deeds: list[Deed], turn: int, informed: bool) -> Candidate | None:
    """How the last write came out; or that nothing could be done, where the reply says so and changed nothing."""
    reply = reading.dialogue.turns[turn].reply or ""
    writes = [deed for deed in deeds if deed.write]
    last = (writes or deeds)[-1]
    step = len(reading.dialogue.turns[turn].steps) - 1
    tool = last.source.tool
    refused = re.search(SAYS_NO, reply) is not None and not _good_news(reply)
    no_way = last.rejected or not informed or (not writes and re.search(CANNOT, reply) is not None)
    if refused and no_way:
        untouched = [] if writes else forbidden(reading, turn, refused=True)
        checks: list[Check] = [called(last), *untouched, Reply(pattern=NOT_DONE)]
        undone = f", and {in_words(untouched)} is called" if untouched else ""
        return Candidate(
            kind="refusal" if untouched else "reply",
            key="outcome",
            focus=REPLY,
            checks=[All(checks)],
            question=f"Did the assistant tell the user that it did not work, after calling `{tool}`?"
            if writes
            else f"Did the assistant look with `{tool}` and tell the user that nothing fits or that it is not possible"
            f"{', without changing anything' if untouched else ''}?",
            passes=f"`{tool}` is called{with_arguments(last.wanted)}{undone.replace(' is called', ' is not called')}, "
            "and the reply says that there is no such thing or that it did not work. The wording is free.",
            weight=REFUSED if untouched else FOUND,
            evidence=[Evidence(turn, step, REPLY, quote(reply))],
            failures=["the reply claims success", f"the reply says no although `{tool}` was never called"],
        )
    if writes and not last.rejected and re.search(DONE, reply) and not refused and not statement(reply).questions:
        return Candidate(
            kind="reply",
            key=DONE_ITEM,
            focus=REPLY,
            checks=[All([_bare(reading, last), Reply(pattern=DONE), *_no_denial(reply)])],
            question=f"Did the assistant tell the user that it was done, after `{tool}` had done it?",
            passes=f"`{tool}` is called and answers without an error, and the reply says that it is done or under way. "
            "The wording is free.",
            weight=OUTCOME,
            evidence=[Evidence(turn, step, REPLY, quote(reply))],
            failures=[
                f"the reply claims success although `{tool}` was not called or failed",
                "the reply leaves it open, or says that it did not work",
            ],
        )
    return None


def _no_denial(reply: str) -> list[Check]:
    """That the reply does not say that it was not done; nothing where the reference itself speaks like that."""
    return [] if regex(DENIES).search(clean(reply)) else [Not(Reply(pattern=DENIES))]


def _good_news(reply: str) -> bool:
    """Whether a reply with a "no" in it still reports success ("no problem, it is booked")."""
    hard = re.search(
        r"(?i)\b(?:sorry|unfortunately|unable|unavailable|couldn't|could not|failed|not available)\b", reply
    )
    return hard is None and re.search(DONE, reply) is not None


def _bare(reading: Reading, deed: Deed) -> Called:
    """The check that the tool did it, whatever else it was told."""
    whole, choice = called(deed), mode(reading.dialogue.tool(deed.source.tool))
    chosen = {key: matcher for key, matcher in whole.arguments.items() if choice is not None and key == choice.argument}
    return Called(whole.tool, chosen, answered=whole.answered)
