"""Told: what the user was told in answer, by the reference's replies.

| what | asked for as |
|---|---|
| a *fact* that the user asked for by name ("what is the total?", `total`: 1250) | an item of its own |
| a *figure*: an amount that the user asked for and the assistant worked out: no tool answered it | the same |
| other *news* of one reply, from the tools' answers | one item: any of it will do, since others pick other details |

All may be told in any reply of the run, so a small number counts only beside a word of its subject. Ids that were there
before name a thing; they are no news.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from cm2.check import Any, Check, Fact, Reply
from cm2.checklist import Evidence
from cm2.dialogue import Dialogue
from cm2.judge.statement import statement
from cm2.judge.text import UNITS, fold
from cm2.judge.values import is_number, scalar_text
from cm2.label.arguments import is_reference
from cm2.label.candidate import REPLY
from cm2.label.effects_net import is_minted
from cm2.label.facts import Stated
from cm2.label.heard import content_words
from cm2.label.phrases import label_of, listed, quote, shown
from cm2.label.reading import Reading

MOST = 4
"""So many items, those asked for by name first."""
MOST_VALUES = 3
MOST_NEWS = 8
_AMOUNT = re.compile(
    r"\bhow many (?P<many>\w+(?: \w+)?)|\b(?P<total>total|altogether)\b"
    r"|\b(?:how much|what|tell me|know)\b[^.?!]{0,40}?\b"
    r"(?P<money>price|cost|balance|fee|fare|refund|saving|difference)",
    re.IGNORECASE,
)
_MONEY = re.compile(r"[$€£¥]|\b(?:dollars?|euros?|pounds?|usd|eur|gbp)\b", re.IGNORECASE)
_WORDS = rf"\b(?:{'|'.join(UNITS)})"
_TOTAL = ("total", "altogether")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_SMALL = 20


class Told(msgspec.Struct):
    """Something that the user asked for and the reference told."""

    name: str
    """What it is called in the item's id."""
    what: str
    """What it is, in words."""
    shown: str
    check: Check
    evidence: Evidence


def told(reading: Reading) -> list[Told]:
    """What the reference told, without repetition."""
    found: dict[str, Told] = {}
    for turn, facts in enumerate(reading.facts):
        for stated in facts:
            if stated.asked_now and _is_news(stated):
                found.setdefault(fold(scalar_text(stated.leaf.value)), _asked(stated, turn, reading.dialogue))
    for noun, figure in _figures(reading):
        found.setdefault(noun if figure.shown not in found else figure.shown, figure)
    for turn in range(len(reading.facts)):
        news = [each for each in reading.facts[turn] if _is_news(each) and not each.told_before]
        if news and not any(fold(scalar_text(each.leaf.value)) in found for each in news):
            found[f"news {turn}"] = _news(news[:MOST_NEWS], turn, reading.dialogue)
    return list(found.values())[:MOST]


def _asked(stated: Stated, turn: int, dialogue: Dialogue) -> Told:
    value = stated.leaf.value
    name = label_of(stated.leaf)
    return Told(name, f"the {name}", shown(value), _states(stated), _at(turn, dialogue, scalar_text(value)))


def _news(facts: list[Stated], turn: int, dialogue: Dialogue) -> Told:
    """Any of the facts of one reply."""
    checks = list({repr(check): check for check in map(_states, facts)}.values())
    values = listed([shown(each.leaf.value) for each in facts[:MOST_VALUES]], "or")
    evidence = _at(turn, dialogue, scalar_text(facts[0].leaf.value))
    tool = facts[0].source.tool
    return Told(
        f"answer {tool}",
        f"something that `{tool}` answered",
        values,
        checks[0] if len(checks) == 1 else Any(checks),
        evidence,
    )


def _states(stated: Stated) -> Check:
    value, kind = stated.leaf.value, stated.fact.kind
    if is_number(value) and _is_small(value):
        return Reply(pattern=_beside(float(value), content_words(label_of(stated.leaf).replace("answer", ""))))
    # A value that the run itself handed out is another one in another run; all others are the same there.
    minted = kind == "text" and is_minted(value, stated.source)
    return Reply(states=[stated.fact if minted else Fact([value], kind)])


def _at(turn: int, dialogue: Dialogue, part: str) -> Evidence:
    steps = dialogue.turns[turn].steps
    return Evidence(turn, len(steps) - 1, REPLY, quote(steps[-1].reply or "", part))


def _is_news(stated: Stated) -> bool:
    return stated.pattern is None and not _only_names(stated)


def _only_names(stated: Stated) -> bool:
    """Whether a fact is the id of something that was there before: said to name it, not to tell the user news."""
    if stated.fact.kind != "text" or not is_reference(stated.leaf.name, stated.leaf.value):
        return False
    return not is_minted(stated.leaf.value, stated.source)


def _figures(reading: Reading) -> list[tuple[str, Told]]:
    """Amounts that the user asked for and the reference's replies state, with what they are of."""
    found: dict[str, Told] = {}
    stated: dict[tuple[str, bool], list[tuple[float, Evidence]]] = {}
    for t, turn in enumerate(reading.dialogue.turns):
        for sentence in _SENTENCE.split(turn.user):
            for noun, money in _amounts(sentence):
                if (noun, money) not in stated:
                    stated[noun, money] = list(_stated(reading, noun, money))
                one = _figure(noun, [each for each in stated[noun, money] if each[1].turn >= t])
                if one is not None:
                    found.setdefault(noun, one)
    return list(found.items())


def _amounts(sentence: str) -> list[tuple[str, bool]]:
    """What a sentence asks the amount of: (the word for it, whether it is money)."""
    found = []
    for match in _AMOUNT.finditer(sentence):
        if match["many"]:
            nouns = [word for word in content_words(match["many"]) if not word.isdigit()]
            found += [(nouns[-1], False)] if nouns else []
        elif match["total"]:
            found.append(("total", False))
        else:
            found.append((match["money"].casefold(), True))
    return found


def _figure(noun: str, stated: list[tuple[float, Evidence]]) -> Told | None:
    """What is stated as the amount from the question on; where several are, any of them will do."""
    values = {scalar_text(value): value for value, _ in stated}
    if not 0 < len(values) <= MOST_VALUES:
        return None
    checks: list[Check] = [
        Reply(pattern=_beside(value, [noun])) if _is_small(value) else Reply(states=[Fact([value], "number")])
        for value in values.values()
    ]
    check = checks[0] if len(checks) == 1 else Any(checks)
    return Told(noun, f"the {noun}", listed(values, "or"), check, stated[-1][1])


def _stated(reading: Reading, noun: str, money: bool) -> Iterator[tuple[float, Evidence]]:
    """Each amount of the noun that a reply states, with its place."""
    for t, turn in enumerate(reading.dialogue.turns):
        for sentence in _SENTENCE.split(turn.reply or ""):
            value = _amount(sentence, noun, money, reading, t)
            if value is not None:
                yield value, Evidence(t, len(turn.steps) - 1, REPLY, quote(turn.reply or "", sentence))


def _amount(sentence: str, noun: str, money: bool, reading: Reading, turn: int) -> float | None:
    """The one new number of a sentence that speaks of the noun; of a total, of what follows the word."""
    at = re.search(rf"(?i)\b{re.escape(noun.rstrip('s'))}", sentence)
    if at is None or (money and not _MONEY.search(sentence)):
        return None
    part = sentence[at.start() :] if noun in _TOTAL else sentence
    numbers = {number for number, _ in statement(part).numbers if reading.heard.named_at(number, turn) is None}
    if len(numbers) != 1:
        return None
    near = rf"(?i)(?:\d|{_WORDS})\W+(?:\w+ ){{0,3}}{re.escape(noun.rstrip('s'))}"
    return numbers.pop() if money or noun in _TOTAL or re.search(near, sentence) else None


def _is_small(value: float | str) -> bool:
    return is_number(value) and float(value).is_integer() and abs(float(value)) <= _SMALL


def _beside(value: float, near: list[str]) -> str:
    """A pattern of a small number in one sentence with a word of its subject."""
    number = int(value)
    forms = "|".join([str(number), *([UNITS[number]] if 0 <= number < len(UNITS) else [])])
    figure = rf"(?:^|[^\w.,])(?:{forms})(?:$|[^\w.,]|[.,](?:\W|$))"
    if not near:
        return rf"(?i){figure}"
    words = "|".join(re.escape(word.rstrip("s")) for word in near)
    return rf"(?i)(?:{figure}[^.!?\n]{{0,80}}\b(?:{words})|\b(?:{words})[^.!?\n]{{0,80}}{figure})"
