"""Power: how many paired dialogues it takes to see a difference, and what difference a given number can show.

Only pairs that come out differently tell two agents apart, so the answer depends on two shares: of pairs in which only
B does right (`gain`) and in which only A does (`loss`). Their sum is the discordance, their difference the lift. Agents
that succeed and fail on the same dialogues (a high correlation) have few discordant pairs and need fewer dialogues.

The power of McNemar's exact test is worked out by enumeration: over the number m of discordant pairs, which is
Binomial(n, gain + loss), and over the split of those m, which is Binomial(m, gain / (gain + loss)). Miettinen's formula
(Biometrics 24, 1968, p. 339) says where to look for the smallest n; shares of several runs and scores have the formula
of a mean.
"""

from __future__ import annotations

import functools
import math

import msgspec
import numpy as np

from cm2.errors import ConfigError

LONGEST = 50_000
"""Beyond so many pairs the formula is exact enough."""
CORRELATIONS = (0.0, 0.25, 0.5, 0.75)
"""Those that a plan shows where none is given."""
FEW = 1e-9


class Plan(msgspec.Struct):
    """How many pairs show a lift."""

    rate: float
    """Pass rate of A."""
    lift: float
    """Pass rate of B minus that of A."""
    discordance: float
    """Share of pairs that come out differently."""
    correlation: float | None
    """Of passing under A and under B (phi); None where a rate is 0 or 1."""
    pairs: int
    """Dialogues that both run, for the wanted power."""
    formula: int
    """What Miettinen's formula says."""
    power: float
    """Of the exact test with that many."""


def mcnemar_power(n: int, gain: float, loss: float, alpha: float = 0.05) -> float:
    """The probability that McNemar's exact two-sided test at alpha sees the difference in n pairs."""
    from scipy import stats

    discordance = gain + loss
    if discordance <= 0 or n < 1:
        return 0.0
    if discordance >= 1 - FEW:
        counts, chances = np.array([n]), np.array([1.0])
    else:
        low, high = stats.binom.ppf((1e-12, 1 - 1e-12), n, discordance)
        counts = np.arange(int(low), int(high) + 1)
        chances = stats.binom.pmf(counts, n, discordance)
    most = stats.binom.ppf(alpha / 2, counts, 0.5)
    most = np.where(2 * stats.binom.cdf(most, counts, 0.5) <= alpha, most, most - 1)  # the lesser side of a rejection
    share = gain / discordance
    seen = stats.binom.cdf(most, counts, share) + stats.binom.sf(counts - most - 1, counts, share)
    return float((chances * np.where(most >= 0, seen, 0.0)).sum())


def miettinen(gain: float, loss: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Miettinen's formula for the number of pairs,

    n = (z_a psi + z_b sqrt(psi² - d² (3 + psi) / 4))² / (psi d²),  psi = gain + loss,  d = gain - loss.
    """
    from scipy import stats

    psi, d = gain + loss, gain - loss
    z_a, z_b = float(stats.norm.isf(alpha / 2)), float(stats.norm.isf(1 - power))
    root = math.sqrt(max(0.0, psi * psi - d * d * (3 + psi) / 4))
    return math.ceil((z_a * psi + z_b * root) ** 2 / (psi * d * d))


@functools.lru_cache(maxsize=4096)
def needed_pairs(gain: float, loss: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """The smallest number of pairs with that power; None where there is no difference to see."""
    if abs(gain - loss) < FEW:
        return None
    guess = miettinen(gain, loss, alpha, power)
    if guess > LONGEST:
        return guess
    low, high = 0, guess
    while mcnemar_power(high, gain, loss, alpha) < power:
        low, high = high, math.ceil(high * 1.2) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if mcnemar_power(middle, gain, loss, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


@functools.lru_cache(maxsize=4096)
def detectable(n: int, discordance: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference of rates that n pairs show with that power, where this share of them is discordant (or
    just as many as the difference takes); None where no difference would."""

    def seen(lift: float) -> bool:
        psi = max(discordance, lift)
        return mcnemar_power(n, (psi + lift) / 2, (psi - lift) / 2, alpha) >= power

    if not seen(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high


def needed_tasks(difference: float, deviation: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """The number of tasks on which a mean difference is seen, where single ones scatter by `deviation`:
    ((z_a + z_b) · deviation / difference)²; None where there is no difference to see."""
    if abs(difference) < FEW or deviation < FEW:
        return None
    return math.ceil((_both(alpha, power) * deviation / difference) ** 2)


def detectable_mean(n: int, deviation: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The mean difference that n tasks show with that power; None where nothing differs."""
    return _both(alpha, power) * deviation / math.sqrt(n) if n and deviation >= FEW else None


def _both(alpha: float, power: float) -> float:
    from scipy import stats

    return float(stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power))


def cells(rate: float, lift: float, correlation: float) -> tuple[float, float]:
    """The shares of pairs in which only B and only A does right, of A's rate, the lift and the correlation."""
    other = rate + lift
    both = rate * other + correlation * math.sqrt(rate * (1 - rate) * other * (1 - other))
    return other - both, rate - both


def correlation_of(rate: float, lift: float, discordance: float) -> float | None:
    """The correlation at which so many pairs are discordant; None where a rate is 0 or 1."""
    other = rate + lift
    scale = math.sqrt(rate * (1 - rate) * other * (1 - other))
    return ((rate + other - discordance) / 2 - rate * other) / scale if scale > FEW else None


def plan(
    rate: float,
    lift: float,
    *,
    correlation: float | None = None,
    discordance: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[Plan]:
    """How many pairs it takes: one answer where the correlation or the discordance is given, else one for each of
    `CORRELATIONS` that two such agents can have.

    Raises:
        ConfigError: no two agents can be like that.
    """
    other = rate + lift
    if not 0 <= rate <= 1 or not 0 <= other <= 1:
        raise ConfigError(
            f"rates are {rate:g} and {other:g}; both must be from 0 to 1", fix="correct --rate and --lift"
        )
    if abs(lift) < FEW:
        raise ConfigError("a lift of 0 cannot be seen", fix="give --lift the smallest difference that matters")
    if correlation is not None and discordance is not None:
        raise ConfigError("the discordance follows from the correlation", fix="give one of them")
    if discordance is not None:
        most = min(rate + other, 2 - rate - other)
        if not abs(lift) - FEW <= discordance <= most + FEW:
            what = f"with rates {rate:g} and {other:g}, {abs(lift):g} to {most:g} of the pairs can be discordant"
            raise ConfigError(what, fix="correct --discordance")
        gain = min(max((discordance + lift) / 2, 0.0), 1.0)
        return [_plan(rate, lift, gain, gain - lift, alpha, power)]
    if correlation is not None and not _possible(rate, lift, correlation):
        what = f"two agents with rates {rate:g} and {other:g} cannot have the correlation {correlation:g}"
        raise ConfigError(what, fix="give a smaller --correlation")
    asked = CORRELATIONS if correlation is None else (correlation,)
    return [_plan(rate, lift, *cells(rate, lift, one), alpha, power) for one in asked if _possible(rate, lift, one)]


def _possible(rate: float, lift: float, correlation: float) -> bool:
    gain, loss = cells(rate, lift, correlation)
    return gain >= -FEW and loss >= -FEW and gain <= 1 - rate + FEW and loss <= rate + FEW


def _plan(rate: float, lift: float, gain: float, loss: float, alpha: float, power: float) -> Plan:
    gain, loss = max(gain, 0.0), max(loss, 0.0)
    pairs = needed_pairs(gain, loss, alpha, power)
    assert pairs is not None  # there is a lift
    found = mcnemar_power(pairs, gain, loss, alpha)
    formula = miettinen(gain, loss, alpha, power)
    return Plan(rate, lift, gain + loss, correlation_of(rate, lift, gain + loss), pairs, formula, found)
