"""Settle: hold the drafts of a whole dialogue against each other and against lint.

Two kinds of trouble are told apart. A *fault* is about the item: it depends on what cannot be depended on, or only in a
circle, or on something that the reference has too late. A *refused check* is about the check: lint shows that the
reference does not satisfy it, or that an empty answer, a stock phrase, another turn's answer or a changed reference
does. The check goes, the item stays and is left to a judge, unless its question then asks two things at once.

Lint looks at other turns (whose answers must not satisfy a check, unless the same duty stands there), so all turns and
variants are settled together, again and again where something changed, until lint has nothing to say. Every round takes
something away, so there is an end. Items of the code are never at fault: where a model's double of one of their checks
in another turn makes lint doubt them, that double goes.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from cm2.checklist import Checklist, Item, Task, dependency_cycle
from cm2.dialogue import Dialogue
from cm2.label.draft import Draft, Fault, Key, Sheets
from cm2.label.lint import lint_checklist
from cm2.label.lint_report import Failure, ItemReport
from cm2.label.wording import compound

NO_CHECK = ""
COMPOUND = Fault("atomic", "the question asks two things and has no check that decides both; ask one")


class Settling:
    """The drafts of one dialogue while they are sorted out; changes them in place.

    Args:
        dialogue: the reference.
        sheets: its drafts.
    """

    def __init__(self, dialogue: Dialogue, sheets: Sheets):
        self.dialogue, self.sheets = dialogue, sheets
        self.alone: dict[Key, bool] = {}
        self.stale = True
        """Whether drafts have changed since they were last examined."""
        self.dropped: Counter[str] = Counter()
        """Items that were taken out, by "kind: reason"."""

    def drop(self, reason: str, count: int) -> None:
        """Count items that never became drafts."""
        if count:
            self.dropped[reason] += count

    def examine(self) -> None:
        """Find what is wrong, until nothing new is."""
        self.stale = False
        for drafts in self.sheets.values():
            _depend(drafts)
        open_ = self._unsettled()
        while open_:
            task = self._task()
            lost: set[str] = set()
            changed: set[Key] = set()
            for checklist in task.checklists:
                key = checklist.turn, checklist.variant
                if key in open_:
                    gone = self._hold(checklist, task)
                    changed |= {key} if gone else set()
                    lost |= gone
            lost.discard(NO_CHECK)
            twins = {key for key, drafts in self.sheets.items() if any(_check(draft) in lost for draft in drafts)}
            open_ = changed | twins

    def finish(self) -> None:
        """Take out what is at fault, and what turns out to be once that is gone; afterwards every draft is sound."""
        if self.stale:
            self.examine()
        while any(not draft.sound for drafts in self.sheets.values() for draft in drafts):
            for key, drafts in self.sheets.items():
                for draft in drafts:
                    if not draft.sound:
                        reason = draft.faults[0].reason if draft.faults else "form"
                        self.dropped[f"{draft.kind}: {reason}"] += 1
                kept = [draft for draft in drafts if draft.sound]
                ids = {draft.id for draft in kept}
                for draft in kept:
                    assert draft.item is not None
                    draft.item = replace(draft.item, depends_on=[id for id in draft.item.depends_on if id in ids])
                self.sheets[key] = kept
            self.examine()

    def _unsettled(self) -> set[Key]:
        """The sheets that lint has something new to say of: those with a model's items, and those where an item of the
        code has the same check as one of them. The code's items are settled among themselves."""
        every = [(key, draft) for key, drafts in self.sheets.items() for draft in drafts if draft.sound]
        new = {_check(draft) for _, draft in every if not draft.code} - {NO_CHECK}
        return {key for key, draft in every if not draft.code or _check(draft) in new}

    def _task(self) -> Task:
        checklists = [_checklist(key, drafts) for key, drafts in self.sheets.items()]
        return Task(self.dialogue, [checklist for checklist in checklists if checklist.items])

    def _hold(self, checklist: Checklist, task: Task) -> set[str]:
        """Hold a checklist's items against lint; the checks (as text) that are gone from it, none where all is well."""
        key = checklist.turn, checklist.variant
        reports = _reports(checklist, task)
        self.alone[key] = any("another_turn" not in report.tests for report in reports.values())
        gone: set[str] = set()
        late: list[tuple[Draft, ItemReport]] = []
        for draft in self.sheets[key]:
            report = reports.get(draft.id)
            if report is None or report.ok or not draft.sound:
                continue
            failure = report.failures[0]
            if failure.test not in ("rules", "evidence") and _check(draft) == NO_CHECK:
                continue  # it went a moment ago, as a double
            if draft.code:
                gone |= self._blame(draft, key, failure.message)
            elif failure.test == "reference" and self._earned_alone(draft, checklist, task):
                late.append((draft, report))
            elif failure.test in ("rules", "evidence"):
                gone.add(_check(draft))
                draft.faults.append(Fault(failure.test, failure.message))
            else:
                gone.add(_check(draft))
                _refuse(draft, Fault(failure.test, failure.message))
        for draft, report in late if not gone else ():
            gone.add(_check(draft))
            draft.faults.append(Fault("late", f"a dependency comes too late: {report.failures[0].message}"))
        return gone

    def _earned_alone(self, draft: Draft, checklist: Checklist, task: Task) -> bool:
        """Whether the reference earns an item as soon as it depends on nothing."""
        items = [replace(item, depends_on=[]) if item.id == draft.id else item for item in checklist.items]
        report = _reports(replace(checklist, items=items), task)[draft.id]
        return all(failure.test != "reference" for failure in report.failures)

    def _blame(self, code: Draft, at: Key, message: str) -> set[str]:
        """An item of the code fails beside a model's items and did not without: its doubles in other turns go. Where
        there is none, it goes itself."""
        own = _check(code)
        doubles = [
            draft
            for key, drafts in self.sheets.items()
            for draft in drafts
            if key[0] != at[0] and not draft.code and draft.sound and _check(draft) == own
        ]
        for draft in doubles:
            _refuse(draft, Fault("twin", "another turn has this check already"))
        if not doubles:
            code.faults.append(Fault("another_turn", message))
        return {own}


def _check(draft: Draft) -> str:
    return repr(draft.item.check) if draft.item is not None and draft.item.check is not None else NO_CHECK


def _refuse(draft: Draft, fault: Fault) -> None:
    """Take a draft's check away."""
    assert draft.item is not None
    draft.refused = fault
    draft.item = replace(draft.item, check=None)
    if compound(draft.item.question):
        draft.faults.append(COMPOUND)


def _checklist(key: Key, drafts: list[Draft]) -> Checklist:
    """The sound drafts as lint sees them: equal weights, and dependencies on each other only."""
    sound = [draft.item for draft in drafts if draft.item is not None and draft.sound]
    ids = {item.id for item in sound}
    items = [
        replace(item, weight=1 / len(sound), depends_on=[id for id in item.depends_on if id in ids]) for item in sound
    ]
    return Checklist(key[0], items, key[1])


def _reports(checklist: Checklist, task: Task) -> dict[str, ItemReport]:
    """Lint's reports by item. A model's check is a small program: one that crashes is told from those that do not."""
    try:
        return {report.item: report for report in lint_checklist(checklist, task)}
    except Exception:
        return {item.id: _report_alone(item, checklist, task) for item in checklist.items}


def _report_alone(item: Item, checklist: Checklist, task: Task) -> ItemReport:
    alone = replace(checklist, items=[replace(item, weight=1.0, depends_on=[])])
    try:
        return next(report for report in lint_checklist(alone, task) if report.item == item.id)
    except Exception as error:
        failure = Failure("check", f"the check does not run: {type(error).__name__}: {error}")
        return ItemReport(task.dialogue.id, checklist.turn, item.id, False, ["check"], failures=[failure])


def _depend(drafts: list[Draft]) -> None:
    """Find dependencies on items that cannot be depended on, and circles."""
    items = {draft.id: draft.item for draft in drafts if draft.item is not None}
    for draft in drafts:
        for id in draft.item.depends_on if draft.item is not None and draft.sound else []:
            on = items.get(id)
            if on is not None and on.focus_on != "tool.content":
                message = f"it depends on {id}, which focuses on {on.focus_on}; depend on items on tool.content only"
                draft.faults.append(Fault("depends_on", message))
                break
    while circle := dependency_cycle(Checklist(0, [draft.item for draft in drafts if draft.item and draft.sound])):
        for draft in drafts:
            if draft.id in circle and not draft.code:
                draft.faults.append(Fault("cycle", f"the dependencies run in a circle: {' -> '.join(circle)}"))
