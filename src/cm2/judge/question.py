"""Question: one call to a judge, and its second chance.

The answer must name exactly the items that were asked about, each once, with a value that is allowed, and every yes
with a quote that stands. What is good in an answer counts and is never asked again, a no least of all. What is missing,
said twice, out of range or without a standing quote is asked once more, those items only, with what was wrong; what is
then still not good is unscored. An earlier mention is never fallen back on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.checklist import Item
from cm2.errors import Where
from cm2.judge.form import Form
from cm2.judge.placed import DialogueView
from cm2.judge.quote import find_quote, part_text
from cm2.judge.view import View, has_part
from cm2.llm import Answer, Asker, ModelError, ProviderError, Request
from cm2.llm.fence import neutral
from cm2.verdict import WHOLE, Pointer, unscored

NO_ENTRY = "no verdict was given"
TWO_ENTRIES = "more than one verdict was given"
NO_SUCH_STEP = "a step was named that the turn does not have"
ELSEWHERE = "a step of another turn was named"
NO_VALUE = "the value is not one that is allowed"
VOID_QUOTE = "the quote does not stand where it must"
NO_ANSWER = "no valid answer"
NO_PROVIDER = "the provider gave no answer"
_MEND = {
    NO_ENTRY: "Your last answer had no entry for this item.",
    TWO_ENTRIES: "Your last answer had several entries for this item; give one.",
    NO_SUCH_STEP: "Your last answer named a step that the turn does not have.",
    ELSEWHERE: "Your last answer named a turn and step at which this item cannot hold: an item holds at steps of its "
    "own turn only, and only at steps that the record shows.",
    NO_VALUE: "Your last answer had a value that is not allowed.",
    VOID_QUOTE: "You said that it holds, but your quote does not stand in what the item looks at, in the judged turn "
    "and no later than the step you named. Copy a passage that does, or decide that it does not hold.",
}
DRAWS = 1000
"""Judgements of one question beyond which samples of a further try would meet those of another vote."""


class Said(msgspec.Struct, frozen=True):
    """What a judge said of an item. `first` is the first step after which it holds, where it does."""

    met: bool | None
    first: int | None = None
    reason: str = ""
    evidence: tuple[Pointer, ...] = ()
    judge: str = ""
    cost: float = 0.0
    owner: str = ""


class Counts(msgspec.Struct):
    """What judging took."""

    calls: int = 0
    """Questions that a model answered, or failed to."""
    cached: int = 0
    """Questions that were answered before: in the answer cache of an earlier run."""
    again: int = 0
    """Of all of them, second chances."""
    remembered: int = 0
    """Items that needed no call because an equal view was judged in this run."""
    skipped: int = 0
    """Items that needed no call because they could not hold."""
    cost: float = 0.0
    """US dollars."""

    def add(self, other: Counts) -> None:
        """Add another's counts."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Question(msgspec.Struct, frozen=True):
    """What is asked: these items, about this view, in this form."""

    form: Form
    view: View
    items: list[Item]
    listed: tuple[Item, ...] = ()
    """Items that stand in front of the record, those that are asked about among them; see `cm2.judge.form`."""
    sample: int = 0
    """Which independent judgement."""
    draw: int = 0
    """Which further try of it: 0 is the first."""
    stage: str = "judge"
    needed: frozenset[str] = frozenset()
    """Items that others wait for: a dry run supposes that they hold, which leads to the most calls."""

    def request(self, items: list[Item], problems: dict[str, str]) -> Request:
        """The call about some of the items."""
        view = self.view
        return Request(
            role="judge",
            messages=self.form.messages(view, items, problems, self.listed),
            schema=self.form.schema,
            prompt=self.form.prompt.id,
            affinity=view.dialogue.id,
            sample=self.sample + DRAWS * self.draw,
            stage=f"{self.stage}, asked again" if problems else self.stage,
            where=self._where,
            planned={"verdicts": [self._planned(item) for item in items]},
        )

    @property
    def _where(self) -> Where:
        view = self.view
        if self.form.by_dialogue:
            return Where(dialogue=view.dialogue.id)
        return Where(dialogue=view.dialogue.id, turn=view.turn, step=None if self.form.by_turn else view.upto)

    def _planned(self, item: Item) -> dict[str, Any]:
        step = next((s for s, one in enumerate(self.view.steps) if has_part(one, item.focus_on)), None)
        one_state = self.form.decisions == ("holds",)
        decision = item.id in self.needed and step is not None if one_state else None
        reason = "One sentence of some twenty words stands here in an answer, on what it was that decided this item."
        quote = part_text(self.view.steps[step], item.focus_on)[:SHOWN] if step is not None else ""
        return {"id": item.id, "reason": reason, **dict.fromkeys(self.form.decisions, decision), "quote": quote}


SHOWN = 80


async def ask(question: Question, asker: Asker, counts: Counts) -> dict[str, Said]:
    """What the judge says of each item, after at most one second chance.

    Raises:
        ProviderError: fatal: the next question would fail too.
        BudgetReached: there is no money left.
    """
    found: dict[str, Said] = {}
    spent: dict[str, float] = {}
    problems: dict[str, str] = {}
    for chance in range(2):
        left = [item for item in question.items if item.id not in found]
        if not left:
            break
        counts.again += chance
        told = {id: _MEND[kind] for id, kind in problems.items()}
        try:
            answer = await asker.ask(question.request(left, told))
        except (ProviderError, ModelError) as error:
            counts.calls += 1
            if isinstance(error, ProviderError) and error.fatal:
                raise
            lost = isinstance(error, ModelError)
            _share(spent, left, error.cost if isinstance(error, ModelError) else 0.0, counts)
            reason = unscored(NO_ANSWER if lost else NO_PROVIDER, error.message)
            owner = "judge" if lost else "provider"
            return found | {item.id: Said(None, reason=reason, cost=spent[item.id], owner=owner) for item in left}
        counts.cached += answer.cached
        counts.calls += not answer.cached
        _share(spent, left, answer.cost, counts)
        good, problems = read(answer, question, left)
        found |= {id: msgspec.structs.replace(said, cost=spent[id]) for id, said in good.items()}
    name = f"{answer.model} {question.form.prompt.id}".strip()
    for id, kind in problems.items():
        found[id] = Said(None, reason=unscored(kind), judge=name, cost=spent[id], owner="judge")
    return found


def read(answer: Answer, question: Question, items: list[Item]) -> tuple[dict[str, Said], dict[str, str]]:
    """What the answer says of each item that it is good for, and what is wrong with it for each of the others."""
    nonce = question.view.fence.nonce
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in answer.value["verdicts"]:
        entries.setdefault(neutral(entry["id"], nonce).strip(), []).append(entry)
    good: dict[str, Said] = {}
    problems: dict[str, str] = {}
    for item in items:
        mine = entries.get(neutral(item.id, nonce).strip(), [])
        said = _read_entry(mine[0], question, item, answer) if len(mine) == 1 else TWO_ENTRIES if mine else NO_ENTRY
        if isinstance(said, str):
            problems[item.id] = said
        else:
            good[item.id] = said
    return good, problems


def _read_entry(entry: dict[str, Any], question: Question, item: Item, answer: Answer) -> Said | str:
    """What the entry says, or what is wrong with it."""
    view, nonce = question.view, question.view.fence.nonce
    judge = f"{answer.model} {question.form.prompt.id}".strip()
    reason = " ".join(str(entry["reason"]).split())
    first = _first(entry, question.form, view, item)
    if isinstance(first, str):
        return first
    quote = str(entry["quote"])
    whole = question.form.name == "whole" or getattr(item, "turn", None) == WHOLE
    pointer = None
    if first is not None or (whole and quote.strip()):  # of a whole dialogue a no may quote the breach
        places = view.places(item, first)
        steps = [view.dialogue.turns[turn].steps[step] for turn, step in places]
        pointer = find_quote(quote, item, steps, view.turn, nonce)
        if pointer is not None:
            pointer = Pointer(*places[pointer.step], pointer.part, pointer.snippet)
    evidence = () if pointer is None else (pointer,)
    if first is None:
        return Said(False, reason=reason, judge=judge, evidence=evidence)
    if pointer is None:
        return VOID_QUOTE
    return Said(True, first, reason, evidence, judge)


def _first(entry: dict[str, Any], form: Form, view: View, item: Item) -> int | str | None:
    """From which step on the entry says that the item holds, None for never, or what is wrong with the entry."""
    values = [_integer(entry[name]) for name in form.decisions]
    if form.decisions == ("holds",):
        if type(values[0]) is not bool:
            return NO_VALUE
        return view.upto if values[0] else None
    if values[-1] is None and form.by_dialogue and (values[0] is None or type(values[0]) is int):
        return None  # "never" may still say in which turn
    if values == [None]:
        return None
    if any(type(value) is not int for value in values):
        return NO_VALUE
    if isinstance(view, DialogueView):
        place = view.first(item, *values)
        return ELSEWHERE if place is None else place
    return values[0] if 0 <= values[0] <= view.upto else NO_SUCH_STEP


def _integer(value: Any) -> Any:
    """2.0 as 2: some models write integers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _share(spent: dict[str, float], items: list[Item], cost: float, counts: Counts) -> None:
    counts.cost += cost
    for item in items:
        spent[item.id] = spent.get(item.id, 0.0) + cost / len(items)
