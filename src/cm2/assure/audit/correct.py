"""Correct: the true share of yes, from what a judge says of everything and people of a sample.

Two estimates, for two situations.

*Prediction-powered* (`powered`; PPI++, Angelopoulos, Duchi and Zrnic 2023): people looked at a sample of these very
outcomes. y: what they say, f: what the judge says (0 to 1), n reviewed with weights w, N judged.

    estimate = λ·mean_N(f) + mean_n(y − λ·f)      variance = λ²·var_N(f)/N + var_n(y − λ·f)/n
    λ        = cov_n(y, f) / ((1 + n/N)·var(f)), between 0 and 1

λ = 0 forgets the judge, λ = 1 trusts it and only repairs it; unbiased for every λ, however bad the judge is. With
unequal weights means and variances are weighted and n is Kish's (Σw)² / Σw².

*Rogan and Gladen* (`rogan_gladen`): nobody looked at these outcomes, but the judge's error rates were measured on
others. p: its share of yes, se: of what holds the share it says yes to, sp: of what does not the share it says no to.

    estimate = (p + sp − 1) / (se + sp − 1)

It holds where the error rates are the same there, and says nothing where se + sp is about 1. The interval is Lang and
Reiczigel's (2014), which stays honest where few or no errors were seen.

Small samples: a normal interval around a share of 20 in 20 has no width. Intervals of single shares are therefore exact
ones, and those of sums and ratios of shares recover their variance from these (`combine`, `ratio`; Zou and Donner 2008,
2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from cm2.judge.agreement import LEVEL, exact


class Estimate(msgspec.Struct, frozen=True):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Powered(msgspec.Struct, frozen=True):
    """What `powered` found."""

    value: float
    variance: float
    lam: float
    n: float
    """Reviews, or how many equal ones weigh as much."""


def powered(
    labels: ArrayLike,
    predictions: ArrayLike,
    mean: float,
    variance: float,
    size: float,
    weights: ArrayLike | None = None,
    lam: float | None = None,
) -> Powered:
    """The prediction-powered mean, see the module.

    Args:
        labels: y of what was reviewed, one or more.
        predictions: f of the same.
        mean: of f over everything judged.
        variance: of f over everything judged.
        size: N.
        weights: w; all 1 where None.
        lam: λ; the best one where None.
    """
    y, f = np.asarray(labels, dtype=float), np.asarray(predictions, dtype=float)
    w = np.ones_like(y) if weights is None else np.asarray(weights, dtype=float)
    n = float(w.sum() ** 2 / (w**2).sum())
    w = w / w.sum()
    if lam is None:
        together = float(w @ ((y - w @ y) * (f - w @ f)))
        lam = min(1.0, max(0.0, together / ((1 + n / size) * variance))) if variance > 0 else 0.0
    rest = y - lam * f
    value = lam * mean + float(w @ rest)
    spread = lam**2 * variance / size + float(w @ (rest - w @ rest) ** 2) / n
    return Powered(value, spread, lam, n)


def share(found: Powered) -> tuple[Estimate, float]:
    """A powered mean of yes and no with an exact interval, and how many independent reviews it is worth."""
    value = min(1.0, max(0.0, round(found.value, 12)))  # weights that sum to 1 but for the last bit
    worth = found.n
    if 0 < value < 1 and found.variance > 1e-12:
        worth = max(1.0, value * (1 - value) / found.variance)
    return Estimate(value, *exact(value * worth, worth)), worth


def combine(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Σ c·x of independent estimates, the interval by recovered variances; c may be negative."""
    value = sum(c * x.value for c, x in parts)
    down = sum(max(c * (x.value - x.low), c * (x.value - x.high)) ** 2 for c, x in parts)
    up = sum(max(c * (x.low - x.value), c * (x.high - x.value)) ** 2 for c, x in parts)
    return Estimate(value, value - math.sqrt(down), value + math.sqrt(up))


def ratio(above: Estimate, below: Estimate) -> Estimate:
    """above / below of independent shares, the interval by recovered variances; infinite where `below` may be 0."""
    a, b = above.value, below.value
    if b == 0:
        low = above.low / below.high if below.high else math.inf
        return Estimate(math.inf if a else math.nan, low, math.inf)

    def root(limit_a: float, limit_b: float) -> float:
        return math.sqrt(max(0.0, (a * b) ** 2 - limit_a * limit_b * (2 * a - limit_a) * (2 * b - limit_b)))

    if 2 * b > below.high:
        low = (a * b - root(above.low, below.high)) / (below.high * (2 * b - below.high))
    else:  # beyond what the formula covers: the smallest that the two intervals allow
        low = above.low / below.high
    high = (a * b + root(above.high, below.low)) / (below.low * (2 * b - below.low)) if below.low > 0 else math.inf
    return Estimate(a / b, max(0.0, low), high)


def rogan_gladen(
    yes: float, n: float, sensitivity: float, n_sensitivity: float, specificity: float, n_specificity: float
) -> Estimate | None:
    """The share of yes behind a judge's share of yes; None where the judge knows no more than a coin.

    Args:
        yes: p, the judge's share.
        n: of how many (independent) outcomes.
        sensitivity: se.
        n_sensitivity: reviews that it rests on, of what holds.
        specificity: sp.
        n_specificity: reviews that it rests on, of what does not hold.
    """
    from scipy import stats

    if sensitivity + specificity <= 1:
        return None
    value = min(1.0, max(0.0, (yes + specificity - 1) / (sensitivity + specificity - 1)))
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    m, m_se, m_sp = n + z**2, n_sensitivity + 2, n_specificity + 2
    p = (n * yes + z**2 / 2) / m
    se, sp = (n_sensitivity * sensitivity + 1) / m_se, (n_specificity * specificity + 1) / m_sp
    if se + sp <= 1:
        return Estimate(value, 0.0, 1.0)
    centre = (p + sp - 1) / (se + sp - 1)
    v_se, v_sp = se * (1 - se) / m_se, sp * (1 - sp) / m_sp
    shift = 2 * z**2 * (centre * v_se - (1 - centre) * v_sp)
    half = z * math.sqrt(p * (1 - p) / m + centre**2 * v_se + (1 - centre) ** 2 * v_sp) / (se + sp - 1)
    low, high = (min(1.0, max(0.0, end)) for end in (centre + shift - half, centre + shift + half))
    return Estimate(value, min(low, value), max(high, value))
