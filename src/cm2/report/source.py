"""Source: what a run folder holds, found by looking, with a sentence for everything that is missing.

Any part of a run can be reported on: the folder of a whole demo or study, an SFT, RL or evaluation folder, or one file
of rollouts or labelled dialogues. What does not read costs itself, not the report, and is told on the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import open_rows, parse, read_lines

KNOWN = ("start", "base", "sft", "rl")
"""The order of the usual evaluations; others follow by name."""
METRICS = ("reward", "strict_pass", "outcome")
COLOURS = 6
"""Colours for agents; more share them."""


class Interval(msgspec.Struct, frozen=True):
    """A number with its confidence interval, where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None


class Eval(msgspec.Struct, kw_only=True):
    """One evaluation: a model on one split in one mode."""

    name: str
    place: str = ""
    """The folder around it, where a run holds several (the seeds of a study)."""
    split: str = ""
    mode: str = ""
    summary: dict[str, Any] = {}
    rollouts: Path | None = None

    def metric(self, name: str) -> Interval | None:
        """A metric of the summary, or None where it was not measured."""
        return interval(self.summary.get(name))


class Curve(msgspec.Struct):
    """The metrics of one training: a dictionary a step."""

    name: str
    rows: list[dict[str, Any]]


class Source(msgspec.Struct, kw_only=True):
    """Everything that was found."""

    name: str
    summary: dict[str, Any] = {}
    evals: list[Eval] = []
    curves: list[Curve] = []
    steps: list[Path] = []
    """Files of training rollouts, in order."""
    stages: list[tuple[str, float]] = []
    settings: list[tuple[str, dict[str, Any]]] = []
    absent: list[str] = []
    problems: list[str] = []


def find(run: Path) -> Source:
    """Look through a run folder, or take one file of rollouts or labelled dialogues.

    Raises:
        DataError: there is no such path, or nothing in it that could be reported on.
    """
    where = Where(file=str(run))
    if not run.exists():
        raise DataError(
            "there is no such file or folder",
            where=where,
            fix="name a run folder or a file of rollouts or labelled dialogues",
        )
    source = Source(name=run.resolve().name)
    if run.is_file():
        source.evals = [Eval(name=run.name.split(".")[0], rollouts=run)]
        source.absent.append("The report is on one file: there are no evaluation summaries and no learning curves.")
        return source
    _read_summaries(run, source)
    for path in sorted(run.rglob("metrics.jsonl")):
        rows = list(read_objects(path, run, source.problems))
        if rows:
            source.curves.append(Curve(_place(path.parent, run) or source.name, rows))
    source.curves.sort(key=lambda curve: (KNOWN.index(curve.name) if curve.name in KNOWN else len(KNOWN), curve.name))
    source.steps = sorted(run.rglob("rollouts/step-*.jsonl"))
    source.stages = _stages(run, source)
    for path in sorted(run.rglob("config.json")):
        if (path.parent / "metrics.jsonl").exists():
            config = _read_json(path, run, source.problems)
            if config:
                source.settings.append((_place(path.parent, run) or source.name, config))
    if not (source.evals or source.curves or source.steps):
        raise DataError(
            "holds nothing to report on (no metrics.jsonl, no evaluation, no rollouts)",
            where=where,
            fix="name the folder that cm2 sft, rl, evaluate or demo wrote, or a file of rollouts",
        )
    _tell_absent(source)
    return source


def interval(value: Any) -> Interval | None:
    """A plain number, or {"mean", "low", "high"}, as an interval; None for anything else."""
    if is_number(value):
        return Interval(float(value))
    if isinstance(value, dict) and is_number(value.get("mean")):
        low, high = value.get("low"), value.get("high")
        if is_number(low) and is_number(high):
            return Interval(float(value["mean"]), float(low), float(high))
        return Interval(float(value["mean"]))
    return None


def role(name: str, index: int) -> str:
    """The colour of the agent at `index` of a comparison: start, sft and rl always have theirs."""
    fixed = {"start": 0, "base": 0, "sft": 1, "rl": 2}
    return f"run{fixed.get(name, 3 + index % (COLOURS - 3))}"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_objects(path: Path, root: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; what does not read goes to `problems`."""
    for number, line, fault in lines(path, root, problems):
        value, error = (None, fault) if fault else parse(line)
        if error or not isinstance(value, dict):
            problems.append(told(path, root, number, error or "no JSON object"))
        else:
            yield value


def told(path: Path, root: Path, line: int, message: str) -> str:
    """What is wrong with a line, as the page says it."""
    return f"{_place(path, root) or path.name}, line {line}: {message}"


def lines(path: Path, root: Path, problems: list[str]) -> Iterator[tuple[int, bytes, str | None]]:
    """The non-empty lines of a file (plain, gzip, zstd) with their number; an empty file has none and is told."""
    try:
        with open_rows(str(path)) as (kind, file):
            if kind != "lines":
                problems.append(f"{_place(path, root) or path.name}: is {kind}, not JSON lines")
                return
            for number, line, fault in read_lines(file):
                if fault or line.strip():
                    yield number, line, fault
    except DataError as error:
        problems.append(f"{_place(path, root) or path.name}: {error.message}")


def _place(path: Path, root: Path) -> str:
    place = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return "" if place == "." else place


def _read_json(path: Path, root: Path, problems: list[str]) -> dict[str, Any]:
    value, error = parse(path.read_bytes())
    if error or not isinstance(value, dict):
        problems.append(f"{_place(path, root)}: {error or 'no JSON object'}")
        return {}
    return value


def _read_summaries(run: Path, source: Source) -> None:
    for path in sorted({p.parent for name in ("summary.json", "rollouts.jsonl") for p in run.rglob(name)}):
        summary: dict[str, Any] = {}
        if (path / "summary.json").exists():
            summary = _read_json(path / "summary.json", run, source.problems)
        rollouts = path / "rollouts.jsonl" if (path / "rollouts.jsonl").exists() else None
        if rollouts is None and not ("reward" in summary or "kinds" in summary):
            source.summary = summary if path == run else source.summary
            continue
        split, mode = str(summary.get("split") or ""), str(summary.get("mode") or "")
        parts = list(path.relative_to(run).parts[:-1])
        if parts and parts[-1] == "eval":
            parts.pop()
        name = str(summary.get("name") or path.resolve().name)
        short = "-".join(part for part in name.split("-") if part not in (split, mode))
        source.evals.append(
            Eval(name=short or name, place="/".join(parts), split=split, mode=mode, summary=summary, rollouts=rollouts)
        )
    source.evals.sort(key=_order)


def _order(found: Eval) -> tuple[Any, ...]:
    splits, modes = ("heldout", "unseen", ""), ("greedy", "sampled", "")
    return (
        found.place,
        *(known.index(value) if value in known else len(known)
          for value, known in ((found.split, splits), (found.mode, modes), (found.name, KNOWN))),
        found.split, found.mode, found.name,
    )  # fmt: skip


def _stages(run: Path, source: Source) -> list[tuple[str, float]]:
    """Seconds by stage: what the summary says, else the stages' own records."""
    given = source.summary.get("stages")
    rows: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        rows = list(given.items())
    elif isinstance(given, list):
        rows = [(row.get("name", row.get("stage")), row.get("seconds")) for row in given if isinstance(row, dict)]
    if not rows:
        for path in sorted((run / "stages").glob("*.json")):
            rows.append((path.stem, _read_json(path, run, source.problems).get("seconds")))
    return [(str(name), float(seconds)) for name, seconds in rows if is_number(seconds)]


def _tell_absent(source: Source) -> None:
    names = {found.name for found in source.evals}
    if not source.summary.get("verdict"):
        source.absent.append("No summary.json with a verdict: the headline states the numbers only.")
    if not source.summary.get("comparison"):
        source.absent.append("No comparison in summary.json: differences are shown without a test of significance.")
    if not source.evals:
        source.absent.append("No evaluation (eval/NAME/summary.json): there is no before and after.")
    for name in ("start", "sft", "rl"):
        if names & set(KNOWN) and name not in names:
            source.absent.append(f"No evaluation named {name}: its column is left out.")
    for found in source.evals:
        if found.rollouts is None:
            label = " ".join(filter(None, (found.place, found.name, found.split, found.mode)))
            source.absent.append(f"No rollouts.jsonl beside the evaluation {label}: its dialogues are not shown.")
    if not source.curves:
        source.absent.append("No metrics.jsonl: there are no learning curves.")
    elif len(source.curves) == 1 and source.curves[0].name in ("sft", "rl"):
        other = "rl" if source.curves[0].name == "sft" else "sft"
        source.absent.append(f"No {other}/metrics.jsonl: its learning curves are left out.")
    if not source.steps:
        source.absent.append("No rollouts/step-*.jsonl: training groups are not shown.")
