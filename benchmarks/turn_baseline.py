"""Bias and variance of every way to assign credit, against the exact gradient on a task small enough to enumerate.

    python benchmarks/turn_baseline.py            # about 20 seconds
    python benchmarks/turn_baseline.py --json

The task has two turns of two steps and a strict item in the first turn: without it the rollout ends there. The policy
is a table of softmax logits, so there are seven possible rollouts, and everything follows by enumeration: the expected
trajectory reward J, its gradient, and, over all possible groups, the mean and the covariance of what `cm2.credit` makes
of a group. Sampled groups check the enumeration. Two variants of the task differ in the weights of the first turn:

- `conflict`: the reply that ends the rollout earns more in its own turn than the one that lets it go on;
- `aligned`: the reply that lets it go on also earns more at once.

An estimate of a group is (1/G) Σ_i Σ_steps A[i, step] ∇ log π(action), times G/(G−1) because a rollout's own reward is
in its baseline, and divided by L at the turn level, whose rewards are not divided by L. `|bias|` is relative to the
norm of the exact gradient; `cos` is the cosine between the expected estimate and the exact gradient; `variance` is the
trace of the covariance relative to trajectory's; `noise` is its root over the norm of the expected estimate, which no
scale changes; `J after` is what following the expected estimate leads to.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cm2.checklist import Checklist, Item
from cm2.credit import Credit, Score, advantages, score, unmet_strict
from cm2.verdict import Verdict

TASKS = {"conflict": (0.2, 0.3, 0.5), "aligned": (0.2, 0.6, 0.2)}
"""Weights of the first turn: looked up; confirmed (strict, rests on the look-up); answered at once."""
TURNS = 2
STATES = ["turn 0", "looked up", "not looked up", "turn 1", "looked up again", "not looked up again"]
ESTIMATORS = {
    "trajectory": Credit(),
    "turn group/own": Credit(level="turn"),
    "turn group/to_go": Credit(level="turn", turn_credit="to_go"),
    "turn survivors/own": Credit(level="turn", turn_baseline="survivors"),
    "turn survivors/to_go": Credit(level="turn", turn_baseline="survivors", turn_credit="to_go"),
    "step": Credit(level="step"),
    "blend": Credit(level="blend"),
}


def checklists(weights: tuple[float, float, float]) -> list[Checklist]:
    """The task's two checklists."""

    def item(id: str, weight: float, depends: list[str], strict: bool = False) -> Item:
        return Item(id, "tool.content", f"{id}?", "yes", weight, [], [], strict, depends)

    looked, confirmed, answered = weights
    first = [item("C0", looked, []), item("C1", confirmed, ["C0"], True), item("C2", answered, [])]
    return [Checklist(0, first), Checklist(1, [item("C0", 0.4, []), item("C1", 0.6, ["C0"])])]


@dataclass
class Path:
    """One possible rollout: its choices as (state, action) for each step, and its score."""

    choices: list[tuple[int, int]]
    score: Score


def paths(weights: tuple[float, float, float]) -> list[Path]:
    """Every possible rollout. Action 0 is to look up, to confirm, to answer right; 1 is not to."""
    lists = checklists(weights)
    found = []
    for look, reply in itertools.product((0, 1), repeat=2):
        choices = [(0, look), (1 + look, reply)]
        verdicts = [
            *[Verdict("d", 0, s, "C0", look == 0) for s in range(2)],
            *[Verdict("d", 0, s, "C1", s == 1 and reply == 0) for s in range(2)],
            *[Verdict("d", 0, s, "C2", s == 1 and reply == 1) for s in range(2)],
        ]
        if unmet_strict(lists[0], verdicts, 2):
            found.append(Path(choices, score(lists, verdicts, [2], TURNS)))
            continue
        for again, right in itertools.product((0, 1), repeat=2):
            more = [
                *[Verdict("d", 1, s, "C0", again == 0) for s in range(2)],
                *[Verdict("d", 1, s, "C1", s == 1 and right == 0) for s in range(2)],
            ]
            whole = score(lists, verdicts + more, [2, 2], TURNS)
            found.append(Path([*choices, (3, again), (4 + again, right)], whole))
    return found


class Problem:
    """The task under a tabular softmax policy with logits theta[state, action]."""

    def __init__(self, weights: tuple[float, float, float]):
        self.paths = paths(weights)
        self.rewards = np.array([path.score.reward for path in self.paths])
        self.longest = max(len(path.choices) for path in self.paths)

    def probabilities(self, theta: np.ndarray) -> np.ndarray:
        """π(path)."""
        policy = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)
        return np.array([math.prod(policy[at] for at in path.choices) for path in self.paths])

    def log_gradients(self, theta: np.ndarray) -> np.ndarray:
        """∇_theta log π(action | state), as [path, step, parameter]; 0 where a path has ended."""
        policy = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)
        found = np.zeros((len(self.paths), self.longest, *theta.shape))
        for p, path in enumerate(self.paths):
            for k, (state, action) in enumerate(path.choices):
                found[p, k, state] = -policy[state]
                found[p, k, state, action] += 1
        return found.reshape(len(self.paths), self.longest, -1)

    def value(self, theta: np.ndarray) -> float:
        """J = Σ_paths π(path) R(path)."""
        return float(self.probabilities(theta) @ self.rewards)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """∇J = Σ_paths π(path) R(path) Σ_steps ∇ log π(action)."""
        each = self.log_gradients(theta).sum(axis=1)
        found: np.ndarray = (self.probabilities(theta) * self.rewards) @ each
        return found


class Groups:
    """All groups of G rollouts, in which order does not matter: how many of each path a group holds."""

    def __init__(self, problem: Problem, size: int):
        self.problem, self.size = problem, size
        members = list(itertools.combinations_with_replacement(range(len(problem.paths)), size))
        self.index = {each: i for i, each in enumerate(members)}
        self.members = members
        self.counts = np.array([np.bincount(each, minlength=len(problem.paths)) for each in members])
        factorials = np.array([math.factorial(n) for n in range(size + 1)], dtype=float)
        self.orders = factorials[size] / factorials[self.counts].prod(axis=1)

    def probabilities(self, theta: np.ndarray) -> np.ndarray:
        """Multinomial probability of each group."""
        return self.orders * np.prod(self.problem.probabilities(theta) ** self.counts, axis=1)

    def factors(self, credit: Credit) -> np.ndarray:
        """What multiplies ∇ log π in the estimate of a group, as [group, path, step]."""
        found = np.zeros((len(self.members), len(self.problem.paths), self.problem.longest))
        scale = 1 / (self.size - 1) / (TURNS if credit.level == "turn" else 1)
        for g, each in enumerate(self.members):
            made = advantages([self.problem.paths[p].score for p in each], credit=credit)
            for p, steps in zip(each, made.steps, strict=True):
                found[g, p, : len(steps)] += np.array(list(steps.values())) * scale
        return found


def measure(groups: Groups, theta: np.ndarray, factors: np.ndarray, samples: int, seed: int) -> dict[str, float]:
    """Bias and variance of one estimator: exact over all groups, and from sampled groups with its standard error."""
    problem = groups.problem
    exact = problem.gradient(theta)
    norm = float(np.linalg.norm(exact))
    vectors = factors.reshape(len(factors), -1) @ problem.log_gradients(theta).reshape(-1, theta.size)
    weights = groups.probabilities(theta)
    mean = weights @ vectors
    drawn = np.random.default_rng(seed).choice(
        len(problem.paths), size=(samples, groups.size), p=problem.probabilities(theta)
    )
    sampled = vectors[[groups.index[tuple(each)] for each in np.sort(drawn, axis=1).tolist()]]
    variance = float(weights @ ((vectors - mean) ** 2).sum(axis=1))
    return {
        "bias": float(np.linalg.norm(mean - exact)) / norm,
        "sampled_bias": float(np.linalg.norm(sampled.mean(axis=0) - exact)) / norm,
        "standard_error": math.sqrt(float(sampled.var(axis=0, ddof=1).sum()) / samples) / norm,
        "cosine": float(mean @ exact / np.linalg.norm(mean) / norm),
        "variance": variance,
        "noise": math.sqrt(variance) / float(np.linalg.norm(mean)),
    }


def follow(groups: Groups, theta: np.ndarray, factors: np.ndarray, updates: int, rate: float) -> float:
    """J after gradient ascent along the expected estimate."""
    problem, theta = groups.problem, theta.copy()
    for _ in range(updates):
        expected = np.tensordot(groups.probabilities(theta), factors, axes=1)
        step = np.tensordot(expected, problem.log_gradients(theta), axes=2)
        theta += rate * step.reshape(theta.shape)
    return problem.value(theta)


def run(size: int, samples: int, updates: int, rate: float, seed: int) -> list[dict[str, Any]]:
    """Every estimator on both tasks."""
    rows = []
    theta = np.random.default_rng(seed).normal(scale=0.5, size=(len(STATES), 2))
    for task, weights in TASKS.items():
        problem = Problem(weights)
        groups = Groups(problem, size)
        start = {"J": problem.value(theta), "best": float(problem.rewards.max())}
        goes_on = sum(
            p for p, path in zip(problem.probabilities(theta), problem.paths, strict=True) if path.score.steps[1]
        )
        for name, credit in ESTIMATORS.items():
            factors = groups.factors(credit)
            found = measure(groups, theta, factors, samples, seed)
            after = follow(groups, theta, factors, updates, rate)
            rows.append({"task": task, "estimator": name, **found, "J_after": after, "goes_on": goes_on, **start})
    return rows


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--group", type=int, default=8, help="rollouts in a group")
    options.add_argument("--samples", type=int, default=50_000, help="sampled groups")
    options.add_argument("--updates", type=int, default=400, help="updates along the expected estimate")
    options.add_argument("--rate", type=float, default=2.0, help="learning rate of those updates")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    rows = run(given.group, given.samples, given.updates, given.rate, given.seed)
    if given.json:
        print(json.dumps(rows))
        return
    for task in TASKS:
        mine = [row for row in rows if row["task"] == task]
        first = mine[0]
        print(
            f"\n{task}: G = {given.group}, {given.samples} sampled groups; J = {first['J']:.3f} at the start, "
            f"{first['best']:.3f} at best; {first['goes_on']:.0%} of rollouts go on to turn 1"
        )
        print(f"{'':22}{'|bias|':>8}{'sampled ± s.e.':>19}{'cos':>8}{'variance':>10}{'noise':>7}{'J after':>9}")
        for row in mine:
            variance = row["variance"] / first["variance"]
            print(
                f"{row['estimator']:22}{row['bias']:8.3f}{row['sampled_bias']:11.3f} ± {row['standard_error']:.3f}"
                f"{row['cosine']:8.3f}{variance:9.2f}x{row['noise']:7.2f}{row['J_after']:9.3f}"
            )


if __name__ == "__main__":
    main()
