"""Curves: how a training went, a small chart for every metric that its steps recorded.

The usual metrics come first and in a fixed order, whatever else was recorded as a number follows by name. A faint line
is what was measured, a strong one its running mean; a value that is missing or not finite leaves a gap.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cm2.report.source import Curve, is_number
from cm2.report.svg import COLOURS, inline, settings
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
DRAWN = 600
"""Points of a line; of a longer training every n-th step is drawn."""
SMOOTHED_FROM = 12
"""Points from which a running mean is drawn."""


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
    with settings():
        figure = Figure(figsize=(3.5, 1.65))
        axes = figure.add_axes((0.135, 0.13, 0.845, 0.84))
        axes.grid(False, axis="x")
        smooth = running_mean(values) if len(values) >= SMOOTHED_FROM else []
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < SMOOTHED_FROM else {}
        axes.plot(
            steps, values, color=COLOURS[role], linewidth=1 if smooth else 2, alpha=0.35 if smooth else 1, **marker
        )
        if smooth:
            axes.plot(steps, smooth, color=COLOURS[role], linewidth=2)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        axes.tick_params(labelsize=9)
        axes.spines["left"].set_visible(False)
        return inline(figure, label)


def tick(value: float) -> str:
    """A number on an axis, short: 0.25, 1200, 12k, 2e-05."""
    if abs(value) >= 1e4:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    if 0 < abs(value) < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.4g}"


def running_mean(values: list[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the length to either side; gaps are passed over."""
    reach = max(2, len(values) // 10)
    means = []
    for index in range(len(values)):
        near = [v for v in values[max(0, index - reach) : index + reach + 1] if not math.isnan(v)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means
