"""Curves: how a training went, a small chart for every metric that its steps recorded.

The usual metrics come first and in a fixed order, whatever else was recorded as a number follows by name. A faint line
is what was measured, a strong one its running mean; a value that is missing or not finite leaves a gap.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from markupsafe import Markup

from cm2.report.small_chart import DRAWN, SMOOTHED_FROM, running_mean, small_chart
from cm2.report.source import Curve, is_number
from cm2.report.svg import COLOURS
from cm2.report.text import visible

TITLES = {
    "loss": "loss",
    "reward": "checklist reward",
    "strict_pass": "strict pass",
    "outcome": "true outcome",
    "kl": "KL to the cold start",
    "entropy": "entropy",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "groups_without_signal": "groups without signal",
    "failures": "failed rollouts",
    "tokens_generated": "tokens generated",
    "tokens_trained": "tokens trained",
    "seconds": "seconds a step",
}
"""The usual metrics, in order; parts of `seconds` are in the time split instead."""
UNPLOTTED = ("step", "time", "epoch", "generation")
MOST = 24
"""Charts of one training."""


class Plot(msgspec.Struct):
    """One metric of one training."""

    metric: str
    title: str
    first: float
    last: float
    chart: Markup


class Training(msgspec.Struct):
    """The plots of one training."""

    name: str
    steps: int
    plots: list[Plot]
    unplotted: int
    every: int
    """Every how many steps a point is drawn."""


def trainings(curves: list[Curve]) -> list[Training]:
    """Everything that the trainings recorded, as charts."""
    found = []
    for index, curve in enumerate(curves):
        names = _metrics(curve.rows)
        role = f"run{ {'sft': 1, 'rl': 2}.get(curve.name.split('/')[-1], index % 3) }"
        every = max(1, math.ceil(len(curve.rows) / DRAWN))
        plots = [plot for name in names[:MOST] if (plot := _plot(curve, name, role, every)) is not None]
        found.append(Training(visible(curve.name), len(curve.rows), plots, max(0, len(names) - MOST), every))
    return found


def _metrics(rows: list[dict[str, Any]]) -> list[str]:
    recorded = {name for row in rows for name, value in row.items() if is_number(value)}
    others = sorted(name for name in recorded if name not in TITLES and not name.startswith("seconds"))
    return [name for name in TITLES if name in recorded] + [name for name in others if name not in UNPLOTTED]


def _plot(curve: Curve, name: str, role: str, every: int) -> Plot | None:
    steps, values = [], []
    for number, row in enumerate(curve.rows):
        step = row.get("step")
        steps.append(float(step) if is_number(step) else float(number))
        values.append(float(row[name]) if is_number(row.get(name)) else math.nan)
    known = [row[name] for row in curve.rows if is_number(row.get(name))]
    if not known:
        return None
    title = TITLES.get(name) or visible(name).replace("_", " ")
    label = f"{title} of {visible(curve.name)} by step, from {known[0]:.4g} to {known[-1]:.4g}"
    chart = _draw(steps[::every], values[::every], role, label)
    return Plot(visible(name), title, known[0], known[-1], chart)


def _draw(steps: list[float], values: list[float], role: str, label: str) -> Markup:
    smooth = running_mean(values) if len(values) >= SMOOTHED_FROM else []
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < SMOOTHED_FROM else {}

    def draw(axes: Any) -> None:
        axes.plot(
            steps, values, color=COLOURS[role], linewidth=1 if smooth else 2, alpha=0.35 if smooth else 1, **marker
        )
        if smooth:
            axes.plot(steps, smooth, color=COLOURS[role], linewidth=2)

    return small_chart(draw, label)
