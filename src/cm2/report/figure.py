"""A picture of a file's statistics: one histogram a distribution, on one sheet."""

from __future__ import annotations

import os

from cm2.curate.statistics import DISTRIBUTIONS, Statistics
from cm2.errors import ConfigError

BINS = 40
SUFFIXES = (".png", ".svg", ".pdf")


def check_figure(path: str) -> None:
    """Make sure that a figure can be written under that name, before the work is done.

    Raises:
        ConfigError: the name is of no kind of picture.
    """
    if not path.lower().endswith(SUFFIXES):
        raise ConfigError(f"{path} is no picture's name", fix=f"end it in {', '.join(SUFFIXES)}")


def draw_statistics(statistics: Statistics, path: str, title: str) -> None:
    """Write the figure.

    Raises:
        OSError: it cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for (field, name), plot in zip(DISTRIBUTIONS.items(), axes.flat, strict=False):
        distribution = getattr(statistics, field)
        bins = distribution.bins(BINS)
        if bins:
            left, width = [first for first, _, _ in bins], bins[0][1] - bins[0][0] + 1
            plot.bar(left, [count for _, _, count in bins], width=width * 0.9, align="edge" if width > 1 else "center")
            plot.axvline(
                distribution.mean, color="C3", linewidth=1, linestyle="--", label=f"mean {distribution.mean:,.1f}"
            )
            plot.legend(frameon=False)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        plot.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        plot.set_xlabel(f"{name}\n({statistics.tokens_by})" if field == "tokens_per_dialogue" else name)
        plot.set_ylabel("turns" if field == "steps_per_turn" else "dialogues")
        plot.spines[["top", "right"]].set_visible(False)
    _draw_tools(statistics, axes.flat[len(DISTRIBUTIONS)])
    figure.suptitle(title, parse_math=False)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_tools(statistics: Statistics, plot: object) -> None:
    """How often a tool is called, most called first: whether a few tools make up the data."""
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

    assert isinstance(plot, Axes)
    counts = sorted(statistics.called.values(), reverse=True)
    plot.plot(range(1, len(counts) + 1), counts, marker=".", markersize=4)
    plot.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    plot.set_ylim(bottom=0)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    plot.set_xlabel("tools, most called first")
    plot.set_ylabel("calls")
    plot.spines[["top", "right"]].set_visible(False)
