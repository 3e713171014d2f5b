"""Loop: policy gradient for one cell of the grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from cm2.credit import Credit
from granularity_lab.estimators import LEVELS, factors
from granularity_lab.graph import SLOTS, Graph
from granularity_lab.policy import Policy
from granularity_lab.rollouts import Noise, Played, draw, play, turn_rewards

EVERY, WATCHED, HIDDEN = 20, 96, 32
SPOIL = 0.15
TOLD = ("blend", "trajectory, flip rate", "turn, to go, flip rate")
"""Who is told how often the judge errs."""


class Cell(NamedTuple):
    """One run: who learns from what, how noisily, and from which seed."""

    level: str
    flip: float
    simulator: bool
    group: int
    seed: int
    updates: int = 500
    rate: float = 0.01
    start: int = 0
    """A cold start: so many updates at the trajectory level without any noise come before, and do not count."""

    @property
    def name(self) -> str:
        """What its line in the results is found by."""
        return "|".join(str(each) for each in self[: None if self.start else -1])


def run(graph: Graph, cell: Cell) -> dict[str, Any]:
    """Train, and watch the true reward: a judge and a simulator without noise, every so many updates.

    The noise of an update depends on the seed alone, so cells that differ in the level only are paired.
    """
    credit = LEVELS[cell.level]
    if cell.level in TOLD:
        credit = msgspec.structs.replace(credit, judge_flip=cell.flip)
    policy = trained(graph, cell.start, cell.rate, cell.seed)
    rng = np.random.default_rng([cell.seed, 2])
    task_of = np.repeat(np.arange(len(graph.tasks)), cell.group)
    watched = np.repeat(np.arange(len(graph.tasks)), WATCHED)
    quiet = draw(graph, len(watched), 0.0, 0.0, np.random.default_rng([cell.seed, 3]))
    curve: dict[str, list[float | None]] = {"true": [], "strict": [], "paid": [], "entropy": [], "steps": []}
    paid: list[float] = []
    for update in range(cell.updates + 1):
        if update % EVERY == 0:
            _watch(graph, policy, watched, quiet, curve)
            curve["paid"].append(float(np.mean(paid)) if paid else None)
            paid = []
        if update == cell.updates:
            break
        noise = draw(graph, len(task_of), cell.flip, SPOIL if cell.simulator else 0.0, rng)
        groups = play(graph, policy, task_of, noise)
        policy.ascend(estimate(graph, policy, groups, credit), cell.rate)
        paid.append(float(np.mean([turn_rewards(graph, i, group).mean() for i, group in enumerate(groups)])))
    return {"cell": cell.name, **cell._asdict(), "curve": {k: [x and round(x, 4) for x in v] for k, v in curve.items()}}


def estimate(graph: Graph, policy: Policy, groups: list[Played], credit: Credit) -> list[np.ndarray]:
    """The gradient that a level makes of one group of each task: the mean over their steps of A·∇ log π."""
    nodes = np.concatenate([group.nodes.ravel() for group in groups])
    taken = np.concatenate([group.taken.ravel() for group in groups])
    each = np.concatenate([factors(graph, i, group, credit).ravel() for i, group in enumerate(groups)])
    there = np.flatnonzero(nodes >= 0)
    nodes = nodes[there]
    return policy.gradient(graph.features[nodes], graph.allowed[nodes], taken[there], each[there] / len(there))


def trained(graph: Graph, updates: int, rate: float, seed: int) -> Policy:
    """A fresh policy, and so many updates of it at the trajectory level without noise, groups of 24."""
    policy = Policy(graph.width, SLOTS, HIDDEN, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 4])
    task_of = np.repeat(np.arange(len(graph.tasks)), 24)
    for _ in range(updates):
        groups = play(graph, policy, task_of, draw(graph, len(task_of), 0.0, 0.0, rng))
        policy.ascend(estimate(graph, policy, groups, Credit()), rate)
    policy.forget()
    return policy


def _watch(
    graph: Graph, policy: Policy, watched: np.ndarray, quiet: Noise, curve: dict[str, list[float | None]]
) -> None:
    groups = play(graph, policy, watched, quiet)
    rewards = [turn_rewards(graph, i, group).mean(axis=1) for i, group in enumerate(groups)]
    nodes = np.concatenate([group.nodes[group.nodes >= 0] for group in groups])
    pi, _ = policy.probabilities(graph.features[nodes], graph.allowed[nodes])
    entropy = -np.where(pi > 0, pi * np.log(np.where(pi > 0, pi, 1.0)), 0.0).sum(axis=1)
    curve["true"].append(float(np.mean(np.concatenate(rewards))))
    curve["strict"].append(float(np.mean(np.concatenate(rewards) > 1 - 1e-9)))
    curve["entropy"].append(float(entropy.mean()))
    curve["steps"].append(len(nodes) / len(watched))
