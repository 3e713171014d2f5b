"""Dashboard: one training run on one page, while it goes on or after it.

    RUN/config.json, metrics.jsonl, heldout.jsonl, reproduce.json, done.json  →  Dashboard  →  dashboard.html

It reads what the run's folder holds at that moment and takes no lock, so it may be called as often as one likes. Alarms
are those that the run put on record and, for runs that looked for none, those that its numbers give when one looks now.
What a run did not record has no chart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import DataError, Where
from cm2.formats.target import replacing
from cm2.report.dashboard_charts import Section, sections
from cm2.report.dashboard_told import Raised, facts_of, headline_of, last_tenth, sessions_of, tiles_of, warnings
from cm2.report.page import Tile, duration, fill
from cm2.report.source import is_number
from cm2.report.text import visible
from cm2.train.benchmarks import FILE as BENCHMARKS
from cm2.train.benchmarks import read_points
from cm2.train.best import Look, read_looks
from cm2.train.reproduce import FILE, command_of, read, shown

QUIET = 600.0
"""Seconds without a step after which a run that has not finished is called silent."""


class Dashboard(msgspec.Struct, kw_only=True):
    """Everything that stands on the page."""

    name: str
    state: str
    headline: str
    tiles: list[Tile]
    warnings: list[Raised]
    sections: list[Section]
    looks: list[Look]
    best: Look | None
    command: str
    sessions: list[tuple[str, str, str]]
    """When, from which step, and what differed from the first."""
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    problems: list[str]


class Summary(msgspec.Struct):
    """What the command tells."""

    output: str
    run: str
    state: str
    steps: int
    reward: float | None
    strict_pass: float | None
    outcome: float | None
    entropy: float | None
    kl: float | None
    best_step: int | None
    best_heldout_reward: float | None
    alarms: list[str]
    problems: list[str]


def is_training(folder: Path) -> bool:
    """Whether a folder is that of one training run."""
    return (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file()


def write_dashboard(folder: Path, output: Path | None = None) -> tuple[Dashboard, Summary]:
    """Write the page of a training run; RUN/dashboard.html where no name is given.

    Raises:
        DataError: the folder is no training run's, or no step of it is on record yet.
    """
    output = output or folder / "dashboard.html"
    page, rows = build(folder)
    html = fill("dashboard.html.jinja", ["report.css"], ["theme.js"], [], page=page).encode()
    with replacing(output) as draft:
        draft.write_bytes(html)
    latest = {name: last_tenth(rows, name) for name in ("reward", "strict_pass", "outcome", "entropy", "kl")}
    summary = Summary(
        output=str(output),
        run=str(folder),
        state=page.state,
        steps=len(rows),
        best_step=page.best.step if page.best else None,
        best_heldout_reward=page.best.reward if page.best else None,
        alarms=[f"step {one.step}: {one.sign}: {one.reason}" for one in page.warnings],
        problems=page.problems,
        **latest,
    )
    return page, summary


def build(folder: Path) -> tuple[Dashboard, list[dict[str, Any]]]:
    """The page and the rows that it was made of."""
    if not is_training(folder):
        raise DataError(
            "is no training run's folder", where=Where(file=str(folder)), fix="name the -o of cm2 rl or sft"
        )
    problems: list[str] = []
    rows = derived(_rows(folder / "metrics.jsonl", problems))
    if not rows:
        raise DataError("no step is on record yet", where=Where(file=str(folder)), fix="try again after the first step")
    claimed = msgspec.json.decode((folder / "config.json").read_bytes())
    config: dict[str, Any] = claimed.get("config", {})
    looks = read_looks(folder / "heldout.jsonl")
    best = next((look for look in reversed(looks) if look.best), None)
    found = warnings(rows, config)
    marks = sorted({float(one.step) for one in found})
    state = _state(folder, rows, config)
    record = read(folder)
    page = Dashboard(
        name=visible(folder.resolve().name),
        state=state,
        headline=headline_of(rows, found, best, state),
        tiles=tiles_of(rows, looks, best, config, state),
        warnings=found,
        sections=sections(rows, looks, marks, read_points(folder / BENCHMARKS)),
        looks=looks,
        best=best,
        command=visible(shown(command_of(folder))) if record else "",
        sessions=sessions_of(record),
        facts=facts_of(record),
        settings=[(visible(name), visible(value)) for name, value in config.items()],
        problems=problems if record else [*problems, f"no {FILE}: the run was made by an earlier version"],
    )
    return page, rows


def derived(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of earlier versions with the shares that can be made of their counts."""
    for row in rows:
        rollouts = row.get("rollouts")
        if is_number(rollouts) and rollouts > 0:
            if is_number(row.get("tokens_generated")):
                row.setdefault("length", row["tokens_generated"] / rollouts)
            if is_number(row.get("truncated")):
                row.setdefault("truncated_share", row["truncated"] / rollouts)
    return rows


def _rows(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The steps on record; the line that is being written at this moment is left out."""
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            problems.append(f"metrics.jsonl, line {number}: {error}")
            continue
        row.setdefault("step", number)
        found.append(row)
    return found


def _state(folder: Path, rows: Sequence[dict[str, Any]], config: dict[str, Any]) -> str:
    if (folder / "done.json").exists():
        return "finished"
    ago = max(0.0, time.time() - (folder / "metrics.jsonl").stat().st_mtime)
    last = f"step {int(rows[-1]['step'])} of {config['updates']}" if config.get("updates") else f"step {len(rows)}"
    usual = last_tenth(rows, "seconds") or 0.0
    return f"{'silent' if ago > max(QUIET, 5 * usual) else 'running'}: {last}, {duration(ago)} ago"
