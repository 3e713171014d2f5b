"""Watching: look again and again, until a stream ends or somebody stops it; and what a run found."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from cm2.assure.monitor import Monitor
from cm2.assure.monitor_files import Stream
from cm2.llm import BudgetReached, ProviderError

PATIENCE = 20.0
"""Seconds in which webhooks are still called when a run ends by itself; the next run goes on."""


class Summary(msgspec.Struct, kw_only=True):
    """What a run found."""

    dialogues: int
    """Of this run."""
    repeated: int
    rejected: int
    all_dialogues: int
    """Since the monitor began."""
    raised: int
    """Alerts of this run."""
    active: list[str]
    """Alerts that stand."""
    duties: dict[str, dict[str, Any]]
    """Of each duty the counts since it began, and the pass rate of its window."""
    lost: dict[str, int]
    unread: int
    unreadable: dict[str, str]
    problems: list[str]
    undelivered: bool
    """A call of a webhook waits for the next run."""

    @property
    def alarmed(self) -> bool:
        """Whether an alert stands, or one was raised meanwhile."""
        return bool(self.active or self.raised)


def watch(
    monitor: Monitor,
    every: float,
    once: bool = False,
    stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> Summary:
    """Look until there is nothing more to come.

    A provider that refuses, a budget that is spent, a disk that is full: it is said, nothing is passed over, and the
    next look tries again.

    Args:
        monitor: the monitor.
        every: seconds between two looks.
        once: look once, or until the stream ends.
        stop: whether to end.
        sleep: waits; for tests.

    Raises:
        ProviderError, BudgetReached, OSError: with `once`.
    """
    stream = isinstance(monitor.source, Stream)
    while True:
        failed = False
        try:
            monitor.look(every, stop)
        except (ProviderError, BudgetReached, OSError) as error:
            if once:
                raise
            failed = True
            monitor.say(f"{error}; trying again in {every:g} s")
        monitor.pulse(monitor)
        ended = isinstance(monitor.source, Stream) and monitor.source.ended and not failed
        if stop() or ended or (once and not stream):
            break
        if failed or not stream:
            left = every
            while left > 0 and not stop():
                sleep(min(left, 1.0))
                left -= 1.0
    return summary_of(monitor, undelivered=not monitor.book.desk.courier.wait(PATIENCE if once or ended else 1.0))


def summary_of(monitor: Monitor, undelivered: bool = False) -> Summary:
    """What a run found, up to now."""
    known = monitor.state.known
    watches = [watch for duty in known.duties.values() for watch in duty.watches.values()]
    return Summary(
        dialogues=monitor.judged,
        repeated=monitor.repeated,
        rejected=monitor.rejected,
        all_dialogues=known.dialogues,
        raised=monitor.raised,
        active=sorted(watch.alert for watch in watches if watch.alert),
        duties={
            name: {"severity": duty.severity, **duty.counts, "window_pass_rate": monitor.state.window(name).rate}
            for name, duty in sorted(known.duties.items())
        },
        lost=known.lost,
        unread=monitor.unread,
        unreadable=monitor.source.unreadable,
        problems=known.problems,
        undelivered=undelivered,
    )
