"""Many tests at once: what is left of p-values when a whole family of duties is looked at."""

from __future__ import annotations

from collections.abc import Sequence


def holm(ps: list[float]) -> list[float]:
    """Holm's correction: the p-values at which each hypothesis falls, of the whole family together.

    Sorted ascending, the i-th of m (from 0) is multiplied by m - i; none is smaller than the one before it, or above 1.
    """
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """The p-values corrected for the false discovery rate over all of them."""
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(list(ps), method="bh")] if ps else []
