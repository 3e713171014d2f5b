"""Intervals: a mean with a 95 % interval, and the paired difference of two agents on the same tasks.

The unit is the task, never the rollout: several rollouts of a task are averaged first. Shares of one yes or no a task
have Wilson's interval, everything else a bootstrap over tasks. A difference is paired by task, with a bootstrap
interval and a p-value from sign flips (the null hypothesis: which agent is which does not matter).
"""

from __future__ import annotations

import msgspec
import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000


class Interval(msgspec.Struct):
    """A mean over `n` tasks and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


class Difference(msgspec.Struct):
    """After minus before over the `n` tasks that both have: mean, 95 % interval, two-sided p."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def interval(values: list[float]) -> Interval | None:
    """The mean of one value a task; None where there is none."""
    if not values:
        return None
    data = np.array(values, dtype=float)
    mean = float(data.mean())
    if set(values) <= {0.0, 1.0}:
        found = stats.binomtest(int(data.sum()), len(data)).proportion_ci(LEVEL, method="wilson")
        return Interval(mean, float(found.low), float(found.high), len(data))
    low, high = _bootstrap(data)
    return Interval(mean, low, high, len(data))


def difference(before: dict[str, float], after: dict[str, float]) -> Difference | None:
    """The paired difference over tasks, by id; None where they share none."""
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return None
    a, b = (np.array([one[id] for id in shared]) for one in (before, after))
    low, high = _bootstrap(b - a)
    p = 1.0
    if len(shared) > 1 and bool((a != b).any()):
        test = stats.permutation_test(
            (b - a,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
        p = float(test.pvalue)
    return Difference(float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, p, len(shared))


def _bootstrap(data: np.ndarray) -> tuple[float, float]:
    if len(data) < 2 or bool((data == data[0]).all()):
        return float(data.mean()), float(data.mean())
    found = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
