"""Panels: small charts of a training's numbers by step, with what happened marked in them.

A faint line is what was measured, a strong one its running mean. Upright lines are alarms. A value that is missing
leaves a gap. The same rows give the same chart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cm2.report.curves import SMOOTHED_FROM, running_mean, tick
from cm2.report.source import is_number
from cm2.report.svg import COLOURS, inline, settings
from cm2.report.text import visible

DRAWN = 600
"""Points of a line; of a longer training every n-th step is drawn."""


class Line(msgspec.Struct):
    """One number by step."""

    name: str
    role: str
    steps: list[float]
    values: list[float]
    low: list[float] = []
    high: list[float] = []
    """Its interval, where it has one; such a line is few points and is not smoothed."""

    @property
    def known(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def first(self) -> float:
        """The mean of the first tenth of what is known."""
        part = self.known[: max(1, len(self.known) // 10)]
        return sum(part) / len(part)

    @property
    def last(self) -> float:
        """The mean of the last tenth of what is known."""
        part = self.known[-max(1, len(self.known) // 10) :]
        return sum(part) / len(part)


class Panel(msgspec.Struct):
    """One chart: its title, what its lines are, and how they went."""

    title: str
    lines: list[Line]
    chart: Markup
    note: str = ""


def line_of(rows: Sequence[dict[str, Any]], metric: str, name: str, role: str) -> Line | None:
    """The line of a metric; None where no step has it."""
    steps = [float(row["step"]) if is_number(row.get("step")) else float(n) for n, row in enumerate(rows, 1)]
    values = [float(row[metric]) if is_number(row.get(metric)) else math.nan for row in rows]
    line = Line(visible(name), role, steps, values)
    return line if line.known else None


def panel(title: str, lines: Sequence[Line | None], marks: Sequence[float] = (), note: str = "") -> Panel | None:
    """The chart of the lines that exist; None where there is none.

    Args:
        title: above it.
        lines: what is drawn.
        marks: steps of alarms.
        note: below it.
    """
    there = [line for line in lines if line is not None]
    if not there:
        return None
    told = "; ".join(f"{line.name} from {line.first:.4g} to {line.last:.4g}" for line in there)
    return Panel(visible(title), there, _draw(there, marks, f"{visible(title)} by step: {told}"), note)


def _draw(lines: Sequence[Line], marks: Sequence[float], label: str) -> Markup:
    with settings():
        figure = Figure(figsize=(3.5, 1.65))
        axes = figure.add_axes((0.135, 0.13, 0.845, 0.84))
        axes.grid(False, axis="x")
        for step in marks:
            axes.axvline(step, color=COLOURS["run4"], linewidth=1.2, linestyle=(0, (3, 2)))
        for line in lines:
            _line(axes, line)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        axes.tick_params(labelsize=9)
        axes.spines["left"].set_visible(False)
        return inline(figure, label)


def _line(axes: Any, line: Line) -> None:
    colour = COLOURS[line.role]
    if line.low:
        axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(line.steps, line.values, color=colour, linewidth=1.6, marker="o", markersize=3)
        return
    every = max(1, math.ceil(len(line.values) / DRAWN))
    steps, values = line.steps[::every], line.values[::every]
    few = len(line.known) < SMOOTHED_FROM
    smooth = [] if few else running_mean(values)
    axes.plot(
        steps, values, color=colour, linewidth=1 if smooth else 1.8, alpha=0.3 if smooth else 1,
        **({"marker": "o", "markersize": 3} if few else {}),
    )  # fmt: skip
    if smooth:
        axes.plot(steps, smooth, color=colour, linewidth=2)
