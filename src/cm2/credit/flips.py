"""Flips: what a turn is worth when the judge is known to err.

Rewards latch: a yes at any step is a yes for good. With a judge that flips each verdict with probability f, an item
that never held is then paid with probability 1 − (1−f)^S after S steps: an agent that dawdles is paid for it, at every
level, and learns to. The true reward can still be estimated without bias, from the turn's *last* state alone, because
duties that hold go on holding:

    x[s, c] = (met[s, c] − f) / (1 − 2f)                       E x = 1 if c holds in x_{s+1}, else 0
    held[c] = x[S−1, c] · Π_{d: c depends on d} (held[d] one step earlier)

The factors are of different verdicts, so their errors are independent and E held[c] = 1 iff c is satisfied (gated) when
the turn ends. The price is variance, f(1−f)/(1−2f)² an item, which does not grow with the number of steps. Exact for
items that do not stop holding; where one does, its last state counts.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cm2.credit.satisfaction import Bools, Floats
from cm2.credit.score import Score
from cm2.errors import ConfigError

Ints = NDArray[np.int64]


def corrected(score: Score, flip: float) -> Floats:
    """R_t of each turn by `held`, for `Score.turn_rewards`. It may leave [0, 1]; its mean over errors is true."""
    rewards = np.zeros(len(score.steps))
    for turn in {turn for turn, _ in score.ledgers}:
        known = []
        for ledger in score.of_turn(turn):
            if ledger.weight > 0:
                estimate = held(ledger.met[None], ledger.depends, flip)[0]
                paid = np.where(ledger.scored, ledger.weights * estimate, 0.0)
                known.append(float(paid.sum()) / ledger.weight)
        rewards[turn] = score.worth(turn) * np.mean(known) if known else np.nan
    return rewards


def held(met: Floats, depends: Bools, flip: float, steps: Ints | None = None) -> Floats:
    """[…, c]: an unbiased estimate of whether each item is satisfied when the turn ends.

    Args:
        met: [i, s, c], nan unscored: such a state takes the verdict of the one before, a first one of the one after.
        depends: of the checklist.
        flip: how often a verdict is wrong, below 0.5.
        steps: [i], how many of the steps each rollout took; all of them where None.
    """
    size, longest, items = met.shape
    taken = np.full(size, longest) if steps is None else steps
    filled = met.copy()
    for s in range(1, longest):
        filled[:, s] = np.where(np.isnan(filled[:, s]), filled[:, s - 1], filled[:, s])
    for s in range(longest - 2, -1, -1):
        filled[:, s] = np.where(np.isnan(filled[:, s]), filled[:, s + 1], filled[:, s])
    true = (filled - flip) / (1 - 2 * flip)
    found = np.ones((size, items))
    chains = [rests_on(depends, c) for c in range(items)]
    for lag in range(1 + max((lag for chain in chains for _, lag in chain), default=0)):
        before = taken - 1 - lag
        there = before >= 0
        state = np.where(there[:, None], true[np.arange(size), np.maximum(before, 0)], 0.0) if longest else 0 * found
        for c, chain in enumerate(chains):
            for item in [item for item, at in chain if at == lag]:
                found[:, c] *= state[:, item]
    return found


def rests_on(depends: Bools, item: int) -> list[tuple[int, int]]:
    """(item, how many steps before the end it must hold), for the item and all that it depends on."""
    return _rests_on(depends.tobytes(), len(depends), item)


@lru_cache(maxsize=4096)
def _rests_on(depends: bytes, size: int, item: int) -> list[tuple[int, int]]:
    table = np.frombuffer(depends, dtype=bool).reshape(size, size)
    found: list[tuple[int, int]] = []
    open_ = [(item, 0)]
    while open_:
        at, lag = open_.pop()
        if (at, lag) not in found and lag <= size:
            found.append((at, lag))
            open_ += [(int(d), lag + 1) for d in np.flatnonzero(table[at])]
    return found


def flip_of(agreement: float) -> float:
    """The flip rate of a judge that says the same twice with probability `agreement`: agreement = (1−f)² + f².

    Raises:
        ConfigError: two answers that agree less often than coin tosses have no flip rate.
    """
    if not 0.5 < agreement <= 1:
        raise ConfigError(f"an agreement of {agreement}", fix="use one above 0.5 (cm2 judge calibrate measures it)")
    return (1 - math.sqrt(2 * agreement - 1)) / 2
