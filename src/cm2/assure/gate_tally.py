"""Tally: from the outcomes of runs to cases, and from cases to rates with their intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from cm2.assure.gate_case import Case, Rate
from cm2.assure.gate_runs import Shown
from cm2.assure.outcomes import Outcome, Result
from cm2.assure.suite import Suite
from cm2.checklist import Severity
from cm2.judge.judge import NO_CHECK
from cm2.llm.scrub import scrub
from cm2.verdict import unscored_reason

WORST: tuple[Result, ...] = ("fail", "unscored", "pass", "not_applicable")
LONGEST = 400
"""Characters of a reason that are kept."""
LEVEL = 0.95
_COUNTED = {"fail": "failed", "unscored": "unscored", "pass": "passed", "not_applicable": "not_applicable"}


class Tally:
    """Puts outcomes together into cases.

    Args:
        suite: gives items without one their severity, and duties their owners.
        asks: whether the judge asks a model: if not, items without a check are not judged at all.
    """

    def __init__(self, suite: Suite, asks: bool):
        self._suite, self._asks = suite, asks
        self._cases: dict[tuple[str, str], Case] = {}
        self._items: dict[tuple[str, str], dict[bytes, None]] = {}
        self._unjudged: set[tuple[str, str]] = set()
        self.cost = 0.0

    def add(self, shown: Shown) -> None:
        """Count a run."""
        by_duty: dict[str, list[Outcome]] = {}
        for outcome in shown.outcomes:
            by_duty.setdefault(outcome.duty, []).append(outcome)
            self.cost += outcome.cost
        for duty, outcomes in by_duty.items():
            self._add(shown, duty, outcomes)

    def _add(self, shown: Shown, duty: str, outcomes: list[Outcome]) -> None:
        key = (shown.run.task, duty)
        item = outcomes[0].item
        case = self._cases.get(key)
        if case is None:
            severity: Severity = item.severity or self._suite.default_severity
            owner = self._suite.owners.get(duty) or item.owner or self._suite.owner
            case = self._cases[key] = Case(*key, severity, owner, question=item.question)
        self._items.setdefault(key, {}).update((msgspec.json.encode(one.item), None) for one in outcomes)
        worst = min(outcomes, key=lambda one: WORST.index(one.result))
        if worst.result == "unscored" and self._beyond(worst):
            self._unjudged.add(key)
            decided = [one for one in outcomes if one.result != "unscored" or not self._beyond(one)]
            if not decided:
                return
            worst = min(decided, key=lambda one: WORST.index(one.result))
        count = _COUNTED[worst.result]
        setattr(case, count, getattr(case, count) + 1)
        if (worst.result == "fail" and case.failed == 1) or (
            worst.result == "unscored" and case.unscored == 1 and not case.failed
        ):
            _example(case, shown, worst)

    def _beyond(self, outcome: Outcome) -> bool:
        """Whether the outcome is unscored because nobody was asked."""
        verdict = outcome.verdict
        return not self._asks and verdict is not None and not verdict.owner and NO_CHECK in verdict.reason

    def cases(self) -> list[Case]:
        """The cases, in order of dialogue and duty. Which of them fail is not said yet (`Case.status`)."""
        for key, case in self._cases.items():
            digest = hashlib.blake2b(b"\n".join(sorted(self._items[key])), digest_size=6)
            case.definition = digest.hexdigest()
            if not (case.runs or case.unscored or case.not_applicable) and key in self._unjudged:
                case.status, case.reason = "not_judged", NO_CHECK
            elif case.runs:
                case.status = "failed" if case.failed else "passed"
            else:
                case.status = "unscored" if case.unscored else "not_applicable"
        return sorted(self._cases.values(), key=lambda case: case.key)


def _example(case: Case, shown: Shown, outcome: Outcome) -> None:
    """Put the place of this outcome on the case, without secrets."""
    reason = outcome.reason if outcome.result == "fail" else unscored_detail(outcome.reason)
    case.reason = scrub(reason)[:LONGEST]
    case.turn, case.item, case.run, case.line = outcome.turn, outcome.item.id, shown.run.number, shown.run.line
    verdict = outcome.verdict
    case.unscored_by = verdict.owner if verdict is not None and outcome.result == "unscored" else ""
    case.evidence = []
    for pointer in verdict.evidence[:2] if verdict is not None else []:
        case.evidence.append(msgspec.structs.replace(pointer, snippet=scrub(pointer.snippet)[:LONGEST]))


def unscored_detail(reason: str) -> str:
    """A reason without what it begins with where it says why something is unscored."""
    kind = unscored_reason(reason)
    at = reason.find(kind)
    return reason[at:] if kind and at >= 0 else reason


def rates(cases: Iterable[Case], by: str, level: float = LEVEL) -> list[Rate]:
    """How the cases of each duty, or of each severity, came out.

    Args:
        cases: with their status.
        by: "duty" or "severity".
        level: of the intervals.
    """
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.severity, getattr(case, by)), []).append(case)
    order = ("critical", "major", "minor")
    return [_rate(groups[key], by, level) for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))]


def _rate(cases: list[Case], by: str, level: float) -> Rate:
    first = cases[0]
    found = Rate(getattr(first, by), first.severity)
    if by == "duty":
        found.owner, found.question = first.owner, first.question
    for case in cases:
        setattr(found, case.status, getattr(found, case.status) + 1)
    found.cases = len(cases) - found.not_applicable - found.not_judged
    scored = [case for case in cases if case.rate is not None]
    shares = [case.rate for case in scored if case.rate is not None]
    if shares:
        found.rate = sum(shares) / len(shares)
        found.low, found.high = bounds(found.rate, len({case.dialogue for case in scored}), level)
    return found


def telling(rates: list[Rate], most: int) -> tuple[list[Rate], int]:
    """The rates that have most to tell, in their order, and how many are left out: failing ones first, then flaky and
    unscored ones, then those of many cases."""
    ranked = sorted(
        range(len(rates)),
        key=lambda at: (-rates[at].failed, -rates[at].flaky - rates[at].unscored, -rates[at].cases, at),
    )
    return [rates[at] for at in sorted(ranked[:most])], max(0, len(rates) - most)


def bounds(rate: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """An interval of a mean share over `n` dialogues.

    Where each dialogue says yes or no it is Wilson's. Where dialogues give shares (several runs, several duties) it is
    Clopper and Pearson's with rate · n as the number of yes: no wider distribution has that mean, so that the interval
    is not too narrow, however alike the runs of one dialogue are.
    """
    from scipy import stats

    yes = rate * n
    if abs(yes - round(yes)) < 1e-9:
        found = stats.binomtest(round(yes), n).proportion_ci(level, method="wilson")
        return float(found.low), float(found.high)
    tail = (1 - level) / 2
    return float(stats.beta.ppf(tail, yes, n - yes + 1)), float(stats.beta.ppf(1 - tail, yes + 1, n - yes))
