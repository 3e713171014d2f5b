"""Intervals: a mean with a 95 % interval, and the paired difference of two agents on the same tasks.

The unit is the task, never the rollout: several rollouts of a task are averaged first. Shares of one yes or no a task
have Wilson's interval, everything else a bootstrap over tasks. A difference is paired by task, with a bootstrap
interval and a p-value from sign flips (the null hypothesis: which agent is which does not matter).
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000
FLIPS = 9999
BATCH = 1000
"""Resamples that are in memory at once."""
LARGE = 1000
"""So many tasks make a mean normal; resampling them would only take memory."""


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
    low, high = bootstrap(data)
    return Interval(mean, low, high, len(data))


def difference(before: dict[str, float], after: dict[str, float]) -> Difference | None:
    """The paired difference over tasks, by id; None where they share none."""
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return None
    a, b = (np.array([one[id] for id in shared]) for one in (before, after))
    low, high = bootstrap(b - a)
    return Difference(float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, sign_flips(b - a), len(a))


def sign_flips(differences: np.ndarray, alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """p of the test that flips signs: were the two agents the same, each difference were as likely with the other sign.
    All patterns where few tasks differ, FLIPS drawn ones where more do, the normal limit beyond LARGE.

    What is 0 stays 0 whatever its sign, so only the differences that are not count.

    Args:
        differences: one a task.
        alternative: greater asks one-sided, whether the differences are above 0.
    """
    two_sided = alternative == "two-sided"
    moved = differences[np.abs(differences) > 1e-12]
    if len(moved) < 2:  # one difference is as likely either way
        return 1.0 if two_sided or moved.sum() <= 0 else 0.5
    if len(moved) > LARGE:
        z = moved.sum() / np.sqrt((moved**2).sum())
        return float(2 * stats.norm.sf(abs(z)) if two_sided else stats.norm.sf(z))
    test = stats.permutation_test(
        (moved,),
        np.mean,
        permutation_type="samples",
        alternative=alternative,
        n_resamples=FLIPS,
        batch=BATCH,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def bootstrap(data: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean: percentiles of resampled tasks, the t interval beyond LARGE, where they agree."""
    if len(data) < 2 or bool((data == data[0]).all()):
        return float(data.mean()), float(data.mean())
    if len(data) > LARGE:
        low, high = stats.t.interval(LEVEL, len(data) - 1, data.mean(), stats.sem(data))
        return float(low), float(high)
    found = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        batch=BATCH,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
