"""What a training command shows and how it is stopped: a live line, time-based saving, and a polite answer to Ctrl-C.

A step of training is not interrupted halfway: the first Ctrl-C (or SIGTERM) asks for a stop after the step at hand,
where the state is whole and can be saved; the second one interrupts at once, and the last checkpoint is what remains.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cm2.errors import MissingExtra


def hush() -> None:
    """Turn off the progress bars and remarks of transformers and datasets: standard error shows ours.

    Raises:
        MissingExtra: they are not installed.
    """
    try:
        import datasets
        from transformers.utils import logging
    except ImportError as problem:
        raise MissingExtra("training", "train") from problem

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # old names that TRL still uses


class Stop:
    """Turns the first SIGINT or SIGTERM of a `with` block into `requested`; later ones act as they did before."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        Console(stderr=True).print("stopping after this step (again: at once)", highlight=False)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


class Every:
    """True once in every so many seconds (never, if None)."""

    def __init__(self, seconds: float | None):
        self.seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the interval has passed since the last time that this said yes."""
        if self.seconds is None or time.monotonic() - self._last < self.seconds:
            return False
        self._last = time.monotonic()
        return True


class Live:
    """One line on standard error: what runs, how far it is, its numbers, and when it will end.

    On a terminal the line is redrawn; elsewhere a plain line appears every `quiet` seconds, so that a log shows life.

    Args:
        what: what runs.
        total: units of work in all, or None.
        done: units that were done before.
        quiet: see above.
        seconds: after so many the work ends, if it has not before; None: it takes the time it takes.
    """

    def __init__(self, what: str, total: int | None, done: int = 0, quiet: float = 30.0, seconds: float | None = None):
        self.console = Console(stderr=True, highlight=False)
        self.what, self.total, self.done, self.seconds = what, total, done, seconds
        self._bar = Progress(
            *(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[numbers]}"),
            ),
            *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=100, completed=0, numbers="")
        self._speak = Every(quiet)
        self._first, self._started = done, time.monotonic()

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def left(self) -> float | None:
        """Seconds to the end at the speed so far, None where it cannot be told yet."""
        used = time.monotonic() - self._started
        left = []
        if self.total is not None and self.done > self._first:
            left.append(used / (self.done - self._first) * (self.total - self.done))
        if self.seconds is not None:
            left.append(max(0.0, self.seconds - used))
        return min(left) if left else None

    def update(self, done: int, **numbers: float) -> None:
        """Show that `done` units are done, and the latest numbers."""
        self.done = done
        told = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        count = str(done) if self.seconds is not None or self.total is None else f"{done}/{self.total}"
        left, used = self.left, time.monotonic() - self._started
        if left is not None:
            self._bar.update(self._task, completed=100 * used / max(used + left, 1e-9))
        self._bar.update(self._task, numbers=f"{count} {told}")
        if not self.console.is_terminal and self._speak.due():
            ending = "" if left is None else f" · {left:.0f} s left"
            self.console.print(f"{self.what} {count} {told}{ending}", markup=False)
