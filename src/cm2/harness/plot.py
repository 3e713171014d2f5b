"""Plot: results with their intervals beside the published numbers, one panel a benchmark."""

from __future__ import annotations

import os

from cm2.harness.published import PAPER, beside
from cm2.harness.results import Results
from cm2.report.figure import check_figure

OURS, THEIRS, NOT_COMPARABLE = "C0", "0.75", "white"


def draw(several: list[Results], names: list[str], path: str) -> None:
    """Write the figure. What is not comparable is hollow.

    Raises:
        ConfigError: the name is of no kind of picture.
        OSError: it cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_figure(path)
    keys = list(dict.fromkeys(one.name for results in several for one in results.headlines))
    found = [{one.name: one for one in beside(results)} for results in several]
    figure = Figure(figsize=(max(5.0, 4.2 * len(keys)), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for plot, key in zip(figure.subplots(1, len(keys), squeeze=False).flat, keys, strict=True):
        labels: list[str] = []
        for name, one in ((name, own[key]) for name, own in zip(names, found, strict=True) if key in own):
            score = one.headline.score
            if score is None:
                continue
            mean, low, high = 100 * score.mean, 100 * score.low, 100 * score.high
            fill = OURS if one.headline.comparable else NOT_COMPARABLE
            plot.bar(len(labels), mean, color=fill, edgecolor=OURS, yerr=[[mean - low], [high - mean]], capsize=3)
            labels.append(name if one.headline.comparable else f"{name} *")
        published = next(own[key].published for own in found if key in own)
        title = next(own[key].title for own in found if key in own)
        for name, value in published.items():
            plot.bar(len(labels), value, color=THEIRS)
            labels.append(name)
        plot.set_xticks(range(len(labels)), labels, rotation=30, ha="right", parse_math=False)
        plot.set_ylim(0, 100)
        plot.set_title(title, fontsize=10)
        plot.set_ylabel("%")
        plot.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"grey: published ({PAPER}); * and hollow: a subset or with losses, not comparable", fontsize=8)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=120)
