"""Page: a comparison as one HTML file, with a plot of all differences and their intervals. Everything is escaped."""

from __future__ import annotations

import msgspec
from markupsafe import Markup
from matplotlib.figure import Figure

from cm2.assure.compare_result import Comparison
from cm2.assure.paired import Contrast
from cm2.report import compare_text as text
from cm2.report.page import chance, fill
from cm2.report.svg import COLOURS, inline, settings
from cm2.report.text import visible

LONGEST = 34
"""Characters of a name beside the plot."""
_COLOURS = {"better": COLOURS["run1"], "worse": COLOURS["run4"]}


class Bar(msgspec.Struct):
    """One difference of the plot."""

    name: str
    change: str
    contrast: Contrast


def page(found: Comparison) -> str:
    """The comparison as HTML."""
    bars = [Bar(text.metric_name(one), one.change, one.contrast) for one in found.metrics]
    shown, rest = text.worth(found)
    bars += [Bar(visible(one.duty), one.change, one.contrast) for one in shown if one.contrast is not None]
    chart = forest(bars) if bars else Markup("")
    values = {"found": found, "shown": shown, "rest": rest, "text": text, "chance": chance, "chart": chart}
    return fill("compare.html.jinja", ["report.css"], ["theme.js"], [], **values)


def forest(bars: list[Bar]) -> Markup:
    """The differences below each other, each a dot on its 95 % interval; 0 is a line."""
    with settings():
        height = 0.75 + 0.27 * len(bars)
        figure = Figure(figsize=(7.6, height))
        axes = figure.add_axes((0.32, 0.42 / height, 0.65, 1 - 0.5 / height))
        axes.grid(False, axis="y")
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for y, bar in enumerate(bars):
            one = bar.contrast
            colour = _COLOURS.get(bar.change, COLOURS["run0"])
            axes.plot([100 * one.low, 100 * one.high], [y, y], color=colour, linewidth=2.5, alpha=0.5)
            axes.plot([100 * one.difference], [y], "o", color=colour, markersize=6)
        names = [bar.name if len(bar.name) <= LONGEST else bar.name[: LONGEST - 1] + "…" for bar in bars]
        axes.set_yticks(range(len(bars)), names, fontsize=9)
        for label in axes.get_yticklabels():
            label.set_color(COLOURS["ink"])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlabel("B − A, points", fontsize=9)
        axes.tick_params(axis="x", labelsize=9)
        axes.spines["left"].set_visible(False)
        return inline(figure, "differences B minus A with 95 % intervals, by duty")
