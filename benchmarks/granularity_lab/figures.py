"""Figures and tables of the lab, from the cells that are finished. Intervals are 95 %, Student's t over runs.

What is compared is paired: two levels in the same place (seed, group, simulator) share tasks, first policy and every
draw of the noise. The runs of one seed in different places share the first policy and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from granularity_lab.loop import EVERY

MAIN = ("trajectory", "turn", "step", "blend")
COLOURS = {"trajectory": "#4269d0", "turn": "#efb118", "step": "#ff725c", "blend": "#3ca951"}
Number = Callable[[dict[str, Any]], float]


def final(row: dict[str, Any]) -> float:
    """The true reward at the end: the mean of the last three looks."""
    return float(np.mean(row["curve"]["true"][-3:]))


def early(row: dict[str, Any]) -> float:
    """Speed: the mean true reward over the first 100 updates."""
    return float(np.mean(row["curve"]["true"][: 100 // EVERY + 1]))


def begun(row: dict[str, Any]) -> float:
    """The true reward before the first update."""
    return float(row["curve"]["true"][0])


def gained(row: dict[str, Any]) -> float:
    """The end less the start."""
    return final(row) - begun(row)


def lost(row: dict[str, Any]) -> float:
    """Collapse: how far the end is below the best three looks in a row."""
    curve = np.convolve(row["curve"]["true"], np.ones(3) / 3, mode="valid")
    return float(curve.max() - curve[-1])


def inflated(row: dict[str, Any]) -> float:
    """What the noisy judge pays in the end beyond the true reward."""
    return float(row["curve"]["paid"][-1] - final(row))


def steps(row: dict[str, Any]) -> float:
    """Steps of a rollout in the end."""
    return float(row["curve"]["steps"][-1])


class Cells:
    """The finished cells, and what they say of a set of settings."""

    def __init__(self, rows: Iterable[dict[str, Any]]):
        self.rows = [{"start": 0, **row} for row in rows]
        self.seeds = sorted({row["seed"] for row in self.rows})

    def such(self, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """The cells with these settings; without a cold start where none is named."""
        wanted = {"start": 0, **settings}
        return [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]

    def by_place(self, number: Number, **settings: Any) -> dict[tuple[object, ...], float]:
        """The number of each run with these settings, by its place: seed, group, simulator."""
        return {(row["seed"], row["group"], row["simulator"]): number(row) for row in self.such(settings)}

    def mean(self, number: Number, **settings: Any) -> str:
        """Mean ± half an interval."""
        return _told(list(self.by_place(number, **settings).values()))

    def difference(self, number: Number, one: dict[str, Any], other: dict[str, Any]) -> str:
        """Paired by place, one less the other."""
        first, second = self.by_place(number, **one), self.by_place(number, **other)
        return _told([first[place] - second[place] for place in first if place in second], signed=True)

    def curves(self, key: str, **settings: Any) -> np.ndarray:
        """[run, look]."""
        return np.array([[np.nan if x is None else x for x in row["curve"][key]] for row in self.such(settings)])


def _told(values: list[float], signed: bool = False) -> str:
    if not values:
        return "–"
    half = _half(np.array(values)[:, None])[0] if len(values) > 1 else float("nan")
    return f"{np.mean(values):+.3f} ± {half:.3f}" if signed else f"{np.mean(values):.3f} ± {half:.3f}"


def _half(values: np.ndarray) -> np.ndarray:
    n = len(values)
    if n < 2:
        return np.zeros(values.shape[1])
    half: np.ndarray = stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return half


def report(rows: list[dict[str, Any]], folder: Path) -> str:
    """Draw the figures and return the tables as Markdown."""
    found = Cells(rows)
    parts = [f"{len(rows)} cells, seeds {', '.join(map(str, found.seeds))}"]
    flips = sorted({row["flip"] for row in found.rows})
    groups = tuple(sorted({row["group"] for row in found.rows}))
    for title, number in (
        ("true reward after training", final),
        ("speed: mean true reward over the first 100 updates", early),
        ("collapse: best less last", lost),
        ("inflation: paid less true", inflated),
        ("steps of a rollout at the end", steps),
    ):
        rows_ = [[level, *(found.mean(number, level=level, flip=flip) for flip in flips)] for level in MAIN]
        if number in (final, early):
            for level in MAIN[1:]:
                differences = [
                    found.difference(number, {"level": level, "flip": flip}, {"level": MAIN[0], "flip": flip})
                    for flip in flips
                ]
                rows_.append([f"{level} − trajectory", *differences])
            against = [
                found.difference(number, {"level": "blend", "flip": flip}, {"level": "step", "flip": flip})
                for flip in flips
            ]
            rows_.append(["blend − step", *against])
        parts.append(_table(f"{title}, over all groups and both simulators", [f"flips {f:.0%}" for f in flips], rows_))
    for simulator in (False, True):
        rows_ = [
            [level, *(found.mean(final, level=level, flip=flip, simulator=simulator) for flip in flips)]
            for level in MAIN
        ]
        name = "on" if simulator else "off"
        parts.append(_table(f"true reward, simulator noise {name}", [f"flips {f:.0%}" for f in flips], rows_))
    rows_ = [
        [f"{level}, flips {flip:.0%}", *(found.mean(final, level=level, flip=flip, group=group) for group in groups)]
        for level in MAIN
        for flip in flips
    ]
    parts.append(_table("true reward by group", [f"G = {g}" for g in groups], rows_))
    rows_ = [[level, *(f"{_between(found, level, group):.3f}" for group in groups)] for level in MAIN]
    parts.append(_table("deviation of the end between seeds, mean over settings", [f"G = {g}" for g in groups], rows_))
    parts.append(_sides(found))
    parts.append(_cold(found, flips[1:]))
    folder.mkdir(parents=True, exist_ok=True)
    _curves(found, flips, folder / "granularity.png")
    _groups(found, groups, folder / "granularity-groups.png")
    _started(found, flips[1:], folder / "granularity-cold.png")
    return "\n\n".join(parts)


def _between(found: Cells, level: str, group: int) -> float:
    spread = []
    for flip in sorted({row["flip"] for row in found.rows}):
        for simulator in (False, True):
            values = list(found.by_place(final, level=level, flip=flip, group=group, simulator=simulator).values())
            if len(values) > 1:
                spread.append(float(np.std(values, ddof=1)))
    return float(np.mean(spread)) if spread else float("nan")


def _sides(found: Cells) -> str:
    pairs = [
        ("trajectory, std", "trajectory"),
        ("turn, std", "turn"),
        ("step, std", "step"),
        ("step, no back-filling", "step"),
        ("turn, survivors", "turn"),
        ("turn, to go", "turn"),
        ("turn, survivors, to go", "turn, to go"),
        ("blend, no flip rate", "trajectory"),
        ("blend, no flip rate", "step"),
        ("trajectory, flip rate", "trajectory"),
        ("turn, to go, flip rate", "turn, to go"),
        ("blend", "trajectory, flip rate"),
        ("blend", "blend, no flip rate"),
    ]
    rows = []
    for one, other in pairs:
        cells = [f"{one} − {other}"]
        for number in (early, final):
            for flip in (0.0, 0.15):
                place = {"flip": flip, "simulator": True, "group": 24}
                cells.append(found.difference(number, {"level": one, **place}, {"level": other, **place}))
        rows.append(cells)
    head = ["speed, flips 0", "speed, flips 15 %", "end, flips 0", "end, flips 15 %"]
    return _table("side questions, G = 24, simulator noise on, paired", head, rows)


def _cold(found: Cells, flips: list[float]) -> str:
    cold = max(row["start"] for row in found.rows)
    rows = []
    for title, number in (("start", begun), ("end", final), ("end less start", gained)):
        for level in (*MAIN, "blend, no flip rate"):
            rows.append([f"{title}, {level}", *(found.mean(number, level=level, flip=f, start=cold) for f in flips)])
    head = [f"flips {f:.0%}" for f in flips]
    return _table("from a cold start, G = 24, simulator noise on", head, rows) if cold else ""


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f"{title}:", "", "| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _curves(found: Cells, flips: list[float], file: Path) -> None:
    """True reward (top), and what the judge paid beyond it (below), by judge noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(flips), figsize=(11, 4.8), sharex=True, sharey="row", layout="constrained")
    for column, flip in enumerate(flips):
        for level in MAIN:
            _line(axes[0, column], found.curves("true", level=level, flip=flip), level)
            _line(axes[1, column], found.curves("paid", level=level, flip=flip), level)
        axes[0, column].set_title(f"{flip:.0%} of verdicts flipped", fontsize=9)
        axes[1, column].set_xlabel("updates", fontsize=8)
    axes[0, 0].set_ylabel("true reward", fontsize=8)
    axes[1, 0].set_ylabel("reward as judged", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    _finish(figure, axes, file)


def _groups(found: Cells, groups: tuple[int, ...], file: Path) -> None:
    """True reward at 15 % flips by group."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(groups), figsize=(8.5, 2.7), sharey=True, layout="constrained", squeeze=False)
    for column, group in enumerate(groups):
        for level in MAIN:
            _line(axes[0, column], found.curves("true", level=level, flip=0.15, group=group), level)
        axes[0, column].set_title(f"groups of {group}, 15 % flips", fontsize=9)
        axes[0, column].set_xlabel("updates", fontsize=8)
    axes[0, 0].set_ylabel("true reward", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    _finish(figure, axes, file)


def _started(found: Cells, flips: list[float], file: Path) -> None:
    """True reward from a cold start."""
    from matplotlib import pyplot

    cold = max(row["start"] for row in found.rows)
    figure, axes = pyplot.subplots(1, len(flips), figsize=(8.5, 2.7), sharey=True, layout="constrained", squeeze=False)
    for column, flip in enumerate(flips):
        for level in MAIN:
            _line(axes[0, column], found.curves("true", level=level, flip=flip, start=cold), level)
        axes[0, column].set_title(f"from a cold start, {flip:.0%} flips", fontsize=9)
        axes[0, column].set_xlabel("updates", fontsize=8)
    axes[0, 0].set_ylabel("true reward", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    _finish(figure, axes, file)


def _line(axis: Any, curves: np.ndarray, level: str) -> None:
    if not len(curves):
        return
    x, mean, half = np.arange(curves.shape[1]) * EVERY, curves.mean(axis=0), _half(curves)
    axis.plot(x, mean, color=COLOURS[level], label=level, linewidth=1.3)
    axis.fill_between(x, mean - half, mean + half, color=COLOURS[level], alpha=0.15, linewidth=0)


def _finish(figure: Any, axes: np.ndarray, file: Path) -> None:
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.set_ylim(0, 1.02)
        axis.tick_params(labelsize=7)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(file, dpi=110)
