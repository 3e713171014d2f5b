"""Drift: has the pass rate of a duty changed, asked after every dialogue without the false alarms of asking often?

A detector is fed one result a dialogue (held or not) and says when the rate changed. Two methods, which differ in what
they know:

- `adwin` knows nothing. It keeps the results in a window that grows while they look alike, and cuts it where two parts
  differ more than chance explains at confidence `delta` (Bifet and Gavaldà 2007; the implementation is River's). It
  finds falls and rises of any size; a small fall takes long.
- `cusum` knows the rate that was fine, p0, and the fall that matters, to p1 = p0 − drop. It adds up how much better p1
  explains each result than p0, never below zero: S ← max(0, S + log f1(x)/f0(x)), and alarms at S ≥ log(every). While
  the rate is p0 or better, at least `every` dialogues pass between two false alarms on average (Page 1954; Lorden
  1971). It is the fastest way to see the fall it was told of, and needs no extra.

What a detector has seen is its state: a bounded string of results, so that a monitor that was killed goes on with
exactly the detector it had.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from cm2.errors import MissingExtra

Method = Literal["adwin", "cusum"]
MOST, KEPT = 10_000, 5_000
"""Results after which ADWIN is made anew of the latest ones: what it remembers is bounded."""
_LEAST_RATE = 0.005
"""Rates nearer to 0 or 1 are taken for this far from it: a single result must not decide alone."""


class Change(msgspec.Struct, frozen=True):
    """What a detector found: the rate before and after, as far as it can tell."""

    before: float
    after: float

    @property
    def fell(self) -> bool:
        """Whether it is worse than it was."""
        return self.after < self.before


class Adwin:
    """ADWIN over results; see the module.

    Args:
        delta: the confidence of a cut; smaller is calmer and slower.
        seen: the results that it was fed since it was made, oldest first, as "1" and "0".
    """

    def __init__(self, delta: float = 0.002, seen: str = ""):
        self._delta, self._seen = delta, ""
        self._adwin = self._made(seen)

    @property
    def state(self) -> str:
        """What to make the same detector of again."""
        return self._seen

    def add(self, held: bool) -> Change | None:
        """Feed one result; the change that it gives away, if it does."""
        before = float(self._adwin.estimation)
        self._adwin.update(float(held))
        self._seen += "1" if held else "0"
        if self._adwin.drift_detected:
            change = Change(before, float(self._adwin.estimation))
            self._adwin = self._made(self._seen[-max(1, int(self._adwin.width)) :])
            return change
        if len(self._seen) >= MOST:
            self._adwin = self._made(self._seen[-KEPT:])
        return None

    def _made(self, seen: str) -> Any:
        try:
            import river.drift
        except ImportError as error:
            raise MissingExtra("finding drift by `adwin` (`cusum` does without)", "monitor") from error
        made: Any = river.drift.ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]
        for result in seen:
            made.update(float(result))
        self._seen = seen
        return made


class Cusum:
    """A CUSUM of results against a known rate; see the module.

    Args:
        rate: the rate that is fine (p0).
        drop: the fall that matters; the rate after it is p1 = p0 − drop.
        every: dialogues that pass at least, on average, between two false alarms.
        sum: where it stands.
    """

    def __init__(self, rate: float, drop: float = 0.1, every: float = 10_000, sum: float = 0.0):
        fine = min(max(rate, 2 * _LEAST_RATE), 1 - _LEAST_RATE)
        worse = min(max(fine - drop, _LEAST_RATE), fine - _LEAST_RATE)
        self._rate, self._worse = fine, worse
        self._held, self._missed = math.log(worse / fine), math.log((1 - worse) / (1 - fine))
        self._bound, self._sum = math.log(every), sum

    @property
    def state(self) -> float:
        """What to make the same detector of again, with the same settings."""
        return self._sum

    def add(self, held: bool) -> Change | None:
        """Feed one result; the fall that it gives away, if it does. It starts anew then."""
        self._sum = max(0.0, self._sum + (self._held if held else self._missed))
        if self._sum < self._bound:
            return None
        self._sum = 0.0
        return Change(self._rate, self._worse)
