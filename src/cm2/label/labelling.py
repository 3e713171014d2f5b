"""Labelling: one dialogue on its way from a model's answers to checklists.

The state between the questions, and nothing that waits: `LlmLabeler` asks, this reads. Keys are (turn, variant).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue, Turn
from cm2.label.answer import items_of
from cm2.label.config import Drafting
from cm2.label.draft import Draft, Fault, Key
from cm2.label.drafting import Drafter
from cm2.label.merge import merged
from cm2.label.question import Question, Questions, prompt_id
from cm2.label.reference import NO_ITEM_PASSED, Labelled
from cm2.label.settle import Settling
from cm2.label.weigh import weighed
from cm2.llm import Answer, ModelError

NOTHING_PROPOSED = "the model proposed no item"
NO_ANSWER = "no answer"
READ = 3
"""So many times `most_items` are looked at in one answer; the rest is counted and not read."""
Answered = Answer | Exception


class Lost(msgspec.Struct):
    """A question without a valid answer: the turns that it leaves unlabelled, and whose doing it is."""

    turns: list[int]
    variant: int
    owner: Literal["provider", "model", "data"]
    message: str


class ModelLabelled(Labelled, kw_only=True):
    """A dialogue with its checklists, what was left out and why. Where something is lost there are no checklists."""

    lost: list[Lost] = []
    proposed: int = 0
    """Items in the first answers."""
    repaired: int = 0
    """Items that were kept after a second question."""
    merged: int = 0
    """Items that said what another one says."""
    mended: int = 0
    """Snippets of kept items that were brought to the exact text of the reference, or left out beside others."""
    checks_out: dict[str, int] = {}
    """Kept items without the check that was proposed for them, by reason."""
    empty: int = 0
    """Turns, once a variant, that have no item."""
    cost: float = 0.0
    """US dollars."""


class Labelling:
    """See the module.

    Args:
        dialogue: the reference.
        config: how it is asked.
        name: the labeler's.
        secret: of the asker, for the fence.
        code: what code labelled before, in a hybrid labelling.
    """

    def __init__(self, dialogue: Dialogue, config: Drafting, name: str, secret: str = "", code: Labelled | None = None):
        self.dialogue, self.config, self.name, self.code = dialogue, config, name, code
        self._drafter = Drafter(dialogue, config.thinking)
        self._questions = Questions(dialogue, config, secret)
        self.turns = [t for t, turn in enumerate(dialogue.turns) if _acts(turn)]
        self._own = {each.turn: each for each in code.task.checklists} if code is not None else {}
        sheets = {(t, v): self._code_drafts(t) for t in range(len(dialogue.turns)) for v in range(config.checklists)}
        self._settling = Settling(dialogue, sheets)
        self._models: dict[Key, str] = {}
        self._proposed: set[int] = set()
        self._found = ModelLabelled(task=Task(dialogue))

    def first(self) -> list[Question]:
        """The first questions."""
        units = [self.turns] if self.config.per == "dialogue" else [[turn] for turn in self.turns]
        code = {turn: self._code_drafts(turn) for turn in self.turns}
        return [
            self._questions.first(turns, variant, code)
            for turns in units
            for variant in range(self.config.checklists)
            if turns
        ]

    def read(self, questions: list[Question], answers: list[Answered]) -> list[Question]:
        """Take the first answers; the second questions that follow from them, none where something is lost."""
        for question, answer in zip(questions, answers, strict=True):
            for turn, given in self._items(question, answer).items():
                self._found.proposed += len(given)
                self._proposed |= {turn} if given else set()
                sheet = self._settling.sheets[turn, question.variant]
                most = READ * self.config.most_items
                code = tuple(draft.id for draft in sheet)
                sheet += self._drafter.drafts(given[:most], turn, len(sheet), code)
                self._settling.drop("model: too_many", len(given[most:]))
                self._models[turn, question.variant] = answer.model if isinstance(answer, Answer) else ""
        if self._found.lost:
            return []
        self._settling.examine()
        return [again for question in questions if (again := self._again(question)) is not None]

    def read_again(self, questions: list[Question], answers: list[Answered]) -> None:
        """Take the answers to second questions. What they do not mend stays at fault."""
        for question, answer in zip(questions, answers, strict=True):
            for turn, given in self._items(question, answer).items():
                sheet = self._settling.sheets[turn, question.variant]
                names = {draft.id: draft.id for draft in sheet}
                asked = {draft.id: at for at, draft in enumerate(sheet) if self._wanting(draft)}
                for item in given:
                    id = item.get("id") if isinstance(item, dict) else None
                    at = asked.pop(id, None) if isinstance(id, str) else None
                    if at is None:
                        self._settling.drop("model: not_asked_for", 1)
                        continue
                    sheet[at] = self._mended(sheet[at], self._drafter.draft(item, turn, sheet[at].id, names))
                    self._settling.stale = True

    def finish(self) -> ModelLabelled:
        """The labelled dialogue."""
        found, settling = self._found, self._settling
        if found.lost:
            return found
        settling.finish()
        for key, drafts in settling.sheets.items():
            settling.sheets[key], doubles = merged(drafts, self.dialogue)
            found.merged += doubles
            crowded = self._leave_the_heaviest(settling.sheets[key])
            settling.stale |= crowded or doubles > 0
        settling.finish()
        checklists = [self._checklist(key) for key, drafts in settling.sheets.items() if drafts]
        found.task = Task(self.dialogue, checklists)
        found.alone = self._alone()
        labelled = {(each.turn, each.variant) for each in checklists}
        turns = {each.turn for each in checklists}
        found.empty = sum((t, v) not in labelled for t in self.turns for v in range(self.config.checklists))
        reasons = Counter(self._why_none(t) for t in range(len(self.dialogue.turns)) if t not in turns)
        out = settling.dropped + Counter(self.code.items_out if self.code is not None else {})
        found.items_out, found.turns_out = dict(sorted(out.items())), dict(sorted(reasons.items()))
        return found

    def _items(self, question: Question, answer: Answered) -> dict[int, list[Any]]:
        """The items that an answer gives each turn; none, and something lost, where it is no answer."""
        if isinstance(answer, Answer):
            self._found.cost += answer.cost
            items = items_of(answer.value, question.turns, self.config.per)
            if items is not None:
                return items
            owner, message = "model", "the answer has no list of items"
        else:
            self._found.cost += getattr(answer, "cost", 0.0)
            owner, message = "model" if isinstance(answer, ModelError) else "provider", str(answer)
        lost = Lost(question.turns, question.variant, "model" if owner == "model" else "provider", message)
        self._found.lost.append(lost)
        return {}

    def _again(self, question: Question) -> Question | None:
        sheets = {turn: self._settling.sheets[turn, question.variant] for turn in question.turns}
        failed = {turn: [draft for draft in sheet if self._wanting(draft)] for turn, sheet in sheets.items()}
        kept = {turn: [draft for draft in sheet if not self._wanting(draft)] for turn, sheet in sheets.items()}
        turns = [turn for turn in question.turns if failed[turn]]
        return self._questions.second(turns, question.variant, failed, kept) if turns else None

    def _wanting(self, draft: Draft) -> bool:
        """Whether a draft is asked for again."""
        if draft.code or draft.repaired:
            return False
        return not draft.sound or (self.config.repair_checks and draft.refused is not None)

    def _mended(self, old: Draft, new: Draft) -> Draft:
        """What takes the place of a draft that was asked for again."""
        if not old.sound:
            new.repaired = True
            return new
        if old.item is not None and new.sound and new.item is not None and new.item.check is not None:
            item = replace(old.item, check=new.item.check)  # the item was fine: only its check was wanting
            return msgspec.structs.replace(old, item=item, refused=None, repaired=True)
        return old

    def _leave_the_heaviest(self, drafts: list[Draft]) -> bool:
        """Mark the lightest items where there are too many; whether there are."""
        model = [draft for draft in drafts if not draft.code]
        light = sorted(model, key=lambda draft: -_item(draft).weight)[self.config.most_items :]
        for draft in light:
            draft.faults.append(Fault("too_many", f"a turn has at most {self.config.most_items} items"))
        return bool(light)

    def _code_drafts(self, turn: int) -> list[Draft]:
        own = self._own.get(turn)
        return [Draft(item.id, item=item, code=True) for item in own.items] if own is not None else []

    def _checklist(self, key: Key) -> Checklist:
        turn, variant = key
        drafts = self._settling.sheets[key]
        code, model = [each for each in drafts if each.code], [each for each in drafts if not each.code]
        for draft in model:
            self._found.repaired += draft.repaired
            self._found.mended += draft.mended + draft.strays
            if draft.refused is not None:
                self._found.checks_out[draft.refused.reason] = self._found.checks_out.get(draft.refused.reason, 0) + 1
        items = weighed([_item(draft) for draft in code], [_item(draft) for draft in model])
        ids = {item.id: f"C{number}" for number, item in enumerate(items)}
        items = [replace(item, id=ids[item.id], depends_on=[ids[id] for id in item.depends_on]) for item in items]
        who = f"{self.name}:{self._models.get(key, '')} {prompt_id(self.config.per)}"
        return Checklist(turn, items, variant, who)

    def _alone(self) -> list[int]:
        """See `Labelled.alone`."""
        known, code = self._settling.alone, self.code.alone if self.code is not None else []
        return sorted({turn for turn, variant in self._settling.sheets if known.get((turn, variant), turn in code)})

    def _why_none(self, turn: int) -> str:
        if turn not in self.turns:
            return NO_ANSWER
        return NO_ITEM_PASSED if turn in self._proposed else NOTHING_PROPOSED


def _acts(turn: Turn) -> bool:
    """Whether there is anything in a turn that could be a duty."""
    return any(step.calls or (step.reply or "").strip() or (step.thinking or "").strip() for step in turn.steps)


def _item(draft: Draft) -> Item:
    assert draft.item is not None, "only sound drafts come here"
    return draft.item
