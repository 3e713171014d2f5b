"""Summary of labelling: what a run labelled, and what it left out and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cm2.errors import DataError, Where
from cm2.formats import Row
from cm2.label.reference import Labelled
from cm2.verdict import WHOLE

if TYPE_CHECKING:
    from cm2.label.labelling import ModelLabelled

KEPT_PROBLEMS = 20
NO_ITEM = "no item"


class LabelSummary(msgspec.Struct):
    """What a run labelled, and what it left out and why."""

    dialogues: int = 0
    without_checklist: int = 0
    """Dialogues in which no turn has a checklist."""
    turns: int = 0
    labelled_turns: int = 0
    whole: int = 0
    """Dialogues with a checklist of the whole."""
    checklists: int = 0
    """As many as labelled turns, or times the independent checklists of a turn."""
    items: int = 0
    with_check: int = 0
    """Items that are judged by code."""
    kinds: dict[str, int] = {}
    strict: int = 0
    """Items without which the conversation may not go on."""
    dependent: int = 0
    """Items that depend on others."""
    items_out: dict[str, int] = {}
    """Excluded items by "kind: reason"; the reason is a test of lint."""
    turns_out: dict[str, int] = {}
    """Turns without a checklist by reason."""
    unreadable: int = 0
    unreadable_lines: list[int] = []
    problems: list[str] = []
    """What is wrong with the first unreadable rows."""
    set_aside: int = 0
    """Rows of which a question to a model got no answer: not in the output."""
    unlabelled: dict[str, int] = {}
    """Turns (once a variant) without a checklist: provider, model and data are set aside with their rows and asked for
    by the next run; "no item" were answered, and nothing was left to keep."""
    proposed: int = 0
    """Items in a model's first answers."""
    repaired: int = 0
    """Items that were kept because they were asked for again."""
    merged: int = 0
    """Items that said what another item says."""
    mended: int = 0
    """Snippets of evidence that were corrected or left out."""
    checks_out: dict[str, int] = {}
    """Items kept without the check that a model proposed for them, by reason."""
    cost: float = 0.0
    """US dollars that this run paid."""

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, with the mean number of items of a checklist."""
        mean = self.items / self.checklists if self.checklists else 0.0
        return {**msgspec.to_builtins(self), "items_per_turn": round(mean, 3)}

    def add(self, labelled: Labelled) -> None:
        """Count one dialogue."""
        self.dialogues += 1
        self.turns += len(labelled.task.dialogue.turns)
        turns = {checklist.turn for checklist in labelled.task.checklists}
        self.labelled_turns += len(turns - {WHOLE})
        self.whole += WHOLE in turns
        self.checklists += len(labelled.task.checklists)
        self.without_checklist += not labelled.task.checklists
        for item in (item for checklist in labelled.task.checklists for item in checklist.items):
            self.items += 1
            self.kinds[item.kind] = self.kinds.get(item.kind, 0) + 1
            self.strict += item.required_for_next_turn
            self.dependent += bool(item.depends_on)
            self.with_check += item.check is not None
        _sum(self.items_out, labelled.items_out)
        _sum(self.turns_out, labelled.turns_out)

    def add_drafted(self, labelled: ModelLabelled) -> None:
        """Count what a model did for one dialogue; one that is set aside counts as that and with its cost only."""
        self.cost += labelled.cost
        for lost in labelled.lost:
            _sum(self.unlabelled, {lost.owner: len(lost.turns)})
        if labelled.lost:
            self.set_aside += 1
            return
        self.add(labelled)
        self.proposed += labelled.proposed
        self.repaired += labelled.repaired
        self.merged += labelled.merged
        self.mended += labelled.mended
        _sum(self.checks_out, labelled.checks_out)
        _sum(self.unlabelled, {NO_ITEM: labelled.empty} if labelled.empty else {})

    def failed(self, row: Row, error: str) -> None:
        """Count one unreadable row."""
        self.unreadable += 1
        self.unreadable_lines.append(row.line)
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"line {row.line}: {error}")


def _sum(counts: dict[str, int], more: dict[str, int]) -> None:
    for reason, count in more.items():
        counts[reason] = counts.get(reason, 0) + count


def no_dialogue(input: str, summary: LabelSummary) -> DataError:
    """The error of a file in which no row is a dialogue."""
    first = f"; the first: {summary.problems[0]}" if summary.problems else ""
    fix = 'expected rows with "messages" (chat messages) and "tools", or Nemotron rows'
    return DataError(f"none of its rows is a dialogue{first}", where=Where(file=input), fix=fix)
