"""Rollouts of the lab: many at once through the graph, with a judge and a simulator that err."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cm2.credit.satisfaction import latch
from granularity_lab.graph import ITEMS, STEPS, Graph
from granularity_lab.policy import Policy


@dataclass
class Noise:
    """What can go wrong, drawn before anything is done: the same for every policy and every level of credit."""

    actions: np.ndarray
    """[member, turn, step], uniform: which action."""
    spoiled: np.ndarray
    """[member, turn, step]: the simulator answers a call with an error."""
    flipped: np.ndarray
    """[member, turn, step, item]: the judge says the opposite."""


def draw(graph: Graph, members: int, flip: float, spoil: float, rng: np.random.Generator) -> Noise:
    """Independent noise for so many rollouts."""
    shape = members, graph.turns, STEPS
    uniform = rng.random(shape)
    return Noise(uniform, rng.random(shape) < spoil, rng.random((*shape, ITEMS)) < flip)


@dataclass
class Played:
    """Rollouts of one task."""

    nodes: np.ndarray
    """[member, turn, step], the state before each step; −1 where there was none."""
    taken: np.ndarray
    steps: np.ndarray
    """[member, turn]."""
    met: list[np.ndarray]
    """Of each turn [member, step, item], what the judge said; a no where there was no step."""
    satisfied: list[np.ndarray]
    """Of each turn [member, state, item]."""


def play(graph: Graph, policy: Policy, task_of: np.ndarray, noise: Noise) -> list[Played]:
    """Roll out every member; one `Played` a task, members in their order."""
    members = len(task_of)
    nodes = np.full((members, graph.turns, STEPS), -1)
    taken = np.zeros((members, graph.turns, STEPS), dtype=np.int64)
    steps = np.zeros((members, graph.turns), dtype=np.int64)
    at = graph.roots[task_of]
    met: list[list[np.ndarray]] = [[] for _ in graph.tasks]
    satisfied: list[list[np.ndarray]] = [[] for _ in graph.tasks]
    for t in range(graph.turns):
        rows = np.zeros((members, STEPS, ITEMS), dtype=bool)
        going = at >= 0
        for s in range(STEPS):
            who = np.flatnonzero(going)
            if not len(who):
                break
            here = at[who]
            pi, _ = policy.probabilities(graph.features[here], graph.allowed[here])
            beyond = noise.actions[who, t, s, None] * pi.sum(axis=1, keepdims=True) >= np.cumsum(pi, axis=1)
            action = np.minimum(beyond.sum(axis=1), graph.allowed[here].sum(axis=1) - 1)
            nodes[who, t, s], taken[who, t, s] = here, action
            there = graph.step(here, action, noise.spoiled[who, t, s])
            at[who] = there
            rows[who, s] = graph.row[there] ^ noise.flipped[who, t, s]
            steps[who, t] += 1
            going[who] = graph.kind[there] == 0
        for i, rules in enumerate(graph.rules):
            if t >= len(rules):
                continue
            mine = np.flatnonzero(task_of == i)
            said = rows[mine][:, :, : len(rules[t].weights)].astype(float)
            states = latch(said, rules[t].depends, "gated")
            met[i].append(said)
            satisfied[i].append(states)
            passed = states[:, -1, rules[t].strict].all(axis=1) & (at[mine] >= 0)
            replied = passed & (graph.kind[np.maximum(at[mine], 0)] == 1) & (steps[mine, t] > 0)
            at[mine] = np.where(replied, graph.after[np.maximum(at[mine], 0)], -1)
        at[graph.length[task_of] <= t] = -1
    found = []
    for i in range(len(graph.tasks)):
        mine = task_of == i
        found.append(Played(nodes[mine], taken[mine], steps[mine], met[i], satisfied[i]))
    return found


def turn_rewards(graph: Graph, task: int, played: Played) -> np.ndarray:
    """R[member, turn] of one task, gated: the weights of what is satisfied when the turn ends."""
    rules = graph.rules[task]
    return np.stack([states[:, -1] @ rules[t].weights for t, states in enumerate(played.satisfied)], axis=1)
