"""Advantages: how much better than its group each step of each rollout did (method, eq. 4 to 10).

A group is G rollouts of one prompt. `trajectory`, `turn` and `step` are the three levels as functions of arrays whose
first axis is the group; nan means "says nothing" (unscored) and leaves the mean, the deviation and the result, where it
becomes 0. `advantages` is the door for trainers: scores in, one number for every step of every rollout out.

A failed rollout (its judge, simulator, provider or data failed), and one in which nothing was scored, is as good as
never there: it enters no statistics and is not trained. Fewer than two that remain give no signal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cm2.credit.blend import blend, situations
from cm2.credit.config import Credit, Normalise, TurnBaseline, TurnCredit
from cm2.credit.flips import corrected
from cm2.credit.satisfaction import Bools, Floats, backfilled, earned, eligible
from cm2.credit.score import Score
from cm2.errors import DataError, Where

EPSILON = 1e-6
Steps = dict[tuple[int, int], float]


def centred(values: Floats, normalise: Normalise) -> Floats:
    """(x − mean_group x) / F_norm, F_norm = sample standard deviation (n − 1) + 1e-6 where `std`, else 1.

    nan leaves the statistics and becomes 0. Where all are alike (or alone) the result is exactly 0, so that dividing
    by 1e-6 cannot blow up a rounding error.
    """
    counted = ~np.isnan(values)
    n = counted.sum(axis=0)
    highest = np.where(counted, values, -np.inf).max(axis=0)
    differ = counted & (highest > np.where(counted, values, np.inf).min(axis=0))
    deviation = np.where(differ, values - group_mean(values), 0.0)
    if normalise == "std":
        deviation = deviation / (np.sqrt((deviation**2).sum(axis=0) / np.maximum(n - 1, 1)) + EPSILON)
    return deviation


def group_mean(values: Floats) -> Floats:
    """The mean over the first axis of what is not nan; 0 where everything is."""
    counted = ~np.isnan(values)
    mean: Floats = np.where(counted, values, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return mean


def trajectory(rewards: Floats, normalise: Normalise = "none") -> Floats:
    """Eq. 5: A[i] = (R[i] − mean_j R[j]) / F_norm."""
    return centred(rewards, normalise)


def turn(
    rewards: Floats,
    reached: Bools,
    normalise: Normalise = "none",
    baseline: TurnBaseline = "group",
    credit: TurnCredit = "own",
) -> Floats:
    """Eq. 7: A[i, t] = (Q[i, t] − mean_j Q[j, t]) / F_norm for the turns that rollout i reached, else 0.

    Q[i, t] = R[i, t] (`own`) or Σ_{t' ≥ t} R[i, t'] (`to_go`). j runs over the whole `group`, a turn never reached
    counting 0, or over the `survivors` that reached turn t.

    Args:
        rewards: R[i, t]: 0 where rollout i never reached turn t, nan where it did and nothing was scored.
        reached: whether rollout i took a step in turn t.
    """
    compared = np.ones_like(reached) if baseline == "group" else reached
    credits = np.where(compared, rewards, np.nan)
    if credit == "to_go":
        for t in range(rewards.shape[1]):
            rest = np.where(compared[:, t, None], rewards[:, t:], np.nan)
            # An unscored turn inside a sum stands at the mean of those compared: it moves its rollout neither way.
            filled = np.where(np.isnan(rest), group_mean(rest), rest).sum(axis=1)
            credits[:, t] = np.where(np.isnan(rest).all(axis=1), np.nan, filled)
    return np.where(reached, centred(credits, normalise), 0.0)


def step(
    satisfied: Bools,
    depends: Bools,
    weights: Floats,
    scored: Bools,
    normalise: Normalise = "none",
    backfill: bool = True,
    worth: Floats | None = None,
) -> Floats:
    """Eq. 8 to 10 for one checklist: A[i, s].

    b[c] = mean_j ever[j, c], ever[j, c] = whether c is satisfied when rollout j leaves the turn (never reached: no)
    A[i, s, c] = (r~[i, s, c] − b[c]) / F_norm(ever[·, c])
    A[i, s] = Σ_{c ∈ E[i, s]} w[c]·A[i, s, c] / Σ_{c ∈ E[i, s]} w[c], and 0 where no item is eligible

    Args:
        satisfied: [i, s, c] for the states x_0 … x_S, shorter turns padded with their last state.
        depends, weights: of the checklist.
        scored: [i, c]; an unscored item leaves b[c] and F_norm, and is never eligible.
        backfill: False puts r[i, s, c] (eq. 2) in the place of r~[i, s, c].
        worth: [i], what the turn counts for rollout i behind a graded gate; it multiplies r~ and ever. None: 1.
    """
    counts = np.ones(len(satisfied)) if worth is None else worth
    ever = np.where(scored, satisfied[:, -1] * counts[:, None], np.nan)
    b = group_mean(ever)
    f_norm = np.ones_like(b)
    if normalise == "std":
        n = scored.sum(axis=0)
        squares = np.where(scored, ever - b, 0.0) ** 2
        f_norm = np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1)) + EPSILON
    paid = backfilled(satisfied, depends) if backfill else earned(satisfied, depends)
    by_item = (paid * counts[:, None, None] - b) / f_norm
    shares = (eligible(satisfied, depends) & scored[:, None, :]) * weights
    total = shares.sum(axis=-1)
    averaged: Floats = (shares * by_item).sum(axis=-1) / np.where(total > 0, total, 1.0)
    return averaged


@dataclass(frozen=True, eq=False)
class Advantages:
    """What a trainer needs of a group, in the order in which its rollouts were given."""

    steps: list[Steps]
    """For each rollout, the advantage of each (turn, step) that it took; 0 for one that is not trained."""
    trained: list[bool]
    """False: the rollout failed or nothing of it was scored. It must leave the loss (a KL term included)."""

    @property
    def signal(self) -> bool:
        """Whether anything can be learnt: two rollouts or more that count, and not all alike."""
        return any(value != 0 for each in self.steps for value in each.values())


def advantages(group: Sequence[Score], valid: Sequence[bool] | None = None, credit: Credit = Credit()) -> Advantages:
    """The advantages of the rollouts of one prompt.

    Args:
        group: their scores.
        valid: False for a rollout whose judge, simulator, provider or data failed; all are valid where None.
        credit: the level and its settings.

    Raises:
        DataError: the scores are not of one task, or `valid` is not of the same length.
    """
    if valid is not None and len(valid) != len(group):
        raise DataError(f"{len(group)} scores, but {len(valid)} values in valid", fix="give one for each rollout")
    trained = [score.reward is not None and (valid is None or bool(valid[i])) for i, score in enumerate(group)]
    result: list[Steps] = [_everywhere(score, [0.0] * len(score.steps)) for score in group]
    members = [i for i, counts in enumerate(trained) if counts]
    if len(members) >= 2:
        scores = [group[i] for i in members]
        _one_task(scores)
        for i, found in zip(members, _of_level(scores, credit), strict=True):
            result[i] = found
    return Advantages(result, trained)


def spread(steps: Mapping[tuple[int, int], float], segments: Iterable[tuple[int, int, int]]) -> Floats:
    """The advantage of every sampled token of one rollout, one after the other.

    Args:
        steps: of that rollout (`Advantages.steps[i]`).
        segments: (turn, step, number of sampled tokens) in order of sampling. Tokens that were not sampled (user
            messages, tool responses, template text) belong to no segment: they get no advantage and carry no loss.

    Raises:
        DataError: a segment is of a step that the rollout did not take.
    """
    values, counts = [], []
    for at_turn, at_step, count in segments:
        if (at_turn, at_step) not in steps:
            raise DataError(
                "there are tokens of a step that was not scored",
                where=Where(turn=at_turn, step=at_step),
                fix="score the rollout with the step counts of the same record that holds its tokens",
            )
        values.append(steps[at_turn, at_step])
        counts.append(count)
    return np.repeat(np.array(values, dtype=float), np.array(counts, dtype=np.int64))


def _of_level(scores: list[Score], credit: Credit) -> list[Steps]:
    if credit.level == "step":
        return _by_step(scores, credit.normalise, credit.backfill)
    flip = credit.judge_flip
    rewards = np.stack([corrected(score, flip) if flip > 0 else score.turn_rewards for score in scores])
    reached = np.array([score.steps for score in scores]) > 0
    if credit.level == "blend":
        here, turns = situations(scores)
        by_place = blend(rewards, reached, here, turns, credit.normalise).tolist()
        first = np.searchsorted(turns, np.arange(rewards.shape[1])).tolist()
        return [
            {(t, s): row[first[t] + s] for t, count in enumerate(score.steps) for s in range(count)}
            for score, row in zip(scores, by_place, strict=True)
        ]
    if credit.level == "turn":
        by_turn = turn(rewards, reached, credit.normalise, credit.turn_baseline, credit.turn_credit)
        return [_everywhere(score, row) for score, row in zip(scores, by_turn.tolist(), strict=True)]
    whole = np.array([score.reward for score in scores], dtype=float) if flip == 0 else np.nanmean(rewards, axis=1)
    by_rollout = trajectory(whole, credit.normalise).tolist()
    return [_everywhere(score, [value] * len(score.steps)) for score, value in zip(scores, by_rollout, strict=True)]


def _by_step(scores: list[Score], normalise: Normalise, backfill: bool = True) -> list[Steps]:
    """The step level: A[t, s] averaged over the checklists of the turn in which the rollout has scored items."""
    found: list[dict[tuple[int, int], list[float]]] = [{} for _ in scores]
    for place, first in scores[0].ledgers.items():
        ledgers = [score.ledgers[place] for score in scores]
        longest = max(len(ledger.satisfied) for ledger in ledgers)
        padding = [[(0, longest - len(ledger.satisfied)), (0, 0)] for ledger in ledgers]
        padded = [np.pad(each.satisfied, pad, mode="edge") for each, pad in zip(ledgers, padding, strict=True)]
        scored = np.stack([ledger.scored for ledger in ledgers])
        worth = np.array([score.worth(place[0]) for score in scores])
        values = step(np.stack(padded), first.depends, first.weights, scored, normalise, backfill, worth)
        for i, ledger in enumerate(ledgers):
            if ledger.weight > 0:
                for s in range(len(ledger.satisfied) - 1):
                    found[i].setdefault((place[0], s), []).append(float(values[i, s]))
    result = [_everywhere(score, [0.0] * len(score.steps)) for score in scores]
    for steps, several in zip(result, found, strict=True):
        steps |= {at: sum(values) / len(values) for at, values in several.items()}
    return result


def _everywhere(score: Score, by_turn: Sequence[float]) -> Steps:
    return {(t, s): by_turn[t] for t, count in enumerate(score.steps) for s in range(count)}


def _one_task(scores: list[Score]) -> None:
    def shape(score: Score) -> object:
        return len(score.steps), [(place, ledger.ids) for place, ledger in score.ledgers.items()]

    if any(shape(score) != shape(scores[0]) for score in scores):
        raise DataError(
            "the scores of the group are of different tasks", fix="group the rollouts of one task, scored alike"
        )
