"""A small chart of numbers by step, and what its lines share: running means, thinning, short numbers on the axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cm2.report.svg import inline, settings

DRAWN = 600
"""Points of a line; of a longer training every n-th step is drawn."""
SMOOTHED_FROM = 12
"""Points from which a running mean is drawn."""


def small_chart(draw: Callable[[Any], None], label: str) -> Markup:
    """The chart as an `<svg>` element.

    Args:
        draw: draws the lines on the axes.
        label: what it shows, for those who cannot see it; see `inline`.
    """
    with settings():
        figure = Figure(figsize=(3.5, 1.65))
        axes = figure.add_axes((0.135, 0.13, 0.845, 0.84))
        axes.grid(False, axis="x")
        draw(axes)
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
