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
from cm2.report.page import Tile, compact, duration, fill
from cm2.report.panels import Line, Panel, benchmark_panels, line_of, panel
from cm2.report.source import is_number
from cm2.report.text import visible
from cm2.train.alarms import Alarming, history
from cm2.train.benchmarks import FILE as BENCHMARKS
from cm2.train.benchmarks import Point, read_points
from cm2.train.best import Look, read_looks
from cm2.train.reproduce import FILE, Record, command_of, differences, read, shown

QUIET = 600.0
"""Seconds without a step after which a run that has not finished is called silent."""
_ROLES = ("run2", "run1", "run3", "run4", "run5", "run0")
_SECTIONS: tuple[tuple[str, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]], ...] = (
    (
        "Policy",
        (
            ("entropy", (("entropy", "entropy"),)),
            ("KL to the start", (("kl", "KL"),)),
            ("clipped share", (("clip_ratio", "clipped"),)),
            ("gradient norm", (("grad_norm", "gradient norm"),)),
            ("loss", (("loss", "loss"),)),
            ("learning rate", (("lr", "learning rate"),)),
        ),
    ),
    (
        "Length and format",
        (
            ("tokens a rollout", (("length", "tokens"),)),
            ("steps a rollout", (("steps", "steps"),)),
            ("cut off at a limit", (("truncated_share", "share"),)),
            ("calls that do not parse", (("malformed", "share"),)),
        ),
    ),
    (
        "Judging",
        (
            ("items unscored", (("unscored", "share"),)),
            ("failed rollouts", (("failures", "rollouts"),)),
            ("agreement with the gold judge", (("judge_agreement", "share"),)),
            ("training and gold judge", (("gold_training", "training"), ("gold_reward", "gold"))),
            ("paid and held-out items", (("hold_out_training", "paid"), ("hold_out_reward", "held out"))),
            ("canaries answered wrongly", (("canary_rate", "must stay no"), ("given_rate", "must be yes"))),
        ),
    ),
    (
        "Signal",
        (
            ("dead groups", (("dead_groups", "share"),)),
            ("deviation of rewards", (("reward_std", "deviation"),)),
            ("groups stopped early", (("groups_stopped_early", "groups"),)),
        ),
    ),
    (
        "Speed",
        (
            ("seconds a step", (("seconds", "step"), ("seconds_rollout", "rollouts"), ("seconds_judge", "judging"))),
            ("tokens generated", (("tokens_generated", "tokens"),)),
            ("tokens computed in training", (("tokens_trained", "tokens"),)),
        ),
    ),
)  # fmt: skip
_TOLD = {metric for _, panels in _SECTIONS for _, lines in panels for metric, _ in lines}
_ELSEWHERE = {
    *("step", "reward", "strict_pass", "outcome", "rollouts", "groups_without_signal", "truncated", "generation"),
    *("probe", "tokens_shown", "best_step"),
}


class Raised(msgspec.Struct):
    """An alarm, as the page shows it."""

    step: int
    sign: str
    reason: str
    recorded: bool
    """The run said it; else the report saw it."""


class Section(msgspec.Struct):
    """Charts that belong together."""

    name: str
    panels: list[Panel]


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
    draft = output.with_name(f".{output.name}.tmp")
    draft.write_bytes(html)
    draft.replace(output)
    latest = {name: _latest(rows, name) for name in ("reward", "strict_pass", "outcome", "entropy", "kl")}
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
        headline=_headline(rows, found, best, state),
        tiles=_tiles(rows, looks, best, config, state),
        warnings=found,
        sections=sections(rows, looks, marks, read_points(folder / BENCHMARKS)),
        looks=looks,
        best=best,
        command=visible(shown(command_of(folder))) if record else "",
        sessions=_sessions(record),
        facts=_facts(record),
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


def warnings(rows: Sequence[dict[str, Any]], config: dict[str, Any]) -> list[Raised]:
    """What was put on record, and what the numbers give when one looks now, newest first."""
    found, said = [], set()
    for row in rows:
        for reason in filter(None, str(row.get("alarm") or "").split("; ")):
            sign, _, rest = reason.partition(": ")
            known = sign in ("reward", "collapse", "kl", "length", "format", "gaming", "heldout")
            found.append(Raised(int(row["step"]), sign if known else "judge", visible(rest if known else reason), True))
            said.add((int(row["step"]), sign))
    names = [name for name in Alarming.__struct_fields__ if f"alarms.{name}" in config]
    alarming = msgspec.convert({name: config[f"alarms.{name}"] for name in names}, Alarming)
    moving = config.get("gate", "ends") != "ends" and bool(config.get("curriculum"))
    for alarm in history(rows, alarming, moving):
        if (alarm.step, alarm.sign) not in said:
            found.append(Raised(alarm.step, alarm.sign, alarm.reason, False))
    return sorted(found, key=lambda one: -one.step)


def sections(
    rows: Sequence[dict[str, Any]], looks: Sequence[Look], marks: Sequence[float], points: Sequence[Point] = ()
) -> list[Section]:
    """All charts, those first that say most."""

    def drawn(title: str, lines: Sequence[tuple[str, str]]) -> Panel | None:
        return panel(title, [line_of(rows, metric, name, role) for (metric, name), role in zip(lines, _ROLES)], marks)  # noqa: B905

    def small(prefix: str) -> list[Panel | None]:
        names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
        return [drawn(name.removeprefix(prefix), [(name, name.removeprefix(prefix))]) for name in names]

    reward = [
        drawn("training reward", [("reward", "reward"), ("strict_pass", "strict pass"), ("outcome", "true outcome")]),
        _heldout(looks, marks),
    ]
    known = {name for row in rows for name, value in row.items() if is_number(value)}
    others = sorted(
        name
        for name in known - _TOLD - _ELSEWHERE
        if not name.startswith(
            ("seconds", "benchmark/", "duty/", "domain/", "heldout_", "llm_", "gold_", "canar", "given")
        )
    )
    wanted: list[tuple[str, list[Panel | None]]] = [
        ("Reward", reward),
        ("Benchmarks", benchmark_panels(points, marks)),
        ("Reward by duty", small("duty/")),
        ("Reward by domain", small("domain/")),
        *((name, [drawn(title, lines) for title, lines in panels]) for name, panels in _SECTIONS),
        ("Other numbers", [drawn(name.replace("_", " "), [(name, name)]) for name in others]),
    ]
    filled = [(name, [one for one in panels if one is not None]) for name, panels in wanted]
    return [Section(name, panels) for name, panels in filled if panels]


def _heldout(looks: Sequence[Look], marks: Sequence[float]) -> Panel | None:
    if not looks:
        return None
    line = Line(
        "held-out reward", "run2", [float(one.step) for one in looks], [one.reward for one in looks],
        [one.reward if one.low is None else one.low for one in looks],
        [one.reward if one.high is None else one.high for one in looks],
    )  # fmt: skip
    return panel("held-out reward", [line], marks, f"mean of {len(looks[-1].tasks)} tasks with its 95 % interval")


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
    usual = _latest(rows, "seconds") or 0.0
    return f"{'silent' if ago > max(QUIET, 5 * usual) else 'running'}: {last}, {duration(ago)} ago"


def _headline(rows: Sequence[dict[str, Any]], found: Sequence[Raised], best: Look | None, state: str) -> str:
    first, last = _earliest(rows, "reward"), _latest(rows, "reward")
    told = "" if first is None or last is None else f"Reward {first:.3f} → {last:.3f} in {len(rows)} steps"
    if best is not None:
        told += f"; best on held-out tasks: {'the start' if best.step == 0 else f'step {best.step}'}, {best.reward:.3f}"
    if found:
        latest = max(one.step for one in found)
        told += f"; {len(found)} alarm{'s' if len(found) > 1 else ''}, the last at step {latest}"
    else:
        told += "; no alarm"
    return told or state


def _tiles(
    rows: Sequence[dict[str, Any]], looks: Sequence[Look], best: Look | None, config: dict[str, Any], state: str
) -> list[Tile]:
    tiles = []
    for metric, label in (
        ("reward", "training reward"),
        ("strict_pass", "strict pass"),
        ("outcome", "true outcome"),
        ("entropy", "entropy"),
        ("kl", "KL to the start"),
        ("unscored", "items unscored"),
        ("dead_groups", "dead groups"),
        ("length", "tokens a rollout"),
    ):
        first, last = _earliest(rows, metric), _latest(rows, metric)
        if first is not None and last is not None:
            digits = 0 if metric == "length" else 3
            tiles.append(Tile(label, f"{last:.{digits}f}", last, f"from {first:.{digits}f}"))
    if best is not None:
        start = looks[0]
        note = f"step {best.step}" if best.step else "the start: nothing was better beyond noise"
        note += f", start {start.reward:.3f}, last {looks[-1].reward:.3f}"
        tiles.insert(min(3, len(tiles)), Tile("best held-out reward", f"{best.reward:.3f}", best.reward, note))
    seconds = sum(float(row["seconds"]) for row in rows if is_number(row.get("seconds")))
    tokens = sum(row["tokens_generated"] for row in rows if is_number(row.get("tokens_generated")))
    note = f"{compact(tokens)} tokens generated" if tokens else "training"
    if not state.startswith("finished") and config.get("updates") and rows:
        left = max(0, int(config["updates"]) - int(rows[-1]["step"])) * seconds / len(rows)
        note += f"; about {duration(left)} left"
    tiles.append(Tile("time", duration(seconds), seconds, note))
    return tiles


def _earliest(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    known = [float(row[metric]) for row in rows if is_number(row.get(metric))]
    part = known[: max(1, len(known) // 10)]
    return sum(part) / len(part) if part else None


def _latest(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    known = [float(row[metric]) for row in rows if is_number(row.get(metric))]
    part = known[-max(1, len(known) // 10) :]
    return sum(part) / len(part) if part else None


def _sessions(record: Record | None) -> list[tuple[str, str, str]]:
    if record is None:
        return []
    return [
        (
            visible(one.began),
            f"from step {one.resumed_from}" if one.resumed_from else "from the start",
            visible("; ".join(differences(record.first, one))) if one is not record.first else "",
        )
        for one in record.sessions
    ]


def _facts(record: Record | None) -> list[tuple[str, str]]:
    if record is None or not record.sessions:
        return []
    parts = [("settings", record.config_hash), *((f"input {name}", value) for name, value in record.inputs.items())]
    parts += [(f"seed {name}", str(value)) for name, value in record.seeds.items()]
    for group in (record.first.versions, record.first.machine, record.first.environment):
        parts += list(group.items())
    return [(visible(name), visible(value)) for name, value in parts]
