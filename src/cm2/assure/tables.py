"""Diagnosis: how often each duty holds, how sure that is, and what fails how.

    pass rate = passed / (passed + failed)     applies = (passed + failed + unscored) / all outcomes of the duty

What was not applicable and what could not be scored is in no rate and counted apart. Turns of one dialogue resemble
each other, so many outcomes of a duty in one dialogue say less than as many in different ones: intervals are Wilson's
(1927) with n divided by the design effect of the dialogues (Korn and Graubard, see
`cm2.judge.agreement.effective_size`).

Dialogues stream through `Diagnosing`: it keeps counts, bounded examples and bounded wordings, nothing of the dialogues.
"""

from __future__ import annotations

import math
from collections import Counter

from cm2.assure.failures import Failures
from cm2.assure.outcomes import Judged, Outcome
from cm2.assure.tables_shape import LEVEL, Diagnosis, Pairs, Row, Scores, share
from cm2.checklist import Severity
from cm2.errors import DataError
from cm2.verdict import WHOLE

DUTIES = 2000
"""Duties that have a row of their own; further ones are counted together as `OTHERS`."""
OTHERS = "(other duties)"
NAMED = 50
"""Judges, and kinds of reasons for no score, that are told apart."""
BINS = 10
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor")
JUDGED_FIX = "judge these dialogues first, by the same policy or checklists: cm2 judge LOGS -o VERDICTS"


class Diagnosing:
    """Takes in judged dialogues one by one.

    Args:
        seed: of the examples and samples.
    """

    def __init__(self, seed: int = 0) -> None:
        self.failures = Failures(seed)
        self.dialogues = self.without_duties = self.without_verdicts = 0
        self._rows: dict[str, Row] = {}
        self._pairs: dict[str, Pairs] = {}
        self._severities: dict[str, Pairs] = {}
        self._overall: Pairs = Counter()
        self._judges: Counter[str] = Counter()
        self._unscored: Counter[str] = Counter()
        self._clean: Pairs = Counter()
        self._critical: Pairs = Counter()
        self._scores = Scores(bins=[0] * (BINS + 1))
        self._squares = self._cost = 0.0
        self._counts: Counter[str] = Counter()

    def add(self, judged: Judged) -> None:
        """Take in one dialogue."""
        self.dialogues += 1
        if not judged.outcomes:
            self.without_duties += 1
            return
        self.without_verdicts += all(outcome.verdict is None for outcome in judged.outcomes)
        duties: dict[str, list[int]] = {}
        severities: dict[str, list[int]] = {}
        for outcome in judged.outcomes:
            self._count(outcome)
            if outcome.result not in ("pass", "fail"):
                continue
            held = outcome.result == "pass"
            tallies = [duties.setdefault(self._name(outcome.duty), [0, 0])]
            if outcome.item.severity is not None:
                tallies.append(severities.setdefault(outcome.item.severity, [0, 0]))
            for tally in tallies:
                tally[0] += held
                tally[1] += 1
            if not held:
                self.failures.add(judged, outcome, self.dialogues - 1)
        for name, (k, m) in duties.items():
            self._pairs.setdefault(name, Counter())[k, m] += 1
            self._rows[name].dialogues += 1
            self._rows[name].dialogues_failed += k < m
        for severity, (k, m) in severities.items():
            self._severities.setdefault(severity, Counter())[k, m] += 1
        if duties:
            k, m = (sum(tally[at] for tally in duties.values()) for at in (0, 1))
            self._overall[k, m] += 1
            self._clean[int(k == m), 1] += 1
        if "critical" in severities:
            k, m = severities["critical"]
            self._critical[int(k == m), 1] += 1
        self._score(judged.score)

    def _name(self, duty: str) -> str:
        return duty if duty in self._rows or len(self._rows) < DUTIES else OTHERS

    def _count(self, outcome: Outcome) -> None:
        name, item = self._name(outcome.duty), outcome.item
        row = self._rows.get(name)
        if row is None:
            scope = "dialogue" if outcome.turn == WHOLE else "turn"
            row = self._rows[name] = Row(name, item.question, item.severity, item.owner, scope)
        field = {"pass": "passed", "fail": "failed"}.get(outcome.result, outcome.result)
        setattr(row, field, getattr(row, field) + 1)
        self._counts[field] += 1
        row.cost += outcome.cost
        self._cost += outcome.cost
        if outcome.verdict is not None:
            _add(self._judges, outcome.verdict.judge)
        if outcome.result == "unscored":
            why = why_unscored(outcome)
            _add(self._unscored, why)
            if why in row.unscored_because or len(row.unscored_because) < NAMED:
                row.unscored_because[why] = row.unscored_because.get(why, 0) + 1

    def _score(self, score: float | None) -> None:
        """Count a score; mean and variance as Welford updates them."""
        if score is None:
            return
        found = self._scores
        found.n += 1
        before = found.mean or 0.0
        found.mean = before + (score - before) / found.n
        self._squares += (score - before) * (score - found.mean)
        found.bins[BINS if score >= 1 else int(score * BINS)] += 1

    def finish(self, unreadable: int = 0, problems: list[str] | None = None) -> Diagnosis:
        """The diagnosis of everything that was taken in.

        Raises:
            DataError: no dialogue has duties, or the verdicts are about other dialogues.
        """
        self._refuse()
        for name, row in self._rows.items():
            row.rate = share(self._pairs.get(name, Counter()))
        severities = {name: share(self._severities[name]) for name in SEVERITIES if name in self._severities}
        return Diagnosis(
            dialogues=self.dialogues,
            without_duties=self.without_duties,
            without_verdicts=self.without_verdicts,
            unreadable=unreadable,
            problems=problems or [],
            passed=self._counts["passed"],
            failed=self._counts["failed"],
            not_applicable=self._counts["not_applicable"],
            unscored=self._counts["unscored"],
            overall=share(self._overall),
            severities={name: one for name, one in severities.items() if one is not None},
            dialogues_passed=share(self._clean),
            dialogues_not_critical=share(self._critical),
            scores=self._shape(),
            duties=sorted(self._rows.values(), key=_worst_first),
            modes=self.failures.modes(),
            judges=dict(self._judges.most_common()),
            unscored_because=dict(self._unscored.most_common()),
            cost=self._cost,
            notes=self._notes(unreadable),
        )

    def _refuse(self) -> None:
        if not self.dialogues:
            raise DataError("there are no dialogues to report on", fix="check the file")
        if self.without_duties == self.dialogues:
            fix = "judge by a policy (--policy), or name the labelled file (--checklists)"
            raise DataError("no dialogue has a checklist", fix=fix)
        if self.without_duties + self.without_verdicts == self.dialogues:
            raise DataError("the store holds no verdict on any duty of these dialogues", fix=JUDGED_FIX)

    def _shape(self) -> Scores:
        from scipy.stats import t

        found = self._scores
        if found.n > 1 and found.mean is not None:
            half = float(t.ppf((1 + LEVEL) / 2, found.n - 1)) * math.sqrt(self._squares / (found.n - 1) / found.n)
            found.low, found.high = max(0.0, found.mean - half), min(1.0, found.mean + half)
        return found

    def _notes(self, unreadable: int) -> list[str]:
        notes = []
        if self.without_duties:
            notes.append(f"{_dialogues(self.without_duties)} without a checklist: in no number here.")
        if self.without_verdicts:
            notes.append(
                f"{_dialogues(self.without_verdicts)} without any verdict in the store: their duties are unscored."
            )
        never = [
            name for name, row in self._rows.items() if row.unscored_because.get(NOT_JUDGED, 0) == row.applicable > 0
        ]
        if never:
            shown = ", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
            notes.append(f"Never judged: {shown}. Was it judged by another version of the policy? {JUDGED_FIX}")
        if unreadable:
            notes.append(f"{unreadable:,} {'row does' if unreadable == 1 else 'rows do'} not read: left out.")
        return notes


NOT_JUDGED = "not judged"


def why_unscored(outcome: Outcome) -> str:
    """The kind of reason for which an outcome has no score, with whose failure it was."""
    if outcome.verdict is None:
        return NOT_JUDGED
    owner = outcome.verdict.owner
    return f"{outcome.verdict.why_unscored} ({owner})" if owner else outcome.verdict.why_unscored


def _add(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < NAMED else "(others)"] += 1


def _worst_first(row: Row) -> tuple[int, float, str]:
    """By severity, then those first of which it is surest that they are low; duties without a rate last."""
    severity = SEVERITIES.index(row.severity) if row.severity else len(SEVERITIES)
    return severity, 2.0 if row.rate is None else row.rate.high, row.duty


def _dialogues(n: int) -> str:
    return f"{n:,} dialogue{'' if n == 1 else 's'}"
