"""Selecting from a file: two passes over it, one to see what there is, one to write what was chosen.

Between the passes nothing of a row is held but its features and a signature (see `cm2.curate.pool`), so a file of any
length goes through. The splits hold the rows as they stood, in the order of the input. Which rows they hold does not
depend on that order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np

from cm2.curate.choose import Choice, choose
from cm2.curate.features import NUMBERS, complexity, features, near_signature
from cm2.curate.pool import Pool, Rows
from cm2.curate.selection import SelectConfig
from cm2.curate.statistics import Distribution
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import Row, RowWriter, read_row, read_rows
from cm2.formats.jsonlines import encode
from cm2.formats.rows import parse_object
from cm2.formats.tasks import AUTO, known

KEPT_PROBLEMS = 5
KEPT_TOOLS = 100
Progress = Callable[[Iterable[Row], str], Iterable[Row]]


class SplitSummary(msgspec.Struct):
    """What a split holds."""

    rows: int = 0
    wanted: int | None = None
    """Rows asked for; where `rows` is fewer, there were no more that could go in."""
    passed: int = 0
    """Rows of the file (no duplicates) that have what the split asks for at least."""
    tools: int = 0
    """Different tools that its rows call."""
    complexity: float | None = None
    """The mean."""
    numbers: dict[str, Any] = {}
    """Of each number the mean, least, median, 95th percentile and most."""


class SelectSummary(msgspec.Struct):
    """What was chosen from what."""

    rows: int = 0
    left_out: dict[str, int] = {}
    """Rows that can be in no split, by reason."""
    not_chosen: int = 0
    """The others that are in none."""
    groups: int = 0
    """Groups of rows that a chain of near-duplicates (or exact ones) connects."""
    largest_group: int = 0
    seed: int = 0
    splits: dict[str, SplitSummary] = {}
    all: SplitSummary = msgspec.field(default_factory=SplitSummary)
    """The same of every row that is a dialogue."""
    unseen_tools: list[str] = []
    """Tools that no training row sees (the first hundred)."""
    problems: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


class Selected(msgspec.Struct):
    """A summary with the columns behind it, for a picture."""

    summary: SelectSummary
    pool: Any
    choice: Choice


def select_file(
    config: SelectConfig,
    progress: Progress = lambda rows, what: rows,
    count: Callable[[str], int] | None = None,
) -> Selected:
    """Select from a file and write the splits, with summary.json beside them.

    Args:
        config: what, and into which splits.
        progress: wraps the iteration over the rows of each pass.
        count: the tokens of a text; without it they are estimated.

    Raises:
        ConfigError: there is no such format, or the output lies in the input.
        DataError: the input is missing, empty or no file of rows, or changes while it is read; no row is a dialogue.
    """
    known(config.format, also=AUTO)
    _check_paths(config)
    summary = SelectSummary(seed=config.seed)
    pool = _read(config, summary, progress, count)
    choice = choose(pool, config)
    _describe(summary, pool, choice, config)
    _write(config, pool, choice, progress)
    with RowWriter(os.path.join(config.output, "summary.json")) as writer:
        writer.write(summary)
    return Selected(summary, pool, choice)


def _read(config: SelectConfig, summary: SelectSummary, progress: Progress, count: Any) -> Pool:
    pool = Pool(near=config.near is not None)
    for row in progress(read_rows(config.input), "reading"):
        summary.rows += 1
        try:
            if row.value is None:
                raise DataError(row.error or "the row is empty")
            dialogue = read_row(row.value, config.format)
        except DataError as error:
            pool.skip()
            if len(summary.problems) < KEPT_PROBLEMS:
                summary.problems.append(f"line {row.line}: {error.message}")
            continue
        found = features(dialogue, count)
        near = None if config.near is None else near_signature(dialogue)
        exact = encode(row.value["messages"])
        pool.add(found, complexity(found.numbers, config.complexity), near, exact, _drawn(config, row.value))
    if not pool.readable.any():
        first = f"; the first: {summary.problems[0]}" if summary.problems else ""
        fix = 'expected rows with "messages" (chat messages) and "tools", or Nemotron rows'
        raise DataError(f"none of its rows is a dialogue{first}", where=Where(file=config.input), fix=fix)
    return pool


def _drawn(config: SelectConfig, value: dict[str, Any]) -> bytes:
    return b"%d\n%s" % (config.seed, encode(value))


def _write(config: SelectConfig, pool: Pool, choice: Choice, progress: Progress) -> None:
    """The second pass. A row that is not the one that was chosen means that the file is another now."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(RowWriter(os.path.join(config.output, f"{split.name}.{config.form}")))
            for split in config.splits
        ]
        number = -1
        for number, row in enumerate(progress(read_rows(config.input, _unread), "writing")):
            if number >= len(pool) or choice.split[number] < 0:
                continue
            value = row.value if isinstance(row.value, dict) else parse_object(row.text or b"")[0]
            if value is None or not pool.is_row(number, _drawn(config, value)):
                raise _changed(config)
            writer = writers[choice.split[number]]
            if row.text is None:
                writer.write(value)
            else:
                writer.write_text(row.text)
        if number + 1 != len(pool):
            raise _changed(config)


def _unread(line: bytes) -> tuple[Any, str | None]:
    return line, None


def _changed(config: SelectConfig) -> DataError:
    return DataError("changed while it was read", where=Where(file=config.input), fix="run the command again")


def _describe(summary: SelectSummary, pool: Pool, choice: Choice, config: SelectConfig) -> None:
    readable = pool.readable
    summary.left_out = choice.left_out
    summary.not_chosen = int((readable & ~choice.duplicate & (choice.split < 0)).sum())
    sizes = np.bincount(choice.group[readable], minlength=1)
    summary.groups, summary.largest_group = int((sizes > 1).sum()), int(sizes.max(initial=0))
    summary.unseen_tools = sorted(choice.unseen_tools)[:KEPT_TOOLS]
    summary.all = _summary(pool, np.flatnonzero(readable))
    for number, split in enumerate(config.splits):
        found = _summary(pool, np.flatnonzero(choice.split == number))
        found.wanted, found.passed = choice.wanted[split.name], choice.passed[split.name]
        summary.splits[split.name] = found


def _summary(pool: Pool, rows: Rows) -> SplitSummary:
    found = SplitSummary(rows=len(rows))
    called, callers = pool.tool_rows(called=True)
    found.tools = len(np.unique(called[np.isin(callers, rows)]))
    if len(rows):
        found.complexity = round(float(pool.complexity[rows].mean()), 3)
    for name in NUMBERS:
        values, counts = np.unique(pool.number(name)[rows], return_counts=True)
        found.numbers[name] = Distribution(dict(zip(values.tolist(), counts.tolist(), strict=True))).as_json()
    return found


def _check_paths(config: SelectConfig) -> None:
    if "://" in config.input or "://" in config.output:
        if config.output.startswith(config.input.rstrip("/") + "/"):
            raise ConfigError("-o lies in the folder that is read", fix="write to another folder")
        return
    source, output = os.path.realpath(config.input), os.path.realpath(config.output)
    if os.path.isfile(output):
        raise ConfigError(f"{config.output} is a file", fix="-o names a folder: one file a split goes in")
    if os.path.isdir(source) and (output == source or output.startswith(source + os.sep)):
        raise ConfigError("-o lies in the folder that is read", fix="write to another folder")
    if any(source == os.path.join(output, f"{split.name}.{config.form}") for split in config.splits):
        raise ConfigError("a split would take the place of the input", fix="write to another folder")
