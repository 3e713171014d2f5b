"""What every verb shares: the summary on standard output, and progress on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cm2.formats.jsonlines import encode
from cm2.train.processes import leads

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def add_column(table: Any, name: str, right: bool = False) -> None:
    """A column whose words stay whole on a narrow terminal; text in columns at the left folds, however long its words.

    Args:
        table: a rich table.
        name: the heading, which may break between its words.
        right: whether it holds numbers.
    """
    longest = max(len(word) for word in name.split()) if name else 0
    table.add_column(
        name, justify="right" if right else "left", overflow="fold", min_width=longest if right else max(longest, 12)
    )


def emit(summary: dict[str, Any], as_json: bool, show: Any = None) -> None:
    """Print the summary: one JSON object under --json, else `show` (a rich renderable or a list of them).

    Of several processes of one run the first one prints it.
    """
    if not leads():
        return
    if as_json:
        try:
            text = orjson.dumps(summary, option=orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError:  # lone surrogates and large integers, which an agent's arguments may hold
            text = encode(summary)
        typer.echo(text.decode())
        return
    for part in show if isinstance(show, list) else [show]:
        if part is not None:
            out.print(part)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar on standard error (silent where that is not a terminal)."""
    if not err.is_terminal:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)
