"""Comparison: what changed between the agents, in numbers and one chart: metrics, item kinds, differences.

Evaluations that share a split and a mode are compared; the last of them in the usual order (start, sft, rl) is "after",
the one before it "before". Numbers are those of the files, never computed anew where a file has them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup
from matplotlib.figure import Figure

from cm2.report.cases import section_name
from cm2.report.source import METRICS, Eval, Interval, Source, interval, is_number, role
from cm2.report.svg import COLOURS, inline, settings
from cm2.report.text import visible

NAMES = {"reward": "checklist reward", "strict_pass": "strict pass", "outcome": "true outcome"}

FACTS = {
    "model": "model",
    "tasks": "tasks",
    "rollouts": "rollouts",
    "valid": "valid rollouts",
    "generated_tokens": "generated tokens",
    "reasons": "ended by",
    "failures": "dropped, by owner",
}


class Kind(msgspec.Struct):
    """One kind of item: what share each agent satisfied (None: no such item was decided)."""

    name: str
    shares: list[float | None]
    counts: list[dict[str, int]]


class Group(msgspec.Struct):
    """The evaluations of one split and mode, side by side."""

    title: str
    agents: list[str]
    roles: list[str]
    evals: list[Eval]
    metrics: list[tuple[str, list[Interval | None]]]
    kinds: list[Kind]
    facts: list[tuple[str, list[str]]]
    chart: Markup

    @property
    def intervals(self) -> bool:
        """Whether any metric has a confidence interval."""
        return any(value is not None and value.low is not None for _, values in self.metrics for value in values)


class Difference(msgspec.Struct):
    """One row of the comparison that the run itself made."""

    split: str
    mode: str
    metric: str
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None

    @property
    def clear(self) -> str:
        """up or down where the interval excludes zero, else open."""
        if self.low is None or self.high is None:
            return "open"
        return "up" if self.low > 0 else "down" if self.high < 0 else "open"


def groups(evals: list[Eval]) -> list[Group]:
    """The evaluations that have a summary, by place, split and mode."""
    found: dict[tuple[str, str, str], list[Eval]] = {}
    for one in evals:
        if one.summary:
            found.setdefault((one.place, one.split, one.mode), []).append(one)
    return [_group(visible(section_name(*key)), members) for key, members in found.items()]


def differences(source: Source) -> list[Difference]:
    """The run's own comparison, row by row; what is no number is left open."""
    rows = source.summary.get("comparison")
    return [_difference(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _difference(row: dict[str, Any]) -> Difference:
    def told(name: str) -> float | None:
        found = interval(row.get(name))
        return None if found is None else found.mean

    return Difference(
        split=visible(row.get("split") or ""),
        mode=visible(row.get("mode") or ""),
        metric=NAMES.get(str(row.get("metric")), visible(row.get("metric") or "")),
        before=told("before"),
        after=told("after"),
        difference=told("difference"),
        low=told("low"),
        high=told("high"),
        p=told("p"),
    )


def _group(title: str, evals: list[Eval]) -> Group:
    agents = [visible(one.name) for one in evals]
    roles = [role(one.name, index) for index, one in enumerate(evals)]
    metrics = [(NAMES[name], [one.metric(name) for one in evals]) for name in METRICS]
    metrics = [(name, values) for name, values in metrics if any(value is not None for value in values)]
    chart = _draw(title, agents, roles, metrics) if metrics else Markup("")
    return Group(title, agents, roles, evals, metrics, _kinds(evals), _facts(evals), chart)


def _kinds(evals: list[Eval]) -> list[Kind]:
    tallies: list[Any] = [
        one.summary.get("kinds") if isinstance(one.summary.get("kinds"), dict) else {} for one in evals
    ]
    names = sorted({name for tally in tallies for name in tally})
    kinds = []
    for name in names:
        counts = [_counts(tally.get(name)) for tally in tallies]
        kinds.append(Kind(visible(name) or "(no kind)", [_share(count) for count in counts], counts))
    return kinds


def _counts(tally: Any) -> dict[str, int]:
    tally = tally if isinstance(tally, dict) else {}
    names = ("items", "passed", "failed", "unscored")
    return {name: int(tally[name]) if is_number(tally.get(name)) else 0 for name in names}


def _share(count: dict[str, int]) -> float | None:
    decided = count["passed"] + count["failed"]
    return count["passed"] / decided if decided else None


def _facts(evals: list[Eval]) -> list[tuple[str, list[str]]]:
    rows = []
    for key, name in FACTS.items():
        values = [one.summary.get(key) for one in evals]
        if any(value not in (None, {}, "") for value in values):
            rows.append((name, [_fact(value) for value in values]))
    return rows


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{visible(key)} {visible(count)}" for key, count in value.items()) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return visible(value) or "–"


def _draw(title: str, agents: list[str], roles: list[str], metrics: list[tuple[str, list[Interval | None]]]) -> Markup:
    """Every metric a band, every agent a dot with its interval, on one axis from 0 to 1."""
    rows = len(metrics) * (len(agents) + 0.9)
    with settings():
        height = 0.5 + 0.26 * rows
        figure = Figure(figsize=(7.2, height))
        axes = figure.add_axes((0.19, 0.32 / height, 0.77, 1 - 0.36 / height))
        axes.grid(False, axis="y")
        y, ticks, labels = 0.0, [], []
        highest = 1.0
        for name, values in metrics:
            ticks.append(y + (len(agents) - 1) / 2)
            labels.append(name)
            for index, value in enumerate(values):
                if value is not None:
                    colour = COLOURS[roles[index]]
                    low, high = value.low, value.high
                    if low is not None and high is not None:
                        axes.plot([low, high], [y, y], color=colour, linewidth=2.5, alpha=0.45, solid_capstyle="round")
                    axes.plot([value.mean], [y], "o", color=colour, markersize=7)
                    edge = value.mean if high is None else max(high, value.mean)
                    text = f"{agents[index][:24]} {value.mean:.3f}"
                    inside = edge < 0.8
                    place = edge + 0.015 if inside else min(value.mean, low if low is not None else value.mean) - 0.015
                    axes.text(place, y, text, va="center", ha="left" if inside else "right", fontsize=9)
                    highest = max(highest, edge)
                y += 1
            y += 0.9
        axes.set_ylim(y - 1.2, -0.7)
        axes.set_xlim(-0.02, highest + 0.02)
        axes.set_yticks(ticks, labels, fontsize=10)
        for label in axes.get_yticklabels():
            label.set_color(COLOURS["ink"])
        axes.tick_params(axis="x", labelsize=9)
        axes.spines["left"].set_visible(False)
        return inline(figure, f"{title}: metrics of {', '.join(agents)} with confidence intervals")
