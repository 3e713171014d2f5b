"""A picture of a selection: each number's distribution in each split, beside that of all rows."""

from __future__ import annotations

import io
import os

import fsspec
import numpy as np

from cm2.curate.features import NUMBERS
from cm2.curate.select import Selected
from cm2.curate.selection import SelectConfig

BINS = 30
FILE = "splits.png"
TAIL = 99.5
"""The percentile at which the axis ends: a few giants would press all others into one bar."""


def draw_selection(selected: Selected, config: SelectConfig) -> str:
    """Write the figure into the output folder and return its name.

    Raises:
        OSError: it cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    pool, choice = selected.pool, selected.choice
    columns = {name: pool.number(name) for name in NUMBERS} | {"complexity": pool.complexity}
    labels = NUMBERS | {"complexity": "complexity"}
    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 3)
    readable = pool.readable
    for (name, column), plot in zip(columns.items(), axes.flat, strict=True):
        values = column[readable]
        low, high = float(values.min()), float(np.percentile(values, TAIL))
        whole = name != "complexity"
        width = max(1.0, np.ceil((high - low + 1) / BINS)) if whole else max((high - low) / BINS, 1e-6)
        edges = np.arange(low, high + 2 * width, width) - (0.5 if whole else 0)
        drawn = [("all rows", values), *((s.name, column[choice.split == n]) for n, s in enumerate(config.splits))]
        for index, (label, of_split) in enumerate(drawn):
            if len(of_split):
                shares = np.histogram(np.minimum(of_split, edges[-1] - width / 2), edges)[0] / len(of_split)
                style = {"color": "0.85", "fill": True} if index == 0 else {"color": f"C{index - 1}", "linewidth": 1.5}
                plot.stairs(shares, edges, label=f"{label} ({len(of_split):,})", **style)
        plot.set_xlabel(labels[name])
        plot.set_ylabel("share of the rows")
        plot.xaxis.set_major_locator(MaxNLocator(integer=whole, nbins=6))
        plot.spines[["top", "right"]].set_visible(False)
    axes.flat[0].legend(frameon=False)
    figure.suptitle(f"{os.path.basename(config.input)}, seed {config.seed}", parse_math=False)
    drawn_bytes = io.BytesIO()
    figure.savefig(drawn_bytes, dpi=110, format="png")
    path = os.path.join(config.output, FILE)
    with fsspec.open(path, "wb") as file:
        file.write(drawn_bytes.getvalue())
    return path
