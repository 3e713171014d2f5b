"""Compare: which duties got better or worse from agent A to agent B, and whether that could be chance.

Both are paired by task (dialogue id): the number of a task is the share of its runs that pass, and only tasks that both
have scored runs of are used. What is left out is counted by its reason: no such task on the other side, unscored on a
side, not applicable on one side only, another definition of the duty.

Many duties are many chances of a false alarm. Critical duties are corrected together by Holm (the chance of any false
alarm among them stays below alpha), the others by Benjamini and Hochberg over all duties (of the alarms, no more than
alpha are false on average). Duties on which too few tasks differ to be significant whichever way they differ are in
neither family: that depends on how many differ and not on their direction, so leaving them out costs no promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from cm2.assure import power as planning
from cm2.assure.compare_read import Progress, Source, as_it_is, read_side
from cm2.assure.compare_result import Change, Comparison, DutyChange, Flip, MetricChange, SideSummary
from cm2.assure.compare_side import Cell, DutyInfo, Side
from cm2.assure.multiple import benjamini_hochberg, holm
from cm2.assure.paired import Contrast, contrast
from cm2.checklist import Severity
from cm2.errors import ConfigError, DataError
from cm2.policy import load_policy

METRICS = {
    "score": "weighted score",
    "reward": "checklist reward",
    "strict_pass": "strict pass",
    "outcome": "outcome",
}
"""What is compared beside the duties, and what tables call it."""
_ORDER: dict[Severity | None, int] = {"critical": 0, "major": 1, "minor": 2, None: 3}
Level = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class CompareConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is compared with what."""

    a: str
    """The agent as it was: dialogues, a store of rollouts, the folder of an evaluation, or the result of a gate."""
    b: str
    """The agent as it may become: the same."""
    verdicts_a: str | None = None
    """The store that `cm2 judge` wrote about A's dialogues; without one they are judged now, by checks."""
    verdicts_b: str | None = None
    policy: str | None = None
    """Duties that hold in every dialogue."""
    checklists: str | None = None
    """A labelled file with checklists for dialogues of the same ids."""
    pair_by: str | None = None
    """The field of a dialogue's `meta` that names its task, where each run has an id of its own."""
    name_a: str = "A"
    """What tables call it."""
    name_b: str = "B"
    format: str = "auto"
    """Of dialogues, when it cannot be told from the rows."""
    alpha: Level = 0.05
    """How often a family of duties may give a false alarm."""
    power: Level = 0.8
    """How surely a difference is to be seen, for the numbers of dialogues that are needed."""
    examples: Annotated[int, msgspec.Meta(ge=0)] = 3
    """Dialogues that are named for each duty and direction."""


def compare(config: CompareConfig, progress: Progress = as_it_is) -> Comparison:
    """Read both sides and compare them.

    Raises:
        DataError: a file is missing or of another kind; the sides share no task.
        ConfigError: settings do not fit together.
    """
    if config.verdicts_a is None and config.verdicts_b is not None:
        raise ConfigError("only B has a store of verdicts", fix="give --verdicts-a too: both must be judged alike")
    if config.verdicts_a is not None and config.verdicts_b is None:
        raise ConfigError("only A has a store of verdicts", fix="give --verdicts-b too: both must be judged alike")
    policy = None if config.policy is None else load_policy(config.policy)
    a, b = (
        read_side(
            Source(
                path=path,
                name=name,
                verdicts=verdicts,
                policy=policy,
                policy_file=config.policy,
                checklists=config.checklists,
                pair_by=config.pair_by,
                format=config.format,
            ),
            progress,
        )
        for path, name, verdicts in (
            (config.a, config.name_a, config.verdicts_a),
            (config.b, config.name_b, config.verdicts_b),
        )
    )
    return compare_sides(a, b, alpha=config.alpha, power=config.power, examples=config.examples)


def compare_sides(a: Side, b: Side, *, alpha: float = 0.05, power: float = 0.8, examples: int = 3) -> Comparison:
    """Compare two sides that are read already; see `CompareConfig` for the settings.

    Raises:
        DataError: they share no task.
    """
    known_a, known_b = a.runs.keys() | a.lost.keys(), b.runs.keys() | b.lost.keys()
    shared = sorted(known_a & known_b)
    if not shared:
        some = [", ".join(sorted(known)[:3]) for known in (known_a, known_b)]
        fix = "pair runs of the same dialogues, or name their task with --pair-by"
        raise DataError(f"{a.source} and {b.source} share no dialogue id ({some[0]} … and {some[1]} …)", fix=fix)
    found = Comparison(
        a=_summary(a, known_a - known_b),
        b=_summary(b, known_b - known_a),
        tasks=len(shared),
        lost_tasks=sum(not a.runs.get(task) or not b.runs.get(task) for task in shared),
        alpha=alpha,
        power=power,
    )
    found.duties = [
        _duty(duty, a, b, shared, examples)
        for duty in sorted(a.cells.keys() | b.cells.keys(), key=lambda duty: _place(a, b, duty))
    ]
    _decide(found.duties, alpha)
    for duty in found.duties:
        duty.needed, duty.detectable = _planned(duty.contrast, _deviation(duty, a, b, shared), alpha, power)
    found.metrics = [one for name in METRICS if (one := _metric(name, a, b, shared, alpha, power)) is not None]
    found.not_judged = sorted((a.unjudged | b.unjudged) - {duty.duty for duty in found.duties})
    found.notes = _notes(found, a, b)
    return found


def _summary(side: Side, unpaired: set[str]) -> SideSummary:
    lost: dict[str, int] = {}
    for owner in (owner for owners in side.lost.values() for owner in owners):
        lost[owner] = lost.get(owner, 0) + 1
    tasks = len(side.runs.keys() | side.lost.keys())
    runs = sum(side.runs.values())
    return SideSummary(side.name, side.source, side.kind, tasks, runs, len(unpaired), lost, side.unreadable)


def _info(a: Side, b: Side, duty: str) -> DutyInfo:
    return b.duties.get(duty) or a.duties.get(duty) or DutyInfo()


def _place(a: Side, b: Side, duty: str) -> tuple[int, str]:
    return _ORDER[_info(a, b, duty).severity], duty


def _pairs(duty: str, a: Side, b: Side, shared: list[str]) -> dict[str, tuple[Cell, Cell]]:
    """The tasks in which the duty is scored on both sides."""
    before, after = a.cells.get(duty, {}), b.cells.get(duty, {})
    found = {}
    for task in shared:
        one, other = before.get(task), after.get(task)
        if one is None or other is None or one.definition != other.definition:
            continue
        if one.rate is not None and other.rate is not None:
            found[task] = (one, other)
    return found


def _duty(duty: str, a: Side, b: Side, shared: list[str], examples: int) -> DutyChange:
    info = _info(a, b, duty)
    found = DutyChange(duty=duty, severity=info.severity, owner=info.owner, question=info.question)
    pairs = _pairs(duty, a, b, shared)
    for task in shared:
        if task not in pairs:
            _left_out(found, a, b, task)
    found.contrast = contrast(*_rates(pairs))
    flips = [Flip(task, one.rate, other.rate, "") for task, (one, other) in pairs.items() if one.rate != other.rate]  # type: ignore[arg-type]
    flips.sort(key=lambda flip: (-abs(flip.b - flip.a), flip.task))
    found.got_worse = [flip for flip in flips if flip.b < flip.a][:examples]
    found.got_better = [flip for flip in flips if flip.b > flip.a][:examples]
    for flip in found.got_worse:
        flip.reason = pairs[flip.task][1].reason
    for flip in found.got_better:
        flip.reason = pairs[flip.task][0].reason
    return found


def _rates(pairs: Mapping[str, tuple[Cell, Cell]]) -> tuple[np.ndarray, np.ndarray]:
    rates = np.array([(one.rate, other.rate) for one, other in pairs.values()], dtype=float).reshape(-1, 2)
    return rates[:, 0], rates[:, 1]


def _left_out(found: DutyChange, a: Side, b: Side, task: str) -> None:
    """Count a task that is no pair, by why it is none."""
    one, other = a.cell(found.duty, task), b.cell(found.duty, task)
    if one is None and other is None:
        return
    if one is not None and other is not None and one.definition != other.definition:
        found.redefined += 1
    elif any(_undecided(cell, side, task) for cell, side in ((one, a), (other, b))):
        found.unscored += 1
        found.why_unscored = found.why_unscored or next(
            (cell.reason for cell in (one, other) if cell is not None and cell.rate is None and cell.unscored), ""
        )
    elif one is not None and one.rate is not None:
        found.only_a += 1
    elif other is not None and other.rate is not None:
        found.only_b += 1


def _undecided(cell: Cell | None, side: Side, task: str) -> bool:
    if cell is None:
        return not side.runs.get(task)
    return cell.rate is None and cell.unscored > 0


def _decide(duties: list[DutyChange], alpha: float) -> None:
    """Correct the p-values of the duties, and say which changed."""
    testable = []
    for duty in duties:
        if duty.contrast is None:
            continue
        duty.change, duty.p = "could be chance", 1.0
        if duty.contrast.smallest <= alpha:
            testable.append((duty, duty.contrast))
    critical = [(duty, one) for duty, one in testable if duty.severity == "critical"]
    for (duty, _), p in zip(testable, benjamini_hochberg([one.p for _, one in testable]), strict=True):
        duty.p, duty.correction = p, "benjamini-hochberg"
    for (duty, _), p in zip(critical, holm([one.p for _, one in critical]), strict=True):
        duty.p, duty.correction = p, "holm"
    for duty, one in testable:
        duty.change = _change(one, duty.p, alpha)


def _change(one: Contrast, p: float | None, alpha: float) -> Change:
    if p is None or p > alpha or one.difference == 0:
        return "could be chance"
    return "better" if one.difference > 0 else "worse"


def _deviation(duty: DutyChange, a: Side, b: Side, shared: list[str]) -> float:
    if duty.contrast is None or duty.contrast.test == "mcnemar":
        return 0.0
    before, after = _rates(_pairs(duty.duty, a, b, shared))
    return float(np.std(after - before, ddof=1)) if len(before) > 1 else 0.0


def _planned(one: Contrast | None, deviation: float, alpha: float, power: float) -> tuple[int | None, float | None]:
    """How many tasks would show the difference that was found, and which difference so many tasks show."""
    if one is None:
        return None, None
    if one.test == "mcnemar":
        needed = planning.needed_pairs(one.better / one.n, one.worse / one.n, alpha, power)
        return needed, planning.detectable(one.n, one.discordance, alpha, power)
    needed = planning.needed_tasks(one.difference, deviation, alpha, power)
    return needed, planning.detectable_mean(one.n, deviation, alpha, power)


def _metric(name: str, a: Side, b: Side, shared: list[str], alpha: float, power: float) -> MetricChange | None:
    if name == "score":
        pairs = {task: found for task in shared if (found := _scores(a, b, task)) is not None}
    else:
        before, after = a.metrics.get(name, {}), b.metrics.get(name, {})
        pairs = {task: (before[task], after[task]) for task in shared if task in before and task in after}
    values = np.array(list(pairs.values()), dtype=float).reshape(-1, 2)
    one = contrast(values[:, 0], values[:, 1])
    if one is None:
        return None
    deviation = float(np.std(values[:, 1] - values[:, 0], ddof=1)) if len(values) > 1 else 0.0
    needed, least = _planned(one, deviation, alpha, power)
    return MetricChange(name=name, change=_change(one, one.p, alpha), contrast=one, needed=needed, detectable=least)


def _scores(a: Side, b: Side, task: str) -> tuple[float, float] | None:
    """The severity-weighted score of a task under both, over the duties that neither side lost; None where there is
    none. A duty that applies under one agent only counts for that one, as in the score of a single dialogue."""
    won, weight = [0.0, 0.0], [0.0, 0.0]
    for duty in a.cells.keys() | b.cells.keys():
        cells = (a.cell(duty, task), b.cell(duty, task))
        if any(_undecided(cell, side, task) for cell, side in zip(cells, (a, b), strict=True)):
            continue
        if cells[0] is not None and cells[1] is not None and cells[0].definition != cells[1].definition:
            continue
        for place, cell in enumerate(cells):
            if cell is not None:
                won[place] += cell.won
                weight[place] += cell.weight
    return (won[0] / weight[0], won[1] / weight[1]) if weight[0] and weight[1] else None


def _notes(found: Comparison, a: Side, b: Side) -> list[str]:
    """What a reader should know beside the numbers."""
    notes = []
    for side, summary in ((a, found.a), (b, found.b)):
        if summary.unpaired:
            notes.append(f"{summary.unpaired} dialogues of {side.name} have no partner and are not used")
        if summary.lost:
            owners = ", ".join(f"{owner} {count}" for owner, count in sorted(summary.lost.items()))
            notes.append(f"{sum(summary.lost.values())} runs of {side.name} were lost ({owners}): unscored, not failed")
        if summary.unreadable:
            notes.append(f"{summary.unreadable} rows of {side.name} do not read: " + "; ".join(side.problems))
    if found.lost_tasks:
        notes.append(f"{found.lost_tasks} of the {found.tasks} dialogues have no run that counts on one side")
    if found.not_judged:
        notes.append(f"not judged, because checks cannot decide them: {', '.join(found.not_judged)}")
    return notes
