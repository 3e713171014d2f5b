"""Rate: how often something was right, with an interval that knows that answers of one dialogue hang together."""

from __future__ import annotations

import msgspec
import numpy as np
from scipy import stats

LEVEL, RESAMPLES = 0.95, 2000


class Rate(msgspec.Struct):
    """`right` of `of`, with a 95 % interval over `dialogues`."""

    rate: float
    low: float
    high: float
    right: int
    of: int
    dialogues: int


def rate_of(counts: list[tuple[int, int]]) -> Rate | None:
    """The pooled rate; a bootstrap over dialogues, exact where all dialogues say the same."""
    data = np.array([one for one in counts if one[1]], dtype=float).reshape(-1, 2)
    if not len(data):
        return None
    right, of = int(data[:, 0].sum()), int(data[:, 1].sum())
    rate, number = right / of, len(data)
    if right in (0, of) or number == 1:
        found = stats.binomtest(number if right == of else 0, number).proportion_ci(LEVEL, method="exact")
        low, high = (float(found.low), float(found.high)) if right in (0, of) else (0.0, 1.0)
        return Rate(rate, low, high, right, of, number)
    found = stats.bootstrap(
        (data[:, 0], data[:, 1]),
        lambda k, n, axis=-1: k.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Rate(rate, float(found.low), float(found.high), right, of, number)
