"""Variance: bias and noise of each level's gradient at one fixed policy of the lab, against the true gradient.

The truth is the mean of trajectory's estimate over many groups without any noise, whose expectation is the gradient of
the expected true reward times (G − 1)/G. Of every estimator: `cos`, the direction of its mean; `noise`, the root of
the trace of its covariance over the length of its mean (how many times louder than the signal one update is; infinite
where so many samples do not tell the mean from nothing);
`signal`, the cosine between a single update and the truth, on average.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from granularity_lab.estimators import LEVELS
from granularity_lab.graph import Graph
from granularity_lab.loop import SPOIL, TOLD, estimate, trained
from granularity_lab.policy import Policy
from granularity_lab.rollouts import draw, play


def estimates(
    graph: Graph, policy: Policy, credits: dict[str, Any], group: int, flip: float, spoil: float, rng: Any
) -> dict[str, list[np.ndarray]]:
    """The gradient that each level makes of the same groups."""
    task_of = np.repeat(np.arange(len(graph.tasks)), group)
    groups = play(graph, policy, task_of, draw(graph, len(task_of), flip, spoil, rng))
    return {name: estimate(graph, policy, groups, credit) for name, credit in credits.items()}


def measure(
    graph: Graph, policy: Policy, names: list[str], group: int, flip: float, simulator: bool, samples: int, seed: int
) -> list[dict[str, Any]]:
    """One row an estimator."""
    rng = np.random.default_rng([seed, 7])
    plain = {"": LEVELS["trajectory"]}
    many = [_flat(estimates(graph, policy, plain, 240, 0.0, 0.0, rng)[""]) for _ in range(samples)]
    truth = np.mean(many, axis=0)
    credits = {name: msgspec.structs.replace(LEVELS[name], judge_flip=flip if name in TOLD else 0.0) for name in names}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for _ in range(samples):
        for name, found in estimates(graph, policy, credits, group, flip, SPOIL if simulator else 0.0, rng).items():
            drawn[name].append(_flat(found))
    rows = []
    for name in names:
        each = np.array(drawn[name])
        mean, length = each.mean(axis=0), np.linalg.norm(each, axis=1)
        variance = float(each.var(axis=0, ddof=1).sum())
        squared = float(mean @ mean) - variance / samples  # of the true mean's length, without the sampling error's
        rows.append(
            {
                "estimator": name,
                "flip": flip,
                "simulator": simulator,
                "group": group,
                "cos": float(mean @ truth / np.linalg.norm(mean) / np.linalg.norm(truth)),
                "variance": variance,
                "noise": float(np.sqrt(variance / squared)) if squared > 0 else float("inf"),
                "signal": float(np.mean(each @ truth / np.maximum(length, 1e-300)) / np.linalg.norm(truth)),
            }
        )
    return rows


def table(graph: Graph, rate: float, samples: int = 200) -> str:
    """Every level early and half way, with and without flips, groups of 24, as Markdown."""
    names = [name for name in LEVELS if ", std" not in name]
    lines = []
    for updates in (30, 90):
        policy = trained(graph, updates, rate, 0)
        by_flip = [measure(graph, policy, names, 24, flip, False, samples, 0) for flip in (0.0, 0.15)]
        lines += [
            "",
            f"| after {updates} updates | cos | noise | signal | cos, 15 % flips | noise | signal |",
            "|---" * 7 + "|",
        ]
        for quiet, noisy in zip(*by_flip, strict=True):
            numbers = [f"{row[key]:.2f}" for row in (quiet, noisy) for key in ("cos", "noise", "signal")]
            lines.append(f"| {quiet['estimator']} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def _flat(gradient: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([g.ravel() for g in gradient])
