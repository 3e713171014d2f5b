"""Markdown: a comparison for a pull request. Names, ids and reasons of the data stand in code spans (see `code`)."""

from __future__ import annotations

from collections.abc import Iterator

from cm2.assure.compare_result import Comparison, DutyChange, Flip
from cm2.report.compare_text import (
    MARKS,
    called,
    headline,
    left_out,
    legend,
    metric_name,
    needed,
    p_value,
    percent,
    points,
    worth,
)
from cm2.report.markdown import code
from cm2.report.page import chance

FLIPS = 20
"""Duties of which a table names dialogues."""


def markdown(found: Comparison) -> str:
    """The comparison as Markdown."""
    return "\n".join(_lines(found)).rstrip() + "\n"


def _lines(found: Comparison) -> Iterator[str]:
    new, old = (f"{code(side.name)}{called(side.name, letter)}" for side, letter in ((found.b, "B"), (found.a, "A")))
    yield f"## {new} against {old}"
    yield ""
    yield headline(found)
    yield ""
    yield f"A: {found.a.runs:,} runs, {code(found.a.source)}. B: {found.b.runs:,} runs, {code(found.b.source)}."
    if found.metrics:
        yield from ["", "| | dialogues | A | B | B − A [95 %] | p | |", "|---|--:|--:|--:|--:|--:|---|"]
        for metric in found.metrics:
            one = metric.contrast
            rates = f"{percent(one.a)} | {percent(one.b)}"
            name = metric_name(metric)
            yield f"| {name} | {one.n:,} | {rates} | {points(one)} | {chance(one.p)} | {_told(metric.change)} |"
    if found.duties:
        yield ""
        yield "| duty | severity | dialogues | A | B | B − A [95 %] | better / worse | p | | would need |"
        yield "|---|---|--:|--:|--:|--:|--:|--:|---|--:|"
        shown, rest = worth(found)
        yield from map(_row, shown)
        if rest:
            yield f"\n{rest}"
        yield from _flips("Got worse", [(duty, duty.got_worse) for duty in shown])
        yield from _flips("Got better", [(duty, duty.got_better) for duty in shown])
    yield ""
    yield from (f"> {line}" for line in legend(found))
    if found.notes:
        yield ""
        yield from (f"- {code(note, 1000)}" for note in found.notes)


def _row(duty: DutyChange) -> str:
    one = duty.contrast
    severity = duty.severity or "–"
    if one is None:
        why = left_out(duty) or "never scored"
        why += f": {code(duty.why_unscored)}" if duty.why_unscored else ""
        return f"| {code(duty.duty)} | {severity} | 0 | – | – | – | – | – | not compared: {why} | – |"
    cells = [code(duty.duty), severity, f"{one.n:,}", percent(one.a), percent(one.b), points(one)]
    cells += [f"{one.better} / {one.worse}", p_value(duty), _told(duty.change), needed(duty)]
    return f"| {' | '.join(cells)} |"


def _told(change: str) -> str:
    shown = f"{MARKS[change]} {change}"
    return f"**{shown}**" if change in ("better", "worse") else shown


def _flips(title: str, flips: list[tuple[DutyChange, list[Flip]]]) -> Iterator[str]:
    flips = [(duty, mine) for duty, mine in flips if mine]
    if not flips:
        return
    yield from ["", f"<details><summary>{title}: examples</summary>", "", "| duty | dialogue | A | B | why it failed |"]
    yield "|---|---|--:|--:|---|"
    for duty, mine in flips[:FLIPS]:
        for flip in mine:
            rates = f"{percent(flip.a)} | {percent(flip.b)}"
            yield f"| {code(duty.duty)} | {code(flip.task, 80)} | {rates} | {code(flip.reason)} |"
    yield from ["", "</details>"]
