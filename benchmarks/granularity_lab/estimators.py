"""Estimators: what each level of credit makes of one group. The arithmetic is `cm2.credit`'s own, on arrays.

tests/study/test_lab_graph.py holds each against `cm2.credit.advantages` on the records of the same rollouts.
"""

from __future__ import annotations

import numpy as np

from cm2.credit.advantages import step, trajectory, turn
from cm2.credit.blend import blend
from cm2.credit.config import Credit
from cm2.credit.flips import held
from granularity_lab.graph import STEPS, Graph
from granularity_lab.rollouts import Played, turn_rewards

LEVELS = {
    "trajectory": Credit(),
    "turn": Credit(level="turn"),
    "step": Credit(level="step"),
    "blend": Credit(level="blend"),
    "trajectory, std": Credit(normalise="std"),
    "turn, std": Credit(level="turn", normalise="std"),
    "step, std": Credit(level="step", normalise="std"),
    "step, no back-filling": Credit(level="step", backfill=False),
    "turn, to go": Credit(level="turn", turn_credit="to_go"),
    "turn, survivors": Credit(level="turn", turn_baseline="survivors"),
    "turn, survivors, to go": Credit(level="turn", turn_baseline="survivors", turn_credit="to_go"),
    "blend, no flip rate": Credit(level="blend"),
    "trajectory, flip rate": Credit(),
    "turn, to go, flip rate": Credit(level="turn", turn_credit="to_go"),
}
"""The levels of the grid, then the side questions."""


def factors(graph: Graph, task: int, played: Played, credit: Credit) -> np.ndarray:
    """[member, turn, step]: what multiplies ∇ log π of each step of one group."""
    rules, turns = graph.rules[task], int(graph.length[task])
    found = np.zeros(played.taken.shape)
    reached = played.steps[:, :turns] > 0
    if credit.level == "step":
        for t in range(turns):
            known = np.ones((len(reached), len(rules[t].weights)), dtype=bool)
            states = played.satisfied[t]
            depends, weights = rules[t].depends, rules[t].weights
            found[:, t] = step(states, depends, weights, known, credit.normalise, credit.backfill)
        return np.where(played.nodes >= 0, found, 0.0)
    rewards = turn_rewards(graph, task, played)
    if credit.judge_flip > 0:
        rewards = np.stack([_unlatched(graph, task, played, t, credit.judge_flip) for t in range(turns)], axis=1)
    if credit.level == "trajectory":
        found += trajectory(rewards.mean(axis=1), credit.normalise)[:, None, None]
    elif credit.level == "turn":
        by_turn = turn(rewards, reached, credit.normalise, credit.turn_baseline, credit.turn_credit)
        found[:, :turns] = by_turn[:, :, None]
    else:
        situations, at = situations_of(played, turns)
        found[:, :turns] = blend(rewards, reached, situations, at, credit.normalise).reshape(-1, turns, STEPS)
    return np.where(played.nodes >= 0, found, 0.0)


def situations_of(played: Played, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """For `blend`: which items were satisfied before each step, as a number, and each step's turn."""
    bits = [states[:, :-1] @ (1 << np.arange(states.shape[2])) for states in played.satisfied]
    found = np.where(played.nodes[:, :turns] >= 0, np.stack(bits, axis=1), -1)
    return found.reshape(len(found), -1), np.repeat(np.arange(turns), STEPS)


def _unlatched(graph: Graph, task: int, played: Played, t: int, flip: float) -> np.ndarray:
    """R_t by the turn's last states, corrected for the flip rate."""
    rules = graph.rules[task][t]
    return held(played.met[t], rules.depends, flip, played.steps[:, t]) @ rules.weights
