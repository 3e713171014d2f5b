"""Weights of labels: a sample that was drawn by what the judge said speaks for the whole once each label is weighed.

`cm2 audit` draws more of what is rare or doubtful, and its labels carry `weight`, 1 / the chance of each case to be
drawn. A share is then Σw·hit / Σw·asked (Horvitz and Thompson's, as a ratio), and what it rests on is no more than
Kish's (Σw)² / Σw² cases, fewer where the verdicts of one dialogue resemble each other. Labels of equal weight, or of
none, give what a plain sample gives, to the last digit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import open_rows, parse, read_lines
from cm2.judge.agreement import LEVEL, Floats, Ints, Rate, exact
from cm2.judge.pairing import Place

Bools = NDArray[np.bool_]


def weights_of(path: str) -> dict[Place, float]:
    """The weight of each place whose labels (a file that `read_truth` reads) have one; several rows of one place are
    people who looked at the same case, and have the same.

    Raises:
        DataError: a weight is no number above 0.
    """
    found: dict[Place, float] = {}
    with open_rows(path) as (_, file):
        for number, line, _ in read_lines(file):
            row = parse(line)[0] if line.strip() else None
            if not isinstance(row, dict) or row.get("weight") is None:
                continue
            weight = row["weight"]
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                raise DataError(
                    f"the weight {weight!r} is no number above 0",
                    where=Where(file=path, line=number),
                    fix="write 1 / the chance that the case was drawn with, or leave it out",
                )
            place = Place(row["dialogue"], row.get("rollout", ""), row.get("variant", 0), row["turn"], row["item"])
            found[place] = float(weight)
    return found


def weighted_rate(hit: Bools, asked: Bools, weight: Floats, cluster: Ints) -> Rate | None:
    """The weighed share of `hit` among `asked`, both [run, place]; None where nothing was asked.

    `count` and `n` are those that were seen; `effective` is how many independent ones of equal weight say as much.
    """
    n = int(asked.sum())
    if not n:
        return None
    hits, sizes = ((which * weight).sum(axis=0) for which in (hit, asked))
    k, m = (np.bincount(cluster, weights=each).astype(np.float64) for each in (hits, sizes))
    share = float(k.sum() / m.sum())
    kish = float(sizes.sum() ** 2 / (asked * weight**2).sum())
    worth = min(kish, _effective(k[m > 0], m[m > 0], share, n))
    low, high = exact(share * worth, worth)
    return Rate(int(hit.sum()), n, share, low, high, worth)


def _effective(k: Floats, m: Floats, share: float, n: int) -> float:
    """`cm2.judge.agreement.effective_size` of clusters whose sums are weighed, for n cases."""
    clusters = len(m)
    if clusters < 2 or share in (0.0, 1.0) or n < 2:
        return float(n)
    variance = clusters / (clusters - 1) * float(((k - share * m) ** 2).sum()) / float(m.sum()) ** 2
    effect = variance / (share * (1 - share) / (n - 1))
    if effect <= 1 + 1e-9:
        return float(n)
    quantile = 1 - (1 - LEVEL) / 2
    few = float(stats.t.ppf(quantile, n - 1) / stats.t.ppf(quantile, clusters - 1)) ** 2
    return min(float(n), n / effect * few)
