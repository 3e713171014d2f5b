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

from cm2.report.small_chart import DRAWN, SMOOTHED_FROM, running_mean, small_chart
from cm2.report.source import is_number
from cm2.report.svg import COLOURS
from cm2.report.text import visible
from cm2.train.benchmarks import Point


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


def benchmark_panels(points: Sequence[Point], marks: Sequence[float]) -> list[Panel | None]:
    """A chart of each benchmark that was looked at; a point without a score is a gap, and is told."""
    found: list[Panel | None] = []
    for name in dict.fromkeys(point.benchmark for point in points):
        mine = [point for point in points if point.benchmark == name]
        if not (scored := [point for point in mine if point.score is not None]):
            continue
        steps = [float(point.step) for point in mine]
        values, low, high = (
            [math.nan if value is None else value for value in column]
            for column in zip(*((point.score, point.low, point.high) for point in mine), strict=True)
        )
        note = f"{scored[-1].n} tasks with the 95 % interval: {scored[-1].note}"
        if gaps := [str(point.step) for point in mine if point.score is None]:
            note += f"; no score after step {', '.join(gaps)}"
        found.append(panel(name, [Line(name, "run3", steps, values, low, high)], marks, visible(note)))
    return found


def _draw(lines: Sequence[Line], marks: Sequence[float], label: str) -> Markup:
    def draw(axes: Any) -> None:
        for step in marks:
            axes.axvline(step, color=COLOURS["run4"], linewidth=1.2, linestyle=(0, (3, 2)))
        for line in lines:
            _line(axes, line)

    return small_chart(draw, label)


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
