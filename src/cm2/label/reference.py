"""The reference labeller: checklists from the data flow of a reference dialogue, without a language model.

Every turn's candidates (`doings`, `replies`, `asking`) are put to lint on the reference before they are kept. One that
lint refuses is tried with its next narrower check, then dropped; whatever depended on it no longer does. This is
repeated until lint has nothing to say, so that a kept item is one that an empty answer, a stock phrase or another
turn's answer does not satisfy. What was dropped is counted with the reason, turns without any item too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue
from cm2.label.asking import askings
from cm2.label.candidate import Candidate, checklist_of
from cm2.label.doings import doings
from cm2.label.halves import marked, readable
from cm2.label.lint import lint_checklist
from cm2.label.lint_report import ItemReport
from cm2.label.reading import Reading
from cm2.label.replies import DONE_ITEM, replies

MOST_ITEMS = 12
NO_ITEM_PASSED = "no item passed lint"
HALF = "half a surrogate pair"


class Labelled(msgspec.Struct):
    """A dialogue with its checklists, and what was left out and why."""

    task: Task
    items_out: dict[str, int] = {}
    """Excluded items by "kind: reason"."""
    turns_out: dict[str, int] = {}
    """Turns without a checklist by reason."""
    alone: list[int] = []
    """Turns with an item that no other turn of the dialogue was a test for (see `against`)."""


class ReferenceLabeler:
    """Labels one dialogue at a time; keeps nothing between them."""

    name = "reference"

    def label(self, dialogue: Dialogue) -> Labelled:
        """The dialogue's checklists; existing ones are not looked at."""
        copy = readable(dialogue)
        labelled = self._label(copy)
        return labelled if copy is dialogue else whole_text_only(labelled, dialogue)

    def _label(self, dialogue: Dialogue) -> Labelled:
        reading = Reading(dialogue)
        turns = {t: _candidates(reading, t) for t in range(len(dialogue.turns))}
        out: Counter[str] = Counter()
        for candidates in turns.values():
            for candidate in candidates[MOST_ITEMS:]:
                out[f"{candidate.kind}: more than {MOST_ITEMS} in a turn"] += 1
            del candidates[MOST_ITEMS:]
        before = {t: bool(candidates) for t, candidates in turns.items()}
        alone = _settle(dialogue, turns, out)
        reasons = Counter(_why_none(dialogue, t, before[t]) for t, candidates in turns.items() if not candidates)
        return Labelled(_task(dialogue, turns), dict(sorted(out.items())), dict(sorted(reasons.items())), alone)


def _candidates(reading: Reading, turn: int) -> list[Candidate]:
    found = [*doings(reading, turn), *replies(reading, turn), *askings(reading, turn)]
    refuses = any(candidate.kind == "refusal" for candidate in found)
    seeks = any(candidate.kind == "confirmation" for candidate in found)
    unique: dict[str, Candidate] = {}
    for candidate in found:
        if refuses and candidate.kind == "no_write":
            continue  # the refusal says it too
        if seeks and candidate.key == DONE_ITEM:
            continue  # a reply that seeks a yes ("and I'll send it to be made") reports nothing yet
        unique.setdefault(repr(candidate.check), candidate)
    return list(unique.values())


def _task(dialogue: Dialogue, turns: dict[int, list[Candidate]]) -> Task:
    return Task(dialogue, [checklist_of(t, candidates) for t, candidates in turns.items() if candidates])


def _settle(dialogue: Dialogue, turns: dict[int, list[Candidate]], out: Counter[str]) -> list[int]:
    """Lint and mend until nothing fails; the turns that have an item which no other turn was a test for.

    A turn is looked at again where it changed or where an item of it lost its twin in another turn.
    """
    alone: dict[int, bool] = {}
    open_ = {t for t, candidates in turns.items() if candidates}
    while open_:
        task = _task(dialogue, turns)
        changed: set[int] = set()
        gone: list[str] = []
        for checklist in task.checklists:
            if checklist.turn not in open_:
                continue
            reports = lint_checklist(checklist, task)
            alone[checklist.turn] = any("another_turn" not in report.tests for report in reports)
            failed = {report.item: report for report in reports if not report.ok}
            if not failed:
                continue
            candidates = turns[checklist.turn]
            changed.add(checklist.turn)
            for candidate, item in zip(list(candidates), checklist.items, strict=True):
                if item.id in failed:
                    gone.append(repr(candidate.check))
                    _mend(candidate, candidates, failed[item.id], out)
        if not changed:
            changed = _prune(turns, gone, out)
        twins = {t for t, candidates in turns.items() if any(repr(each.check) in gone for each in candidates)}
        open_ = {t for t in changed | twins if turns[t]}
    return [t for t, is_alone in alone.items() if is_alone and turns[t]]


def _prune(turns: dict[int, list[Candidate]], gone: list[str], out: Counter[str]) -> set[int]:
    """Drop items about answers that nothing kept depends on; the turns that lost one."""
    changed = set()
    for t, candidates in turns.items():
        needed = {key for candidate in candidates for key in candidate.depends}
        for candidate in list(candidates):
            if (
                candidate.kind == "response"
                and candidate.key not in needed
                and not (candidate.strict and len(candidates) > 1)
            ):
                gone.append(repr(candidate.check))
                candidates.remove(candidate)
                out[f"{candidate.kind}: nothing depends on it"] += 1
                changed.add(t)
    return changed


def _mend(candidate: Candidate, candidates: list[Candidate], report: ItemReport, out: Counter[str]) -> None:
    if len(candidate.checks) > 1 and report.failures[0].test not in ("rules", "evidence"):
        candidate.checks = candidate.checks[1:]
        return
    out[f"{candidate.kind}: {report.failures[0].test}"] += 1
    candidates.remove(candidate)


def against(
    labelled: Labelled, before: Task | None, instead: Callable[[Item], Item | None] = lambda item: None
) -> None:
    """Drop the items that an answer of the dialogue on the row before satisfies.

    Lint lends that answer to items that no other turn of their own dialogue can test; it is the only test that looks
    beyond a dialogue. `instead` says what takes an item's place, if anything does.
    """
    task, changed = labelled.task, True
    while before is not None and labelled.alone and changed:
        changed = False
        kept: list[Checklist] = []
        for checklist in task.checklists:
            failed = {}
            if checklist.turn in labelled.alone:
                failed = {report.item: report for report in lint_checklist(checklist, task, before) if not report.ok}
            items: list[Item] = []
            for item in checklist.items:
                stays = instead(item) if item.id in failed else item
                if stays is None:
                    _count(labelled.items_out, f"{item.kind}: {failed[item.id].failures[0].test}")
                else:
                    items.append(stays)
            changed = changed or bool(failed)
            if items:
                kept.append(checklist if not failed else _renumbered(checklist, items))
            else:
                _count(labelled.turns_out, NO_ITEM_PASSED)
        task = Task(task.dialogue, kept)
    labelled.task = task


def whole_text_only(labelled: Labelled, dialogue: Dialogue) -> Labelled:
    """What was labelled on a readable copy, as far as it holds on the dialogue itself."""
    task, dropped = Task(dialogue, labelled.task.checklists), True
    while dropped:
        dropped, kept = False, []
        for checklist in task.checklists:
            refused = {report.item for report in lint_checklist(checklist, task) if not report.ok}
            items = [item for item in checklist.items if not (marked(item) or item.id in refused)]
            for item in checklist.items:
                if item not in items:
                    _count(labelled.items_out, f"{item.kind}: {HALF}")
            dropped = dropped or len(items) < len(checklist.items)
            if items:
                kept.append(checklist if len(items) == len(checklist.items) else _renumbered(checklist, items))
            else:
                _count(labelled.turns_out, NO_ITEM_PASSED)
        task = Task(dialogue, kept)
    labelled.task = task
    return labelled


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _renumbered(checklist: Checklist, items: list[Item]) -> Checklist:
    ids = {item.id: f"C{number}" for number, item in enumerate(items)}
    renamed = [
        msgspec.structs.replace(item, id=ids[item.id], depends_on=[ids[id] for id in item.depends_on if id in ids])
        for item in items
    ]
    return msgspec.structs.replace(checklist, items=renamed).normalised()


def _why_none(dialogue: Dialogue, turn: int, had: bool) -> str:
    if had:
        return NO_ITEM_PASSED
    steps = dialogue.turns[turn].steps
    if not steps:
        return "no answer"
    if any(step.calls for step in steps):
        return "calls failed or malformed, and no fact to hold on to"
    return "small talk: no call, no fact, no question about a value"
