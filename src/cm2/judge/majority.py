"""Majority: how many judgements of one judge make a vote that is wrong no more often than asked for.

If each judgement were wrong independently with probability e, a majority of n would be wrong with

    P(Binomial(n, e) > n/2)

It is not so: a judge that misreads an item misreads it again when asked again. So the chance of being wrong differs
from item to item, beta-distributed with mean e and correlation rho (between two judgements of one item), and a majority
is wrong with P(BetaBinomial(n, e, rho) > n/2). Votes then stop helping at a floor: the share of items that the judge
gets wrong more often than right. rho = 0 is the independent case; at rho = 1 a vote is worth one judgement.

e and rho are estimated from repeated runs over a grid with a flat prior, so that every number comes with its posterior
95 % interval and nothing fails to converge. With one run rho cannot be known.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from cm2.judge.agreement import Floats, Rate

LARGEST = 31
"""No vote of more judgements is looked for."""
NEGLIGIBLE = 1e-6
"""Cells of the grid that are so much less likely than the likeliest one are left out."""
_RATES = special.expit(np.linspace(-9, 9, 121))
_EVEN = (np.arange(40) + 0.5) / 40
_RHOS = _EVEN**1.5  # finer where it matters, near 0


class Needed(msgspec.Struct):
    """The smallest odd n whose majority is wrong no more often than the target; None where no n up to 31 is enough."""

    n: int | None
    """At the estimate."""
    hopeful: int | None
    """At the lower end of what the data leave possible."""
    safe: int | None
    """At the upper end: with this n the target is met even if the estimate flattered the judge."""


class Votes(msgspec.Struct):
    """What voting does to one kind of error."""

    target: float
    independent: Needed
    """As if errors were independent: a lower bound."""
    correlated: Needed | None = None
    """With the correlation that repeated runs show; None with one run."""
    rho: float | None = None
    rho_low: float | None = None
    rho_high: float | None = None
    floor: float | None = None
    """The error that no vote of this judge goes below."""


def majority_error(error: ArrayLike, n: int, rho: ArrayLike = 0.0) -> Floats:
    """How often a majority of n (odd) judgements is wrong that are each wrong with probability `error`.

    Σ_{k > n/2} C(n, k)·B(k + a, n − k + b) / B(a, b) with a = e·(1 − rho)/rho and b = (1 − e)·(1 − rho)/rho.
    """
    e, r = np.broadcast_arrays(np.asarray(error, dtype=float), np.asarray(rho, dtype=float))
    wrong = np.array(stats.binom.sf(n // 2, n, e), dtype=float)
    mixed = (r > 0) & (r < 1) & (e > 0) & (e < 1)
    if mixed.any():
        scale = (1 - r[mixed]) / r[mixed]
        a, b = e[mixed] * scale, (1 - e[mixed]) * scale
        k = np.arange(n // 2 + 1, n + 1)
        ways = -np.log(n + 1) - special.betaln(n - k + 1, k + 1)
        terms = ways + special.betaln(k + a[..., None], n - k + b[..., None]) - special.betaln(a, b)[..., None]
        wrong[mixed] = np.exp(terms).sum(axis=-1)
    return np.where(r >= 1, e, wrong)


def floor_error(error: ArrayLike, rho: ArrayLike) -> Floats:
    """What `majority_error` tends to as n grows: P(Beta(e, rho) > 1/2)."""
    e, r = np.broadcast_arrays(np.asarray(error, dtype=float), np.asarray(rho, dtype=float))
    scale = (1 - r) / np.maximum(r, 1e-12)
    found: Floats = np.where(r <= 0, (e > 0.5).astype(float), special.betainc((1 - e) * scale, e * scale, 0.5))
    return found


def smallest(errors: ArrayLike, target: float) -> int | None:
    """The first odd n = 1, 3, 5 … whose error (in that order) is at most `target`."""
    good = np.flatnonzero(np.asarray(errors) <= target)
    return int(2 * good[0] + 1) if len(good) else None


def votes(
    found: Rate, target: float, wrong: ArrayLike | None = None, runs: ArrayLike | None = None, share: float = 1.0
) -> Votes:
    """The vote that brings one kind of error to `target`.

    Args:
        found: the error rate of a single judgement.
        target: the error rate that the majority may have.
        wrong: of each item, in how many of its runs the judge was wrong.
        runs: of each item, in how many runs it was judged.
        share: see `posterior`.
    """
    sizes = range(1, LARGEST + 1, 2)

    def alone(error: float) -> int | None:
        return smallest([float(majority_error(error, n)) for n in sizes], target)

    advice = Votes(target, Needed(alone(found.rate), alone(found.low), alone(found.high)))
    if wrong is None or runs is None or not (np.asarray(runs) >= 2).any():
        return advice
    e, rho, weight = posterior(wrong, runs, share)
    errors: list[list[float]] = []
    for n in sizes:
        error = majority_error(e, n, rho)
        errors.append([quantile(error, weight, at) for at in (0.5, 0.025, 0.975)])
        if max(errors[-1]) <= target:
            break
    advice.correlated = Needed(*(smallest(each, target) for each in zip(*errors, strict=True)))
    advice.rho, advice.rho_low, advice.rho_high = (quantile(rho, weight, at) for at in (0.5, 0.025, 0.975))
    advice.floor = quantile(floor_error(e, rho), weight, 0.5)
    return advice


def posterior(wrong: ArrayLike, runs: ArrayLike, share: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """(e, rho, probability) over a grid, given how often each item was judged wrongly in how many runs.

    The prior is uniform in e and in rho. `share` is by how much the likelihood counts: 1 where items are independent,
    less where those of one dialogue resemble each other (`agreement.share_of_clusters`).
    """
    k, m = (np.asarray(each, dtype=np.int64) for each in (wrong, runs))
    pairs, times = np.unique(np.stack([k[m > 0], m[m > 0]], axis=1), axis=0, return_counts=True)
    e, rho = (axis.ravel() for axis in np.meshgrid(_RATES, _RHOS, indexing="ij"))
    scale = (1 - rho) / rho
    # The grid is even in the logit of e and in rho^(2/3); these make the prior even in e and rho themselves.
    log = np.log(e * (1 - e)) + np.log(rho) / 3
    for (count, of), number in zip(pairs.tolist(), times.tolist(), strict=True):
        log = log + share * number * stats.betabinom.logpmf(count, of, e * scale, (1 - e) * scale)
    weight = np.exp(log - log.max())
    counts_for = weight > NEGLIGIBLE
    e, rho, weight = e[counts_for], rho[counts_for], weight[counts_for]
    return e, rho, weight / weight.sum()


def quantile(values: Floats, weight: Floats, at: float) -> float:
    """The weighted quantile of grid values."""
    order = np.argsort(values)
    passed = np.cumsum(weight[order])
    return float(values[order][min(int(np.searchsorted(passed, at)), len(order) - 1)])
