"""Allocate: how many of a fixed number of reviews go to which stratum.

Neyman's allocation gives stratum h, with N_h outcomes of which a share e_h is judged wrongly,

    n_h  ∝  √a_h · N_h^q · √(e_h·(1 − e_h))        at least 2 (or all of it), at most N_h

with a_h the weight of the duty's severity (the variance that counts a_h times is the one that is brought down) and
q = 1. Here q = 1/2 (Bankier's power allocation): with q = 1 a duty that is rare, or rarely fails, would get next to
nothing, and its own error rates could not be told. Two reviews are the least that show how much a stratum varies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cm2.assure.audit.doubt import PRIOR
from cm2.policy.policy import WEIGHTS

LEAST = 2
POWER = 0.5


def weight(size: int, level: str, severity: str) -> float:
    """What n_h is proportional to."""
    error = PRIOR[level]
    risk = WEIGHTS.get(severity, WEIGHTS["major"])  # type: ignore[call-overload]
    return float(math.sqrt(risk) * size**POWER * math.sqrt(error * (1 - error)))


def floor(sizes: Sequence[int], least: int = LEAST) -> int:
    """The fewest reviews with which every stratum gets its least."""
    return sum(min(least, size) for size in sizes)


def allocate(sizes: Sequence[int], weights: Sequence[float], n: int, least: int = LEAST) -> list[int]:
    """Whole numbers in proportion to the weights, each between its least and its size, which sum to n (or to all).

    Args:
        sizes: outcomes of each stratum.
        weights: see the module; positive.
        n: reviews to give; at least `floor(sizes)`.
        least: of each stratum that has so many.
    """
    low = np.array([min(least, size) for size in sizes], dtype=float)
    high, w = np.array(sizes, dtype=float), np.array(weights, dtype=float)
    n = min(n, int(high.sum()))
    assert low.sum() <= n, "merge strata first"
    below, above = 0.0, float((high / w).max()) if len(w) else 0.0
    for _ in range(200):  # the scale at which the bounded shares sum to n; they grow with it
        scale = (below + above) / 2
        below, above = (scale, above) if np.clip(scale * w, low, high).sum() < n else (below, scale)
    share = np.clip(above * w, low, high)
    found = np.floor(share + 1e-9)
    left = n - int(found.sum())
    for h in np.argsort(-(share - found), kind="stable"):
        if left <= 0:
            break
        if found[h] < high[h]:
            found[h] += 1
            left -= 1
    return [int(one) for one in found]
