"""Blend: an advantage a step, against a baseline that knows where in the dialogue the step was taken.

An advantage may compare a step with any prediction of what was to come that was made *before* its action: the estimate
then follows the gradient of the expected reward exactly, and the better the prediction, the less noise is left (a
control variate). The levels of the method differ in what they compare with. This one predicts in three stages, each
from the other rollouts of the group alone, and trusts a finer stage as far as the group shows that it says more:

    T[i, t] = Σ_{t' ≥ t} R[i, t']                              everything from turn t on
    group:      P0 = mean_{j≠i} T[j, t]                        a turn never reached counts 0, as turn/group/to_go
    turn:       P1 = P0 + w1·(mean_{j≠i, reached t} T[j, t] − P0)
    situation:  P2 = P1 + w2·(mean_{j≠i, in z} T[j, t] − mean_{j≠i, reached t} T[j, t])
    A[i, t, s] = (G−1)/G · (T[i, t] − P2) / L / F_norm

A situation z is what a step finds: its turn, and the set of items that are satisfied in x_s. The weights are those of
empirical Bayes, w = n·v / (n·v + noise) for a mean of n rollouts: v is how much the finer mean differs beyond chance,
`noise` how much rollouts differ where they are alike, and the judge's errors are in it: a judge that does not repeat
itself makes situations and rewards noisy, and shrinks the weights. Nothing here looks at rollout i, so no weight can
bias the estimate. With w2 = 0 the first turn has the trajectory's advantage to the last digit. Derivation and
measurements: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cm2.credit.config import Normalise
from cm2.credit.satisfaction import Bools, Floats
from cm2.credit.score import Score

EPSILON = 1e-6
ROUNDING = 1e-12
Ints = NDArray[np.int64]


def blend(rewards: Floats, reached: Bools, situations: Ints, turns: Ints, normalise: Normalise = "none") -> Floats:
    """A[i, k] of one group; 0 where rollout i took no step k.

    Args:
        rewards: R[i, t]: 0 where rollout i never reached turn t, nan where it did and nothing was scored.
        reached: [i, t], whether rollout i took a step in turn t.
        situations: z[i, k] ≥ 0 of step k, −1 where the rollout took none. Numbers mean the same in all rollouts.
        turns: [k], the turn of each step k: the steps of the longest rollouts of each turn, one turn after the other.
    """
    size, length = rewards.shape
    # An unscored turn stands at the mean of those that reached it: it moves its rollout neither way.
    known = ~np.isnan(rewards)
    means = np.where(known & reached, rewards, 0.0).sum(axis=0) / np.maximum((known & reached).sum(axis=0), 1)
    filled = np.where(known, rewards, means)
    to_go = np.cumsum(filled[:, ::-1], axis=1)[:, ::-1]
    spread = _spread(to_go[:, 0])
    found = np.zeros(situations.shape)
    for t in range(length):
        columns = np.flatnonzero(turns == t)
        if not len(columns) or not reached[:, t].any():
            continue
        predicted, mean, noise = _of_turn(to_go[:, t], reached[:, t], spread)
        here = situations[:, columns]
        offset = _of_situations(to_go[:, t], mean, here, noise)
        found[:, columns] = np.where(here >= 0, to_go[:, t, None] - predicted[:, None] - offset, 0.0)
    found *= (size - 1) / size / length
    found[np.abs(found) < ROUNDING] = 0.0
    if normalise == "std" and size > 1:
        found /= float(to_go[:, 0].std(ddof=1)) / length + EPSILON
    return found


def situations(scores: Sequence[Score]) -> tuple[Ints, Ints]:
    """z[i, k] and the turn of each k of a group, from what is satisfied before each step in all checklists of its turn.

    Items that are unscored for a rollout are left out of its situation: what an undecided item latched to is no fact.
    """
    longest = [max(score.steps[t] for score in scores) for t in range(len(scores[0].steps))]
    turns = np.repeat(np.arange(len(longest)), longest)
    found = np.full((len(scores), len(turns)), -1)
    names: dict[tuple[int, bytes], int] = {}
    for i, score in enumerate(scores):
        for t, count in enumerate(score.steps):
            first = sum(longest[:t])
            ledgers = score.of_turn(t)
            for s in range(count):
                held = b"|".join((ledger.satisfied[s] & ledger.scored).tobytes() for ledger in ledgers)
                found[i, first + s] = names.setdefault((t, held), len(names))
    return found, turns


def _others(member: Bools, values: Floats) -> Floats:
    """mean_{j≠i, member} of values, for every i; 0 where there is nobody else."""
    inside = np.where(member, values, 0.0)
    counts = member.sum(axis=0) - member
    mean: Floats = (inside.sum(axis=0) - inside) / np.maximum(counts, 1)
    return mean


def _spread(values: Floats) -> Floats:
    """The variance over the others, for every i."""
    n = len(values) - 1
    values = values - values.mean()
    total, squares = values.sum() - values, (values**2).sum() - values**2
    variance: Floats = np.maximum(squares - total**2 / max(n, 1), 0.0) / max(n - 1, 1)
    return variance


def _of_turn(to_go: Floats, reached: Bools, spread: Floats) -> tuple[Floats, Floats, Floats]:
    """P1 of every rollout for one turn, mean_{j≠i, reached} T[j, t], and the noise around it.

    The mean of n others that reached the turn is wrong by chance, noise/n; P0 by (P0 − mean)², less that chance. So
    w1 = n·wrong / (n·wrong + noise). Where few reached the turn their spread says little: the spread of whole rewards
    is a prior that counts as one observation more.
    """
    others = reached[None, :] & ~np.eye(len(to_go), dtype=bool)  # [i, j]
    n = others.sum(axis=1)
    mean = _others(reached, to_go)
    coarse = _others(np.ones_like(reached), np.where(reached, to_go, 0.0))
    deviations = np.where(others, to_go[None, :] - mean[:, None], 0.0)
    noise = ((deviations**2).sum(axis=1) + spread) / (np.maximum(n - 1, 0) + 1)
    wrong = np.maximum((coarse - mean) ** 2 - noise / np.maximum(n, 1), 0.0)
    weight = _share(n * wrong, noise) if len(to_go) > 2 else 0.0  # one other shows no noise
    return coarse + weight * (mean - coarse), mean, noise


def _of_situations(to_go: Floats, mean: Floats, situations: Ints, prior: Floats) -> Floats:
    """w2·mean_{j≠i, in z} (T[j, t] − mean T) for the situations of every rollout in one turn.

    Within situations rollouts differ by chance: noise = Σ_z Σ_j (T[j] − mean_z T)² / Σ_z (n_z − 1). The means of C
    situations with N visits differ by v beyond chance: Σ_z n_z·(mean_z T − mean T)² = N·v + C·noise in expectation.
    The turn's own noise counts as one observation more.
    """
    names, index = np.unique(situations, return_inverse=True)
    index = index.reshape(situations.shape)
    visited = np.zeros((len(to_go), len(names)), dtype=bool)
    visited[np.arange(len(to_go))[:, None], index] = True
    visited[:, names < 0] = False
    # All over the others of rollout i, as [i, z].
    centre = to_go - to_go.mean()  # sums of squares lose no digits
    mean = mean - to_go.mean()
    inside = np.where(visited, centre[:, None], 0.0)
    n = visited.sum(axis=0) - visited.astype(np.int64)
    totals = inside.sum(axis=0) - inside
    squares = (inside**2).sum(axis=0) - inside**2
    average = totals / np.maximum(n, 1)
    offset = np.where(n > 0, average - mean[:, None], 0.0)
    within = np.maximum(squares - n * average**2, 0.0).sum(axis=1)
    freedom = np.maximum(n - 1, 0).sum(axis=1)
    noise = (within + prior) / (freedom + 1)
    visits, places = n.sum(axis=1), (n > 0).sum(axis=1)
    between = np.maximum((n * offset**2).sum(axis=1) - places * noise, 0.0) / np.maximum(visits, 1)
    weight = _share(n * between[:, None], noise[:, None]) * (len(to_go) > 2)
    shrunk: Floats = np.take_along_axis(weight * offset, index, axis=1)
    return shrunk


def _share(signal: Floats, noise: Floats) -> Floats:
    """signal / (signal + noise), 0 where there is neither."""
    total = signal + noise
    share: Floats = np.where(total > ROUNDING, signal / np.where(total > ROUNDING, total, 1.0), 0.0)
    return share
