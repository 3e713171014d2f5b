"""Paired: what the same tasks say about two agents, and how much of it could be chance.

Every task gives one number for each agent: 1 or 0 where it ran once, the share of its runs where it ran several times.
All statistics are about tasks, never about runs, turns or items. Two kinds of numbers are told apart:

- yes or no a task: McNemar's exact test, p = P(as lopsided or more | m tasks that differ) with X ~ Binomial(m, 1/2),
  and Newcombe's score interval of the difference (method 10 of Statistics in Medicine 17, 1998, p. 2635);
- shares and scores: the sign-flip test and the bootstrap over tasks of `cm2.evals.intervals`. For differences of 1 the
  sign-flip test is McNemar's.

A bootstrap of rare yes-and-no differences is far too sure of itself (where 2.5 % of 50 tasks differ, its 95 % interval
covers the truth in 62 % of cases; where none differ it has no width): that is why shares of yes have another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from cm2.evals.intervals import LEVEL, bootstrap, sign_flips


class Contrast(msgspec.Struct, kw_only=True):
    """B minus A over the `n` tasks that both have."""

    n: int
    a: float
    """Mean of A; of yes and no, its rate."""
    b: float
    difference: float
    low: float
    """95 % interval of the difference."""
    high: float
    p: float
    """Two-sided, of this comparison alone."""
    better: int
    """Tasks on which B did better than A."""
    worse: int
    test: Literal["mcnemar", "sign flips"]
    interval: Literal["newcombe", "bootstrap"]

    @property
    def moved(self) -> int:
        """Tasks that came out differently."""
        return self.better + self.worse

    @property
    def discordance(self) -> float:
        """Share of the tasks that came out differently."""
        return self.moved / self.n

    @property
    def smallest(self) -> float:
        """The smallest p that so many tasks that differ can give, whatever their direction."""
        return smallest(self.moved)


def contrast(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Contrast | None:
    """The paired comparison of two lists of numbers, task by task; None of none.

    Raises:
        ValueError: the lists are not equally long.
    """
    before, after = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} numbers are no pairs")
    if not len(before):
        return None
    delta = after - before
    better, worse = int((delta > 1e-12).sum()), int((delta < -1e-12).sum())
    binary = bool(np.isin(before, (0.0, 1.0)).all() and np.isin(after, (0.0, 1.0)).all())
    if binary:
        both = int(((before == 1) & (after == 1)).sum())
        low, high = newcombe(both, worse, better, len(delta) - both - worse - better)
        p = mcnemar(worse, better)
    else:
        low, high = bootstrap(delta)
        p = sign_flips(delta)
    return Contrast(
        n=len(delta),
        a=float(before.mean()),
        b=float(after.mean()),
        difference=float(delta.mean()),
        low=low,
        high=high,
        p=p,
        better=better,
        worse=worse,
        test="mcnemar" if binary else "sign flips",
        interval="newcombe" if binary else "bootstrap",
    )


def mcnemar(lost: int, gained: int, worse: bool = False) -> float:
    """McNemar's exact p, of the tasks that only A and that only B did right; 1 where none differs.

    Args:
        lost, gained: how many of each.
        worse: ask one-sided, whether B is worse.
    """
    from scipy import stats

    if not lost + gained:
        return 1.0
    return float(stats.binomtest(lost, lost + gained, 0.5, "greater" if worse else "two-sided").pvalue)


def newcombe(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """Newcombe's 95 % interval for the rate of B minus the rate of A, of the four cells of the paired table.

    Wilson's interval of each rate, put together as lengths at an angle: phi, their correlation with a correction for
    continuity, says how much of both moves together.
    """
    from scipy import stats

    n = both + lost + gained + neither
    rate_a, rate_b = (both + lost) / n, (both + gained) / n
    a = stats.binomtest(both + lost, n).proportion_ci(LEVEL, method="wilson")
    b = stats.binomtest(both + gained, n).proportion_ci(LEVEL, method="wilson")
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    covariance = float(both * neither - lost * gained)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / math.sqrt(margins) if margins else 0.0

    def length(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    difference = rate_b - rate_a
    low = difference - length(rate_b - float(b.low), float(a.high) - rate_a)
    high = difference + length(float(b.high) - rate_b, rate_a - float(a.low))
    return max(low, -1.0), min(high, 1.0)


def smallest(moved: int) -> float:
    """The smallest two-sided p that McNemar's or the sign-flip test can give where so many tasks differ."""
    return min(1.0, 2.0 * 0.5**moved)
