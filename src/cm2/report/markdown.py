"""Markdown: a diagnosis short enough for a pull request.

Names, reasons and ids come from logs and models, and a page that renders Markdown must not make links, pictures, HTML,
mentions or references of them. So every such text stands in a code span, whose fence is longer than any run of
backticks in it, on one line, and without the bar that would end a cell of a table.
"""

from __future__ import annotations

import re

from cm2.assure.tables_shape import Diagnosis, Row, Share
from cm2.report.page import percent
from cm2.report.text import visible

ROWS = 25
MODES = 8
LONGEST = 140


def markdown(diagnosis: Diagnosis, source: str = "") -> str:
    """The diagnosis as Markdown.

    Args:
        diagnosis: what to tell.
        source: the name of the file that was judged.
    """
    found = diagnosis
    lines = ["## Diagnosis" + (f" of {code(source)}" if source else ""), "", headline(found), ""]
    worth = [row for row in found.duties if row.failed or row.unscored] or found.duties
    lines += [
        "| duty | severity | pass rate | 95 % | passed | failed | not applicable | unscored |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *(_row(row) for row in worth[:ROWS]),
        "",
    ]
    rest = len(found.duties) - min(len(worth), ROWS)
    if rest:
        lines += [f"{rest} more {'duty' if rest == 1 else 'duties'}: see the whole report.", ""]
    if found.modes.modes:
        lines += ["### What fails", ""]
        for mode in found.modes.modes[:MODES]:
            about = "≈ " if mode.estimated else ""
            examples = ", ".join(code(one.dialogue, 60) for one in mode.examples)
            before, _, _ = mode.of_tool.rpartition(mode.tool) if mode.tool else ("", "", "")
            where = f"{mode.step}{before}{code(mode.tool, 60) if mode.tool else ''}"
            lines.append(
                f"- **{about}{mode.count:,}** ({percent(mode.share)}) {code(mode.duty)}, {where}: {code(mode.cause)}"
                f" — for example {examples}"
            )
        rest = len(found.modes.modes) - MODES
        lines += ["", *([f"… and {rest} more modes.", ""] if rest > 0 else [])]
    lines += [f"> {_plain(note)}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def headline(diagnosis: Diagnosis) -> str:
    """The numbers to see first, in a sentence or two; no text of the data."""
    found = diagnosis
    told = f"{found.dialogues:,} dialogues, {found.passed + found.failed:,} scored outcomes"
    if found.overall is not None:
        told += f", {interval(found.overall)} passed"
    for severity, share in found.severities.items():
        told += f"; {severity} {interval(share)}"
    told += "."
    if found.dialogues_passed is not None:
        clean = found.dialogues_passed
        told += f" Nothing failed in {clean.passed:,} of {clean.n:,} dialogues ({interval(clean)})."
    if found.unscored:
        told += f" {found.unscored:,} unscored, {found.not_applicable:,} not applicable: in no rate."
    if found.cost:
        told += f" Judging cost ${found.cost:.2f}."
    return told


def interval(share: Share | None) -> str:
    """A rate with its interval."""
    if share is None:
        return "–"
    return f"{percent(share.rate)} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _row(row: Row) -> str:
    rate = row.rate
    bounds = "–" if rate is None else f"{100 * rate.low:.1f} – {100 * rate.high:.1f}"
    counts = " | ".join(f"{n:,}" for n in (row.passed, row.failed, row.not_applicable, row.unscored))
    return (
        f"| {code(row.duty)} | {row.severity or '–'} | {percent(rate.rate if rate else None)} | {bounds} | {counts} |"
    )


def _plain(note: str) -> str:
    """A note of ours that may name duties: those parts of it that are not plain words go into code."""
    harmless = re.fullmatch(r"[\w ,.:;?()-]*", note) and not re.search(r"\w\.\w", note)
    return note if harmless else code(note, 1000)


def code(text: str, longest: int = LONGEST) -> str:
    """A text of the data as a code span."""
    shown = " ".join(visible(text).replace("|", "¦").split())
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    if not shown:
        return "–"
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"
