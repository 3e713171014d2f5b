"""Build: from a run to its report file.

    source.find -> comparison, curves, timing, cases -> transcript -> page.render -> one file

Long runs are cut down, and the page says to what: a number of dialogues, long texts, and, where the file would still
become too large, fewer dialogues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import ConfigError, DataError, Where
from cm2.formats.target import replacing
from cm2.report.cases import Chooser
from cm2.report.comparison import Group, differences, groups
from cm2.report.curves import trainings
from cm2.report.page import Page, Section, Tile, compact, duration, render, signed
from cm2.report.source import METRICS, Curve, Source, find, is_number
from cm2.report.tally import tally
from cm2.report.text import visible
from cm2.report.timing import splits
from cm2.report.transcript import view

LARGEST = 5_000_000
"""Bytes of the file."""
SHOWN_PROBLEMS = 20


class ReportConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to report on, where to, and how much of it."""

    run: str
    """A run folder (demo, study, sft, rl, evaluate), or one file of rollouts or labelled dialogues."""
    output: str
    """The HTML file; it is replaced at once or not at all."""
    dialogues: int = 24
    """Tasks that are shown side by side. More make the file larger, up to its limit of 5 MB."""

    def __post_init__(self) -> None:
        if self.dialogues < 0:
            raise ConfigError(f"dialogues is {self.dialogues}", fix="use a number from 0 up")


class Summary(msgspec.Struct):
    """What the report holds."""

    output: str
    headline: str
    bytes: int
    evaluations: int
    trainings: int
    dialogues: int
    dialogues_available: int
    absent: list[str]
    problems: list[str]


def write_report(config: ReportConfig) -> Summary:
    """Write the report of a run.

    Raises:
        DataError: there is no such run, or nothing in it.
        ConfigError: the output lies where the run keeps its data.
    """
    root = Path(config.run)
    output = Path(config.output)
    if output.is_dir() or (output.exists() and root.exists() and output.samefile(root)):
        raise ConfigError(f"{output} cannot be the report", fix="give -o the name of an HTML file")
    source = find(root)
    page, html = build(source, root, config.dialogues)
    _write(output, html)
    shown = sum(len(section.cases) for section in page.sections)
    return Summary(
        output=str(output),
        headline=page.headline,
        bytes=len(html),
        evaluations=len(source.evals),
        trainings=len(source.curves),
        dialogues=shown,
        dialogues_available=sum(section.available for section in page.sections),
        absent=page.absent,
        problems=source.problems,
    )


def build(source: Source, root: Path, dialogues: int) -> tuple[Page, bytes]:
    """The page and its HTML, with as many dialogues as are asked for and fit."""
    chooser = Chooser(source, root)
    tally(source, root)
    if not (source.curves or any(chooser.available.values()) or any(one.summary for one in source.evals)):
        problem = source.problems[0] if source.problems else "it is empty"
        raise DataError(f"nothing in it reads as a rollout or dialogue: {problem}", where=Where(file=str(root)))
    compared = groups(source.evals)
    page = Page(
        name=visible(source.name),
        headline=headline(source, compared),
        tiles=_tiles(source, compared),
        groups=compared,
        differences=differences(source),
        trainings=trainings(source.curves),
        splits=splits(source),
        stages=[(visible(name), seconds) for name, seconds in source.stages],
        sections=[],
        settings=[(visible(name), _flat(config)) for name, config in source.settings],
        absent=[visible(text) for text in source.absent],
        problems=[visible(text) for text in source.problems[:SHOWN_PROBLEMS]],
        problems_left_out=max(0, len(source.problems) - SHOWN_PROBLEMS),
    )
    wanted = dialogues
    while True:
        cases = [view(case, f"d{number}") for number, case in enumerate(chooser.choose(wanted))]
        page.sections = [
            Section(visible(name), available, [case for case in cases if case.section == name])
            for name, available in chooser.available.items()
        ]
        html = render(page).encode()
        if len(html) <= LARGEST or wanted == 0:
            return page, html
        wanted = min(wanted - 1, len(cases) * LARGEST // len(html))
        page.capped = f"Only {wanted} dialogues are shown, because the file would be larger than {LARGEST:,} bytes."


def headline(source: Source, compared: list[Group]) -> str:
    """The run's own verdict, or the numbers of the first comparison where it has none."""
    said = source.summary.get("verdict")
    if isinstance(said, str) and said.strip():
        return visible(said.strip())
    for group in compared:
        for name, values in group.metrics:
            told = [
                f"{agent} {value.mean:.3f}"
                for agent, value in zip(group.agents, values, strict=True)
                if value is not None
            ]
            if told:
                return f"{name[0].upper()}{name[1:]}, {group.title}: {', '.join(told)}."
    trained = [f"{curve.name} ({len(curve.rows)} steps)" for curve in source.curves]
    if trained:
        return visible(f"Training of {', '.join(trained)}; nothing was evaluated yet.")
    return "There are dialogues, but nothing in them was judged."


def _tiles(source: Source, compared: list[Group]) -> list[Tile]:
    tiles = []
    for group in compared[:2]:
        for name, values in group.metrics[: len(METRICS) if group is compared[0] else 1]:
            known = [(agent, value) for agent, value in zip(group.agents, values, strict=True) if value is not None]
            if not known:
                continue
            agent, after = known[-1]
            note = agent
            if len(known) > 1:
                before = known[-2]
                note += f", {signed(after.mean - before[1].mean)} from {before[0]}"
            tiles.append(Tile(f"{name}, {group.title}", f"{after.mean:.3f}", after.mean, note))
    for curve in source.curves:
        tokens = sum(row["tokens_generated"] for row in curve.rows if is_number(row.get("tokens_generated")))
        note = f"{compact(tokens)} tokens generated" if tokens else f"in {duration(_seconds(curve))}"
        tiles.append(Tile(f"{visible(curve.name)} steps", f"{len(curve.rows):,}", float(len(curve.rows)), note))
    seconds = source.summary.get("seconds")
    if not is_number(seconds) and source.stages:
        seconds = sum(spent for _, spent in source.stages)
    if is_number(seconds):
        tiles.append(Tile("time", duration(seconds), float(seconds), "the whole run"))
    dropped = sum(
        count for one in source.evals if isinstance(one.summary.get("failures"), dict)
        for count in one.summary["failures"].values() if is_number(count)
    )  # fmt: skip
    if any("failures" in one.summary for one in source.evals):
        tiles.append(Tile("dropped rollouts", f"{dropped:,}", float(dropped), "failed in evaluations; never scored 0"))
    return tiles


def _seconds(curve: Curve) -> float:
    return sum(float(row["seconds"]) for row in curve.rows if is_number(row.get("seconds")))


def _flat(config: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{before}{key}.")
        else:
            name, _, shown = visible(f"{before}{key}={visible(value)}").partition(
                "="
            )  # a key by its name is hidden too
            rows.append((name, shown))
    return rows


def _write(output: Path, html: bytes) -> None:
    with replacing(output) as draft:
        draft.write_bytes(html)
