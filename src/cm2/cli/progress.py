"""Progress of work that costs money: how far, how fast, what it has cost, what is left to wait for.

On a terminal it is a bar. Elsewhere (a log, a job scheduler) it is a line a minute, because hours of paid calls that
say nothing are hours in which nobody notices that something is wrong. The rate is that of the last minutes: after a
resume the answers from the cache come at once, and an average over the whole would promise too much.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cm2.cli.common import err
from cm2.formats.jsonlines import BLOCK, open_rows
from cm2.formats.rows import files_of

T = TypeVar("T")
WINDOW = 120.0
"""Seconds that the rate looks back."""
EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


class Pace:
    """How far a piece of work is and how fast it goes.

    Args:
        total: how many items there are, None where nobody knows.
        clock: seconds, from anywhere.
    """

    def __init__(self, total: int | None = None, clock: Callable[[], float] = time.monotonic):
        self.total, self.done = total, 0
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        now = self._clock()
        if now - self._marks[-1][0] >= WINDOW / 60:
            self._marks.append((now, self.done))
            while len(self._marks) > 2 and now - self._marks[1][0] >= WINDOW:
                self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second of late, None before there is anything to tell."""
        then, done = self._marks[0]
        seconds = self._clock() - then
        return (self.done - done) / seconds if seconds > 0 and self.done > done else None

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate, None where that cannot be told."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate

    def told(self, spent: float | None = None) -> str:
        """Rate, cost so far and time left, as far as they are known: `12.3/s, US$ 0.42, 1:05:00 left`."""
        parts = [] if self.rate is None else [f"{_short(self.rate)}/s"]
        if spent is not None:
            parts.append(f"US$ {spent:,.2f}" if spent >= 1 or spent == 0 else f"US$ {spent:.4f}")
        if self.left is not None:
            parts.append(f"{_clock_time(self.left)} left")
        return ", ".join(parts)


def spending_track(
    items: Iterable[T], what: str, total: int | None = None, spent: Callable[[], float] | None = None
) -> Iterator[T]:
    """Iterate, and tell on standard error how far it is.

    Args:
        items: what is worked on; one counts as done when the next is asked for.
        what: the work, as one word: filtering.
        total: how many there are, where that is known.
        spent: US dollars so far; None where the work costs nothing.
    """
    pace = Pace(total)

    def told() -> str:
        return pace.told(None if spent is None else spent())

    if not err.is_terminal:
        yield from _lines(items, what, pace, told)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=err, transient=True) as bar:
        task = bar.add_task(what, total=total, told="")
        shown = 0.0
        for item in items:
            yield item
            pace.step()
            bar.advance(task)
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.update(task, told=told())


def _lines(items: Iterable[T], what: str, pace: Pace, told: Callable[[], str]) -> Iterator[T]:
    last = time.monotonic()
    for item in items:
        yield item
        pace.step()
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            many = f"{pace.done:,}" if pace.total is None else f"{pace.done:,} of {pace.total:,}"
            err.print(f"{what}: {many}, {told()}", markup=False, soft_wrap=True)


def count_rows(path: str) -> int:
    """How many rows a file, folder or URL has: read from the end of a Parquet file, else the lines (blank ones too).

    A moment's work beside asking a model about each; a compressed file is decompressed for it.

    Raises:
        DataError: there is nothing to count.
    """
    count = 0
    for file in files_of(path):
        with open_rows(file) as (kind, handle):
            if kind == "parquet":
                count += pq.ParquetFile(handle).metadata.num_rows
                continue
            last = b"\n"
            try:
                while block := handle.read(BLOCK):
                    count += block.count(b"\n")
                    last = block[-1:]
            except (EOFError, OSError, ValueError):
                pass  # a damaged end: the reader that follows tells; here it only makes the estimate shorter
            count += last != b"\n"
    return count


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


def _clock_time(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
