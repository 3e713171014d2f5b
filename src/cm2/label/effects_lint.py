"""Lint of items about a whole dialogue: the tests of `cm2.label.lint`, where the whole dialogue is the answer.

| test | the item fails it when |
|---|---|
| rules, evidence, check, reference | as for a turn |
| vacuous | it holds where no turn has a step; or, unless it forbids, where every reply is empty or "Okay." |
| stock_answer | (not of one that forbids) it holds where every reply is a stock answer |
| indiscriminate | it still holds when a call is left out, changed, fails or is made too often, or a value is not told |
| came_from | it still holds when the place that a value came from no longer holds that value |

What only forbids ("nothing else changed") holds by its nature on a run that does nothing; that such a run did nothing
is what the checklist's other items say. Changed copies put all steps into one turn, which is the same to a check of the
whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from cm2 import check as forms
from cm2.check import Check
from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError
from cm2.judge.checks import Decision, decide
from cm2.judge.text import WORDS, clean, fold
from cm2.label.counterexample import counterexamples
from cm2.label.lint_report import STOCK, Failure, ItemReport, broken_rules
from cm2.label.scramble import scramble
from cm2.verdict import WHOLE

_DONE = '{"success": true}'
_WORD = re.compile(r"[^\W_]+")
_COUNTED = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def lint_whole(checklist: Checklist, dialogue: Dialogue) -> list[ItemReport]:
    """A report for every item of a checklist of the whole dialogue, one (item "") where it is wrong as a whole."""
    broken = broken_rules(checklist, dialogue)
    reports = []
    if "" in broken:
        reports.append(_report(dialogue, checklist, "", "checklist", ["rules"], broken[""]))
    for item in checklist.items:
        tests = ["rules", "evidence"] if item.evidence else ["rules"]
        failures = broken.get(item.id, [])
        if item.check is not None:
            more, found = _test(item, item.check, dialogue)
            tests, failures = tests + more, failures + found
        report = _report(dialogue, checklist, item.id, item.kind, tests, failures)
        report.unscored = item.check is None
        reports.append(report)
    return reports


def _report(
    dialogue: Dialogue, checklist: Checklist, item: str, kind: str, tests: list[str], failures: list[Failure]
) -> ItemReport:
    return ItemReport(
        dialogue=dialogue.id,
        turn=WHOLE,
        item=item,
        ok=not failures,
        tests=tests,
        kind=kind,
        variant=checklist.variant,
        failures=failures,
    )


def _test(item: Item, check: Check, dialogue: Dialogue) -> tuple[list[str], list[Failure]]:
    if item.applies_when is not None:
        applies = _whole(item.applies_when, dialogue)
        if isinstance(applies, str):
            return ["check"], [Failure("check", f"its occasion does not run: {applies}")]
        if not applies.met:
            return ["check"], []  # a duty that its own reference gives no occasion for: nothing to test
    decision = _whole(check, dialogue)
    if isinstance(decision, str):
        return ["check"], [Failure("check", f"the check does not run: {decision}")]
    if not decision.met:
        return ["check", "reference"], [Failure("reference", f"the reference does not earn it: {decision.reason}")]
    tests, failures = ["check", "reference", "vacuous"], []
    silent: tuple[tuple[str, list[Step]], ...] = (("no step", []),)
    idle = (("an empty reply", [Step(reply="")]), ("the reply 'Okay.'", [Step(reply="Okay.")]))
    for what, steps in silent if forbids(check) else (*silent, *idle):
        if _holds(check, _answered_with(dialogue, steps)):
            failures.append(Failure("vacuous", f"it holds where every turn has {what}"))
            break
    if not forbids(check):
        tests.append("stock_answer")
        stock = next((reply for reply in STOCK if _holds(check, _answered_with(dialogue, [Step(reply=reply)]))), None)
        if stock is not None:
            failures.append(Failure("stock_answer", f"it holds where every reply is {stock!r}"))
    for test, change, leaf, changed in _changes(check, dialogue):
        if test not in tests:
            tests.append(test)
        if _holds(leaf, changed):
            failures.append(Failure(test, f"it still holds when {change}"))
    return tests, failures


def forbids(check: Check) -> bool:
    """Whether a check only says what must not happen."""
    match check:
        case forms.All() | forms.Any():
            return bool(check.checks) and all(forbids(one) for one in _own(check))
        case forms.Called():
            return check.at_least < 1
        case forms.NotCalled() | forms.Not():
            return True
        case forms.Reply():
            return bool(check.never) and not (check.states or check.asks or check.pattern)
        case _:
            return False


def _own(check: forms.All | forms.Any) -> list[Check]:
    """Of alternatives the first: the others allow more, they do not ask for more."""
    return check.checks[:1] if isinstance(check, forms.Any) else check.checks


def _changes(check: Check, dialogue: Dialogue) -> Iterator[tuple[str, str, Check, Dialogue]]:
    """(test, what is changed, the part of the check that must say no, the changed dialogue)."""
    if any(isinstance(leaf, forms.Expression) for leaf in forms.leaves(check)):
        return  # a condition of its own language: which change breaks it cannot be read from it
    flat = flattened(dialogue)
    for leaf in _held(check, dialogue):
        if isinstance(leaf, forms.Reply):
            if leaf.states or leaf.pattern:
                yield "indiscriminate", "the value is told as another one", leaf, _retold(dialogue, leaf)
        elif isinstance(leaf, (forms.Called, forms.NotCalled)) and forbids(leaf):
            for tool in _tools(leaf):
                yield "indiscriminate", f"{tool} is called too often", leaf, _calling(flat, leaf, tool)
        else:
            for example in counterexamples(leaf, flat, 0):
                test = "came_from" if example.provenance else "indiscriminate"
                yield test, example.change, example.check, example.dialogue


def _held(check: Check, dialogue: Dialogue) -> Iterator[Check]:
    """The parts of a check that hold on the reference, of alternatives only those that hold as a whole."""
    match check:
        case forms.All():
            for one in check.checks:
                yield from _held(one, dialogue)
        case forms.Any():
            for one in check.checks:
                if _holds(one, dialogue):
                    yield from _held(one, dialogue)
        case _:
            yield check


def _tools(leaf: forms.Called | forms.NotCalled) -> list[str]:
    return [leaf.tool] if isinstance(leaf, forms.Called) else leaf.tools


def _calling(flat: Dialogue, leaf: forms.Called | forms.NotCalled, tool: str) -> Dialogue:
    """The dialogue with the forbidden call made, with success, once more than the leaf allows at all."""
    arguments = {
        key: matcher.values[0]
        for key, matcher in leaf.arguments.items()
        if isinstance(matcher, forms.OneOf) and matcher.values
    }
    times = (leaf.at_most or 0) + 1 if isinstance(leaf, forms.Called) else 1
    extra = [
        Step(calls=[ToolCall(tool, arguments, f"extra{n}")], responses=[ToolResponse(_DONE, f"extra{n}", tool)])
        for n in range(times)
    ]
    turn = flat.turns[0]
    return replace(flat, turns=[Turn(turn.user, [*extra, *turn.steps])])


def _retold(dialogue: Dialogue, leaf: forms.Reply) -> Dialogue:
    """The dialogue with other numbers in every reply, and other words in place of those of a text that is asked for."""
    listed = [value for fact in leaf.states for value in fact.any_of]
    if any(fact.tool is not None for fact in leaf.states) and not listed:
        return _with_replies(dialogue, lambda text: "Okay.")
    texts = {word for value in listed if isinstance(value, str) for word in fold(value).split()}

    def other(text: str) -> str:
        text = _WORD.sub(lambda word: str(scramble(word[0])) if fold(word[0]) in texts else word[0], clean(text))
        return _COUNTED.sub("several", re.sub(r"\d+", lambda run: f"777{run[0]}", text))

    return _with_replies(dialogue, other)


def _with_replies(dialogue: Dialogue, change: Callable[[str], str]) -> Dialogue:
    turns = [
        Turn(
            turn.user,
            [replace(step, reply=change(step.reply), wire=None) if step.reply else step for step in turn.steps],
        )
        for turn in dialogue.turns
    ]
    return replace(dialogue, turns=turns, wire=None)


def _answered_with(dialogue: Dialogue, steps: list[Step]) -> Dialogue:
    return replace(dialogue, turns=[Turn(turn.user, steps) for turn in dialogue.turns], wire=None)


def flattened(dialogue: Dialogue) -> Dialogue:
    """The dialogue with all steps in one turn."""
    user = "\n".join(turn.user for turn in dialogue.turns)
    steps = [step for turn in dialogue.turns for step in turn.steps]
    return replace(dialogue, turns=[Turn(user, steps)], wire=None)


def _whole(check: Check, dialogue: Dialogue) -> Decision | str:
    """The decision about the whole dialogue, or why there is none."""
    try:
        return decide(check, dialogue, WHOLE, WHOLE)
    except DataError as error:
        return str(error)


def _holds(check: Check, dialogue: Dialogue) -> bool:
    decision = _whole(check, dialogue)
    return not isinstance(decision, str) and decision.met
