"""CascadeJudge: a local model where it is sure, another judge elsewhere.

Items that the classifier decides cost nothing and are known to the other judge, so that what depends on them is judged
accordingly; the rest is asked as if the classifier were not there. What the other judge leaves unscored stays unscored:
a guess that was not good enough to decide is not good enough to fill a gap either.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.judge.classifier import Classifier, Guess
from cm2.judge.judge import AsyncJudge, OnDoor, about, in_order, judge_dialogue, needs_end
from cm2.judge.question import Counts
from cm2.verdict import WHOLE, Verdict


class Saved(msgspec.Struct):
    """What the classifier spared."""

    turns: int = 0
    """Turns (of one checklist) that were judged and had anything open."""
    turns_without_call: int = 0
    """Of these, turns in which the other judge was not needed."""
    items: int = 0
    decided: int = 0
    """Of the items, those that the classifier decided."""
    compared: int = 0
    agreed: int = 0
    """Of items that were asked all the same (`audit`), those on which both say the same after every step."""

    @property
    def agreement(self) -> float | None:
        """agreed / compared."""
        return self.agreed / self.compared if self.compared else None


class Look(msgspec.Struct, frozen=True):
    """What the classifier makes of a checklist."""

    checklist: Checklist
    guesses: list[tuple[Item, Guess]]
    audited: set[str]
    """Items that it is sure of and that are asked about all the same."""
    settled: list[Verdict]
    asked: bool
    """Whether the other judge is needed."""


class CascadeJudge(OnDoor):
    """See the module.

    Args:
        inner: judges what the classifier does not decide.
        classifier: the model, or its file.
        audit: share of the decided items that the other judge is asked about all the same, and whose verdict is then
            its: it keeps an eye on a classifier whose dialogues have moved away from what it was trained on.
    """

    name = "classifier"

    def __init__(self, inner: AsyncJudge, classifier: Classifier | str, *, audit: float = 0.0):
        self.inner = inner
        self.classifier = Classifier.load(classifier) if isinstance(classifier, str) else classifier
        self.audit = audit
        self.saved = Saved()
        self.identity = self.name

    @property
    def counts(self) -> Counts:
        """Of the inner judge."""
        return getattr(self.inner, "counts", None) or Counts()

    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        if turn >= len(dialogue.turns):
            return []
        if turn == WHOLE:  # it was fitted to turns
            return await self.inner.judge_async(dialogue, turn, checklist, since, known, again)
        look = self._look(dialogue, checklist, known)
        found: list[Verdict] = []
        if look.asked:
            found = await self.inner.judge_async(dialogue, turn, checklist, since, [*known, *look.settled], again)
        return self._closed(look, found, since)

    @property
    def needs_end(self) -> bool:
        """Of the inner judge."""
        return needs_end(self.inner)

    async def _judge_dialogue(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], again: int
    ) -> list[list[Verdict]]:
        looks = [self._look(dialogue, each, about(known, each)) for each in checklists]
        both = [*known, *(verdict for look in looks for verdict in look.settled)]
        found: list[list[Verdict]] = [[] for _ in checklists]
        if any(look.asked for look in looks):
            found = await judge_dialogue(self.inner, dialogue, checklists, both, again)
        return [self._closed(look, verdicts, 0) for look, verdicts in zip(looks, found, strict=True)]

    def _look(self, dialogue: Dialogue, checklist: Checklist, known: Sequence[Verdict]) -> Look:
        """What the local model says of a turn; nothing of a whole dialogue: it was fitted to turns."""
        turn, said = checklist.turn, {verdict.item for verdict in known}
        ids = [item.id for item in checklist.items]
        # Twins cannot be told apart in what is stored: the other judge says what becomes of them.
        open_ = [item for item in checklist.items if item.id not in said and ids.count(item.id) == 1]
        if not 0 <= turn < len(dialogue.turns):
            return Look(checklist, [], set(), [], turn == WHOLE and any(id not in said for id in ids))
        both = list(zip(open_, self.classifier.guess(open_, dialogue, turn), strict=True))
        audited = {item.id for item, guess in both if guess.decided and self._audits(dialogue, turn, item)}
        sure = [(item, guess) for item, guess in both if guess.decided and item.id not in audited]
        settled = [verdict for item, guess in sure for verdict in _verdicts(dialogue, turn, checklist, item, guess)]
        rest = said | {item.id for item, _ in sure}
        asked = any(item.id not in rest for item in checklist.items)
        self._count(len(open_), len(sure), asked)
        return Look(checklist, both, audited, settled, asked)

    def _closed(self, look: Look, asked: list[Verdict], since: int) -> list[Verdict]:
        """What was settled and what was asked about, in order; audited items are compared."""
        found = [*(verdict for verdict in look.settled if verdict.step >= since), *asked]
        for item, guess in look.guesses:
            if item.id in look.audited:
                self._compare(guess, [verdict for verdict in found if verdict.item == item.id], since)
        return in_order(found, look.checklist)

    def _audits(self, dialogue: Dialogue, turn: int, item: Item) -> bool:
        from cm2.judge.aside import drawn

        return self.audit > 0 and drawn("audit", dialogue.id, turn, item.id, item.question) < self.audit

    def _count(self, items: int, decided: int, asked: bool) -> None:
        if items:
            self.saved.turns += 1
            self.saved.turns_without_call += not asked
            self.saved.items += items
            self.saved.decided += decided

    def _compare(self, guess: Guess, verdicts: list[Verdict], since: int) -> None:
        met = [verdict.met for verdict in verdicts]
        if met and None not in met:
            self.saved.compared += 1
            self.saved.agreed += met == list(guess.met[since:])


def _verdicts(dialogue: Dialogue, turn: int, checklist: Checklist, item: Item, guess: Guess) -> list[Verdict]:
    return [
        Verdict(
            dialogue.id,
            turn,
            step,
            item.id,
            met,
            checklist.variant,
            f"the local model is sure ({guess.confidence:.3f})",
            judge=CascadeJudge.name,
        )
        for step, met in enumerate(guess.met)
    ]
