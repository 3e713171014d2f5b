"""Lint: does a checklist pay for the duty, and only for it?

Every item is put to tests on its own reference dialogue:

| test | the item fails it when |
|---|---|
| rules | a rule of `cm2.checklist.validate` is broken (dependencies, weights, wording …) |
| evidence | a snippet does not stand at its place in the reference |
| check | its check does not run (a broken path or pattern) |
| reference | the reference itself would not earn it, by its check or because its dependencies come too late |
| vacuous | it holds on an empty answer: no step, an empty reply, or a bare "Okay." |
| stock_answer | it holds on a stock answer that fits any turn: "done", a refusal, a counter-question, a greeting |
| another_turn | it holds on the answer of another turn: the nearest two of the same dialogue, else one of a neighbour |
| indiscriminate | it still holds when the call, argument or fact it is about is changed (`cm2.label.counterexample`) |
| came_from | it still holds when the place that a value came from no longer holds that value |

Items about a whole dialogue are tested on the whole of it: see `cm2.label.effects_lint`.

An item without a check is unscored here: only rules and evidence can be tested. A turn whose own checklist has the same
check, or whose answer is the same, is no other answer and is not used; nor is a neighbour's answer to the same message.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cm2.checklist import Checklist, Item, Task
from cm2.credit.satisfaction import latch
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import DataError
from cm2.judge.checks import decide
from cm2.label.counterexample import counterexamples, with_steps
from cm2.label.effects_lint import lint_whole
from cm2.label.lint_report import STOCK, Failure, ItemReport, broken_rules
from cm2.verdict import WHOLE

TESTS = (
    "rules",
    "evidence",
    "check",
    "reference",
    "vacuous",
    "stock_answer",
    "another_turn",
    "indiscriminate",
    "came_from",
)
VACUOUS: tuple[list[Step], ...] = ([], [Step()], [Step(reply="")], [Step(reply="Okay.")])


def lint_task(task: Task, neighbour: Task | None = None) -> list[ItemReport]:
    """A report for every item of the task's checklists, and one (item "") for each checklist that is wrong as a whole.

    `neighbour` (the task on the row before, with its checklists) lends an answer where the dialogue has no other turn.
    """
    return [report for checklist in task.checklists for report in lint_checklist(checklist, task, neighbour)]


def lint_checklist(checklist: Checklist, task: Task, neighbour: Task | None = None) -> list[ItemReport]:
    """See `lint_task`; `checklist` need not be among the task's (a labeller tries one before it keeps it)."""
    dialogue, turn = task.dialogue, checklist.turn
    if turn == WHOLE:
        return lint_whole(checklist, dialogue)
    broken = broken_rules(checklist, dialogue)
    reports = []
    if "" in broken:
        reports.append(
            ItemReport(dialogue.id, turn, "", False, ["rules"], "checklist", checklist.variant, None, False, broken[""])
        )
    if not 0 <= turn < len(dialogue.turns):
        return reports
    earned = _earned_at(checklist, dialogue)
    for item in checklist.items:
        failures = broken.get(item.id, [])
        tests = ["rules", "evidence"] if item.evidence else ["rules"]
        if item.check is not None:
            more, found = _test(item, checklist, task, neighbour, earned)
            tests, failures = tests + more, failures + found
        reports.append(
            ItemReport(
                dialogue=dialogue.id,
                turn=turn,
                item=item.id,
                ok=not failures,
                tests=tests,
                kind=item.kind,
                variant=checklist.variant,
                unscored=item.check is None,
                failures=failures,
            )
        )
    return reports


def _earned_at(checklist: Checklist, dialogue: Dialogue) -> dict[str, int | str]:
    """The step at which the reference satisfies each item that has a check, read `gated` as rewards are, or why not.

    What an item without a check says is not known here: nothing waits for it.
    """
    steps = range(len(dialogue.turns[checklist.turn].steps))
    items: dict[str, Item] = {}
    met: dict[str, list[bool]] = {}
    earned: dict[str, int | str] = {}
    for item in checklist.items:
        if item.check is None:
            continue
        try:
            decisions = [decide(item.check, dialogue, checklist.turn, step) for step in steps]
        except DataError as error:
            earned[item.id] = f"broken: {error}"
            decisions = []
        items[item.id], met[item.id] = item, [bool(one.met) for one in decisions] or [False] * len(steps)
        if item.id not in earned and not any(met[item.id]):
            earned[item.id] = decisions[-1].reason if decisions else "the reference has no step in this turn"
    depends = np.array([[id in item.depends_on for id in items] for item in items.values()], dtype=bool)
    said = np.array(list(met.values()), dtype=float).reshape(len(items), len(steps)).T
    states = latch(said, depends.reshape(len(items), len(items)), "gated")
    satisfied = {id: int(held.argmax()) - 1 for id, held in zip(items, states.T, strict=True) if held[-1]}
    circular = _in_circles(items)
    for id, item in items.items():
        if id in satisfied:
            earned[id] = satisfied[id]
        elif id not in earned:
            late = next((other for other in item.depends_on if other in items and other not in satisfied), None)
            if id in circular:
                earned[id] = "its dependencies run in a circle"
            elif late is not None:
                earned[id] = f"its dependency {late} is never satisfied"
            else:
                earned[id] = "it holds only where its dependencies do not hold yet"
    return earned


def _in_circles(items: dict[str, Item]) -> set[str]:
    """The items whose turn never comes, because what they depend on comes back to itself."""
    open_ = set(items)
    while ready := {id for id in open_ if open_.isdisjoint(items[id].depends_on)}:
        open_ -= ready
    return open_


def _test(
    item: Item, checklist: Checklist, task: Task, neighbour: Task | None, earned: dict[str, int | str]
) -> tuple[list[str], list[Failure]]:
    dialogue, turn, check = task.dialogue, checklist.turn, item.check
    assert check is not None
    at = earned[item.id]
    if isinstance(at, str):
        name = "check" if at.startswith("broken: ") else "reference"
        return ["check", "reference"], [Failure(name, f"the reference does not earn it: {at}")]
    tests, failures = ["check", "reference", "vacuous", "stock_answer"], []

    def holds(steps: list[Step]) -> bool:
        other = with_steps(dialogue, turn, steps)
        return any(decide(check, other, turn, step).met for step in range(-1, len(steps)))

    for steps in VACUOUS:
        if holds(steps):
            what = f"the reply {steps[0].reply!r}" if steps else "an answer without any step"
            failures.append(Failure("vacuous", f"it holds on {what}"))
            break
    stock = next((reply for reply in STOCK if holds([Step(reply=reply)])), None)
    if stock is not None:
        failures.append(Failure("stock_answer", f"it holds on {stock!r}"))
    donors = list(_donors(item, task, turn, neighbour))
    if donors:
        tests.append("another_turn")
    for name, donor in donors:
        if holds(donor.steps):
            failures.append(Failure("another_turn", f"it holds on the answer of {name}"))
            break
    if not decide(check, dialogue, turn, len(dialogue.turns[turn].steps) - 1).met:
        return tests, [*failures, Failure("reference", "it holds during the turn but no longer at its end")]
    for example in counterexamples(check, dialogue, turn):
        test = "came_from" if example.provenance else "indiscriminate"
        if test not in tests:
            tests.append(test)
        if not example.caught:
            failures.append(Failure(test, f"it still holds when {example.change}"))
    return tests, failures


def _donors(item: Item, task: Task, turn: int, neighbour: Task | None) -> Iterator[tuple[str, Turn]]:
    """Two other answers of the same dialogue, nearest first; one of the neighbour's where there is none."""
    answer = task.dialogue.turns[turn].steps

    def other(lender: Task, t: int) -> bool:
        same_duty = any(each.check == item.check for c in lender.checklists if c.turn == t for each in c.items)
        return not same_duty and bool(lender.dialogue.turns[t].steps) and lender.dialogue.turns[t].steps != answer

    turns = sorted((t for t in range(len(task.dialogue.turns)) if t != turn), key=lambda t: (abs(t - turn), t))
    lent = [t for t in turns if other(task, t)][:2]
    yield from ((f"turn {t}", task.dialogue.turns[t]) for t in lent)
    if not lent and neighbour is not None and neighbour.dialogue.turns:
        t = turn % len(neighbour.dialogue.turns)
        if neighbour.dialogue.turns[t].user != task.dialogue.turns[turn].user and other(neighbour, t):
            yield f"turn {t} of dialogue {neighbour.dialogue.id}", neighbour.dialogue.turns[t]
