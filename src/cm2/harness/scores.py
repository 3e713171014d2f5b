"""Scores: outcomes become means, intervals and pass^k. Pure functions on rows.

The unit is the task: its repetitions are averaged first, the interval is over tasks. A benchmark's number is the mean
of its categories' means, as its table has it (BFCL, tau2-bench); ToolSandbox has one category, all its scenarios.
"""

from __future__ import annotations

from math import comb, hypot

from cm2.evals.intervals import Interval, interval
from cm2.harness.results import Category, Headline, Outcome, owners


def pass_hat(outcomes: list[Outcome]) -> dict[str, float]:
    """pass^k for every k up to the most repetitions that a task has.

    pass^k = mean over tasks of C(c, k) / C(n, k): of a task's n repetitions c passed, k drawn without replacement all
    pass. Repetitions that were lost are not among the n; a task with fewer than k is left out of that k.
    """
    tallies: dict[tuple[str, str], list[bool]] = {}
    for one in outcomes:
        if one.passed is not None:
            tallies.setdefault((one.category, one.task), []).append(one.passed)
    found = {}
    for k in range(1, max(map(len, tallies.values()), default=0) + 1):
        shares = [comb(sum(runs), k) / comb(len(runs), k) for runs in tallies.values() if len(runs) >= k]
        found[str(k)] = sum(shares) / len(shares)
    return found


def by_task(outcomes: list[Outcome]) -> dict[tuple[str, str], float]:
    """(category, task) -> mean score over the repetitions that have one."""
    scores: dict[tuple[str, str], list[float]] = {}
    for one in outcomes:
        if one.score is not None:
            scores.setdefault((one.category, one.task), []).append(one.score)
    return {task: sum(values) / len(values) for task, values in scores.items()}


def category(
    name: str, outcomes: list[Outcome], runs: int, whole: int | None = None, official: list[float] | None = None
) -> Category:
    """One category's row, from the outcomes that are counted in it."""
    return Category(
        name=name,
        n=len({(one.category, one.task) for one in outcomes}),
        whole=whole,
        runs=runs,
        scored=sum(one.score is not None for one in outcomes),
        score=interval(list(by_task(outcomes).values())),
        by_run=[_mean([one for one in outcomes if one.run == run]) for run in range(runs)],
        pass_hat=pass_hat(outcomes),
        errors=owners(outcomes),
        official=official or [],
    )


def categories(outcomes: list[Outcome], runs: int, whole: dict[str, int]) -> list[Category]:
    """Every category that `whole` names and that has outcomes, in that order."""
    found = []
    for name, size in whole.items():
        part = [one for one in outcomes if name == one.category or name in one.groups]
        if part:
            found.append(category(name, part, runs, size))
    return found


def headline(name: str, parts: list[Category]) -> Headline:
    """The mean of categories' means, each weighing the same: with its interval, of each run, and pass^k.

    Args:
        parts: the categories that are in it, no outcome in two of them.
    """
    scored = [one for one in parts if one.score is not None]
    intervals = [one.score for one in parts if one.score is not None]
    by_run = [
        None if not column or any(value is None for value in column) else sum(filter(None, column)) / len(column)
        for column in zip(*(one.by_run for one in parts), strict=True)
    ]
    shared = [k for k in (scored[0].pass_hat if scored else {}) if all(k in one.pass_hat for one in scored)]
    return Headline(
        name=name,
        score=mean_of_means(intervals) if len(scored) == len(parts) else None,
        by_run=by_run,
        pass_hat={k: sum(one.pass_hat[k] for one in scored) / len(scored) for k in shared},
    )


def mean_of_means(parts: list[Interval]) -> Interval | None:
    """The mean of categories' means, each weighing the same.

    Its interval recovers the variances of theirs (MOVER): with p_i in l_i … u_i and k categories, the limits are
    mean - sqrt(sum (p_i - l_i)^2) / k and mean + sqrt(sum (u_i - p_i)^2) / k. Unlike a bootstrap it does not shrink to
    a point where every task passed.
    """
    if not parts:
        return None
    mean = sum(one.mean for one in parts) / len(parts)
    below = hypot(*(one.mean - one.low for one in parts)) / len(parts)
    above = hypot(*(one.high - one.mean for one in parts)) / len(parts)
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above), sum(one.n for one in parts))


def _mean(outcomes: list[Outcome]) -> float | None:
    scores = [one.score for one in outcomes if one.score is not None]
    return sum(scores) / len(scores) if scores else None
