"""Agreement: how far two who say yes or no agree, as numbers that carry their uncertainty.

Agreement alone flatters: where 95 % of the truth is yes, a judge that always says yes agrees in 95 %. So kappa stands
beside it, and because kappa in turn punishes a one-sided truth, the base rate and PABAK stand beside kappa:

    agreement = (tp + tn) / n              base rate = (tp + fn) / n, the share of yes in the truth
    kappa     = (agreement − e) / (1 − e)  e = chance agreement of two raters with these shares of yes (Cohen 1960)
    PABAK     = 2·agreement − 1            kappa as if truth and judge said yes in half of the cases (Byrt 1993)

Verdicts of one dialogue resemble each other, so n of them say less than n independent ones. Intervals of rates are
Clopper and Pearson's with n divided by the design effect (Korn and Graubard 1998); that of kappa resamples dialogues.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.95
RESAMPLES = 1000
BLOCKS = 2000
"""Dialogues beyond so many are resampled in blocks: as valid, and the memory stays flat."""


class Rate(msgspec.Struct):
    """A share of yes among `n`, with its 95 % interval."""

    count: int
    n: int
    rate: float
    low: float
    high: float
    effective: float
    """How many independent ones say as much as these n: n divided by the design effect of the dialogues."""


class Confusion(msgspec.Struct):
    """How often which verdict met which truth. Unscored ones are counted and are in no rate."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0
    judge_unscored: int = 0
    """The truth is known, the judge did not decide."""
    truth_unscored: int = 0
    """The truth is not known (a label of null, or labels that tie), whatever the judge said."""

    @property
    def n(self) -> int:
        """Pairs of which both are scored."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def agreement(self) -> float | None:
        """(tp + tn) / n."""
        return (self.tp + self.tn) / self.n if self.n else None

    @property
    def base_rate(self) -> float | None:
        """The share of yes in the truth (prevalence)."""
        return (self.tp + self.fn) / self.n if self.n else None

    @property
    def judge_yes(self) -> float | None:
        """The share of yes in the verdicts."""
        return (self.tp + self.fp) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None where it has no meaning: both always said the same one thing."""
        value = float(kappa(np.array([self.tp, self.fp, self.fn, self.tn])))
        return None if math.isnan(value) else value

    @property
    def pabak(self) -> float | None:
        """2·agreement − 1."""
        return None if self.agreement is None else 2 * self.agreement - 1


def kappa(table: ArrayLike) -> Floats:
    """Cohen's kappa of tables (…, [tp, fp, fn, tn]); nan where chance agreement is 1 or nothing is counted."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(table, dtype=float), -1, 0)
    n = tp + fp + fn + tn
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (tp + tn) / n
        chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
        found: Floats = np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
    return found


def exact(count: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of count / n; both may be effective numbers that are not whole."""
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, count, n - count + 1)) if count > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, count + 1, n - count)) if count < n else 1.0
    return low, high


def effective_size(counts: ArrayLike, sizes: ArrayLike, level: float = LEVEL) -> float:
    """n* of Korn and Graubard: how many independent yes-or-no say as much about a share as these of several clusters.

    design effect = var(share over clusters) / (share·(1 − share)/(n − 1));  n* = n / max(1, design effect), reduced
    further by (t_{n−1} / t_{C−1})² where the clusters C are few. With one cluster, or where all say the same, n* = n;
    so it is, exactly, where every case is a cluster of its own.

    Args:
        counts: yes in each cluster.
        sizes: how many were asked in each cluster.
        level: of the interval that it is for.
    """
    k, m = (np.asarray(each, dtype=float) for each in (counts, sizes))
    k, m = k[m > 0], m[m > 0]
    n, clusters = float(m.sum()), len(m)
    share = float(k.sum()) / n if n else 0.0
    if clusters < 2 or share in (0.0, 1.0):
        return n
    variance = clusters / (clusters - 1) * float(((k - share * m) ** 2).sum()) / n**2
    effect = variance / (share * (1 - share) / (n - 1))
    if effect <= 1 + 1e-9:
        return n
    quantile = 1 - (1 - level) / 2
    few = float(stats.t.ppf(quantile, n - 1) / stats.t.ppf(quantile, clusters - 1)) ** 2
    return min(n, n / effect * few)


def share_of_clusters(values: ArrayLike, cluster: ArrayLike) -> float:
    """1 / design effect of a mean over items in clusters: how much each item counts as evidence, at most 1."""
    x, at = np.asarray(values, dtype=float), np.asarray(cluster)
    names, at = np.unique(at, return_inverse=True)
    n, clusters = len(x), len(names)
    alone = float(x.var(ddof=1)) / n if n > 1 else 0.0
    if clusters < 2 or alone == 0:
        return 1.0
    sums = np.bincount(at, weights=x - x.mean())
    together = clusters / (clusters - 1) * float((sums**2).sum()) / n**2
    return min(1.0, alone / together) if together > 0 else 1.0


def rate(counts: ArrayLike, sizes: ArrayLike | None = None, level: float = LEVEL) -> Rate | None:
    """The share of yes over clusters, with its interval; None where nothing was asked.

    Args:
        counts: yes in each cluster; with `sizes` None, one 0 or 1 a case and every case a cluster of its own.
        sizes: how many were asked in each cluster.
        level: of the interval.
    """
    k = np.asarray(counts, dtype=float)
    m = np.ones_like(k) if sizes is None else np.asarray(sizes, dtype=float)
    count, n = int(k.sum()), int(m.sum())
    if n == 0:
        return None
    worth = effective_size(k, m, level)
    low, high = exact(count * worth / n, worth, level)
    return Rate(count, n, count / n, low, high, worth)


def kappa_intervals(tables: list[Ints], level: float = LEVEL, seed: int = 0) -> list[tuple[float, float] | None]:
    """Percentile intervals of the kappa of several groups of verdicts, over resampled clusters.

    Args:
        tables: for each group [cluster, (tp, fp, fn, tn)], all over the same clusters.
        level: of the intervals.
        seed: of the resampling.
    """
    if not tables:
        return []
    blocks = [_blocks(table) for table in tables]
    clusters = len(blocks[0])
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(float)
    found: list[tuple[float, float] | None] = []
    for table in blocks:
        values = kappa(weights @ table)
        values = values[~np.isnan(values)]
        if (table.sum(axis=1) > 0).sum() < 2 or len(values) < RESAMPLES / 2:
            found.append(None)
            continue
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        # All alike (no disagreement was seen, say): resampling then knows no uncertainty, which is not certainty.
        found.append((float(low), float(high)) if low < high else None)
    return found


def _blocks(table: Ints) -> Floats:
    if len(table) <= BLOCKS:
        return table.astype(float)
    summed = np.zeros((BLOCKS, table.shape[1]))
    np.add.at(summed, np.arange(len(table)) % BLOCKS, table)
    return summed


def alpha(counts: ArrayLike) -> float | None:
    """Krippendorff's alpha for nominal values: how far several ratings of each thing agree beyond chance.

        alpha = 1 − (n − 1) · Σ_u Σ_{c≠d} n_uc·n_ud / (m_u − 1)  /  Σ_{c≠d} n_c·n_d

    n_uc: how often thing u was rated c; m_u = Σ_c n_uc; things rated once say nothing; n_c, n: sums over the others.

    Args:
        counts: n_uc; missing ratings are simply not counted.

    Returns:
        None where only one value was ever given, or nothing was rated twice: alpha has no meaning there.
    """
    table = np.asarray(counts, dtype=float)
    if not table.size:
        return None
    table = table[table.sum(axis=1) >= 2]
    m, by_value = table.sum(axis=1), table.sum(axis=0)
    n = float(m.sum())
    chance = n**2 - float((by_value**2).sum())
    if chance <= 0:
        return None
    differ = float(((m**2 - (table**2).sum(axis=1)) / (m - 1)).sum())
    return 1 - (n - 1) * differ / chance
