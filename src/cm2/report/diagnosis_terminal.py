"""A diagnosis for the terminal; every text of the data is made visible and reads as no markup."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cm2.assure.tables_shape import Diagnosis, Row
from cm2.report.markdown import headline
from cm2.report.page import percent
from cm2.report.text import visible

ROWS = 40
MODES = 10
LONGEST = 180
"""Characters of a mode's sentence."""
STYLES = {"critical": "red", "major": "yellow", "minor": "dim", None: ""}


def terminal(diagnosis: Diagnosis) -> list[RenderableType]:
    """The headline, a table of duties, the modes of failure and the notes."""
    found = diagnosis
    severe = bool(found.severities)
    table = Table()
    table.add_column("duty", overflow="fold", min_width=16)
    for name in (*(["severity"] if severe else []), "pass rate", "95 %", "pass", "fail", "n/a", "unscored"):
        table.add_column(name, justify="left" if name == "severity" else "right", no_wrap=True)
    if found.cost:
        table.add_column("cost", justify="right", no_wrap=True)
    for row in found.duties[:ROWS]:
        table.add_row(*_row(row, severe), *([f"${row.cost:.2f}"] if found.cost else []))
    parts: list[RenderableType] = [Text(headline(found)), table]
    if len(found.duties) > ROWS:
        parts.append(Text(f"… and {len(found.duties) - ROWS} more duties"))
    if found.modes.modes:
        parts.append(_modes(found))
        if len(found.modes.modes) > MODES:
            parts.append(Text(f"… and {len(found.modes.modes) - MODES} more modes"))
        parts.append(Text(found.modes.grouping, style="dim"))
    if found.unscored_because:
        told = ", ".join(f"{name} {count:,}" for name, count in found.unscored_because.items())
        parts.append(Text(visible(f"unscored because: {told}")))
    return [*parts, *(Text(visible(note), style="yellow") for note in [*found.notes, *found.problems])]


def _row(row: Row, severe: bool) -> list[RenderableType]:
    rate = row.rate
    bounds = "–" if rate is None else f"{100 * rate.low:.1f} – {100 * rate.high:.1f}"
    severity = [Text(row.severity or "–", style=STYLES[row.severity])] if severe else []
    counts = [f"{n:,}" for n in (row.passed, row.failed, row.not_applicable, row.unscored)]
    return [Text(visible(row.duty)), *severity, percent(rate.rate if rate else None), bounds, *counts]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _modes(found: Diagnosis) -> Table:
    table = Table(title=f"{found.modes.failures:,} failures in {len(found.modes.modes):,} modes", title_justify="left")
    for name in ("failures", "share", "what", "for example"):
        numbers = name in ("failures", "share")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for mode in found.modes.modes[:MODES]:
        count = f"≈ {mode.count:,}" if mode.estimated else f"{mode.count:,}"
        example = mode.examples[0].dialogue if mode.examples else ""
        what = Text(_short(visible(mode.sentence)), style=STYLES[mode.severity])
        table.add_row(count, percent(mode.share), what, Text(visible(example)))
    return table
