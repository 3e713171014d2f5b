"""Show: results as tables, beside what was published, with what differs; in a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from cm2.evals.intervals import Interval
from cm2.harness.published import PAPER, ROWS, beside
from cm2.harness.results import Category, Headline, Results


def tables(results: Results) -> list[Any]:
    """What a run prints: categories, errors, and the published numbers with what differs."""
    title = (
        f"{results.model} on {results.benchmark}: {results.n} task{_s(results.n)}, {results.runs} run{_s(results.runs)}"
    )
    hats = sorted({k for one in results.categories for k in one.pass_hat}, key=int)
    refusing = any(one.baseline is not None for one in results.categories)
    head = ["category", "n", "score", "95 %", *(f"pass^{k}" for k in hats if len(hats) > 1)]
    head += ["refusing"] if refusing else []
    table = Table(*head, "errors", title=title)
    for column in table.columns[1:-1]:
        column.justify = "right"
    rows: list[Category | Headline] = [*results.categories, *results.headlines]
    for row in rows:
        table.add_row(*cells(row, hats if len(hats) > 1 else [], refusing))
    parts: list[Any] = [table]
    for found in beside(results):
        score = _percent(found.headline.score)
        if found.published:
            line = f"{found.title}: {score} here; published ({PAPER}): "
            parts.append(line + ", ".join(f"{name} {value:.2f}" for name, value in found.published.items()))
        parts += [f"  differs: {mark}" for mark in found.marks]
    for owner, count in results.errors.items():
        kind = "scored as the benchmark does" if owner == "agent" else "left out"
        parts.append(f"errors of {owner}: {count} ({kind})")
    return parts


def cells(row: Category | Headline, hats: list[str], refusing: bool) -> list[str]:
    """One row of the table."""
    own = isinstance(row, Category)
    found = [row.name.replace("_", " ") if own else f"= {row.name.replace('_', ' ')}"]
    found.append(_size(row) if isinstance(row, Category) else "")
    found += [_percent(row.score), _range(row.score)]
    found += [f"{100 * row.pass_hat[k]:.1f}" if k in row.pass_hat else "–" for k in hats]
    if refusing:
        base = row.baseline if isinstance(row, Category) else None
        found.append("–" if base is None else f"{100 * base:.1f}")
    errors = row.errors if isinstance(row, Category) else {}
    return [*found, ", ".join(f"{owner} {count}" for owner, count in errors.items())]


def markdown(several: list[Results], names: list[str]) -> str:
    """A table of several results beside the published numbers, and what differs, as notes."""
    keys = list(dict.fromkeys(one.name for results in several for one in results.headlines))
    titles = {found.name: found for results in several for found in beside(results)}
    lines = ["| | " + " | ".join(titles[key].title for key in keys) + " |", "|---|" + "---|" * len(keys)]
    notes: list[str] = []
    for results, name in zip(several, names, strict=True):
        row = []
        by_name = {found.name: found for found in beside(results)}
        for key in keys:
            found = by_name.get(key)
            if found is None or found.headline.score is None:
                row.append("–")
                continue
            numbers = []
            for mark in found.marks:
                if mark not in notes:
                    notes.append(mark)
                numbers.append(str(notes.index(mark) + 1))
            score = found.headline.score
            row.append(f"{_percent(score)} ({_range(score)}) [{', '.join(numbers)}]")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    for published in [*ROWS, "CM2, in-domain data"]:
        values = [titles[key].published.get(published) for key in keys]
        if any(value is not None for value in values):
            shown = ["–" if value is None else f"{value:.2f}" for value in values]
            lines.append(f"| *{published}* | " + " | ".join(shown) + " |")
    lines += ["", f"In italics: published ({PAPER}). Brackets: the 95 % interval over tasks, and what differs:", ""]
    lines += [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join(lines) + "\n"


def _size(row: Category) -> str:
    return str(row.n) if row.whole in (None, row.n) else f"{row.n} of {row.whole}"


def _percent(score: Interval | None) -> str:
    return "–" if score is None else f"{100 * score.mean:.2f}"


def _range(score: Interval | None) -> str:
    return "" if score is None else f"{100 * score.low:.1f} … {100 * score.high:.1f}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
