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
from cm2.judge.judge import AsyncJudge, OnDoor
from cm2.judge.question import Counts
from cm2.verdict import Verdict


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
        said = {verdict.item for verdict in known}
        ids = [item.id for item in checklist.items]
        # Twins cannot be told apart in what is stored: the other judge says what becomes of them.
        open_ = [item for item in checklist.items if item.id not in said and ids.count(item.id) == 1]
        guesses = self.classifier.guess(open_, dialogue, turn)
        both = list(zip(open_, guesses, strict=True))
        audited = {item.id for item, guess in both if guess.decided and self._audits(dialogue, turn, item)}
        sure = [(item, guess) for item, guess in both if guess.decided and item.id not in audited]
        settled = [verdict for item, guess in sure for verdict in _verdicts(dialogue, turn, checklist, item, guess)]
        rest = said | {item.id for item, _ in sure}
        asked = any(item.id not in rest for item in checklist.items)
        found = [verdict for verdict in settled if verdict.step >= since]
        if asked:
            found += await self.inner.judge_async(dialogue, turn, checklist, since, [*known, *settled], again)
        self._count(len(open_), len(sure), asked)
        for item, guess in both:
            if item.id in audited:
                self._compare(guess, [verdict for verdict in found if verdict.item == item.id], since)
        place = {item.id: number for number, item in enumerate(checklist.items)}
        return sorted(found, key=lambda verdict: (verdict.step, place[verdict.item]))

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
