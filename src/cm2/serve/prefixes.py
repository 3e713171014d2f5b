"""Prefixes: rows of an engine's cache that stay when their conversation has been answered.

The next turn of a conversation begins with all of the last one, and other conversations begin with the same system
prompt and tools. A row can be continued (forked) but not shortened; so where a new prompt shares only the beginning of
a row, it is read in two parts, and the row as it stood in between is kept as a `stem` for the next one.
"""

from __future__ import annotations

import threading

import numpy as np

from cm2.rollout.engine import Engine

SHORTEST = 32
"""Fewer common ids are read again."""


class Kept:
    """A row and the ids it has read."""

    def __init__(self, ids: np.ndarray, row: int, stem: bool):
        self.ids, self.row, self.stem = ids, row, stem


class Prefixes:
    """Kept rows of one engine, the longest unused forgotten first.

    Args:
        room: how many ids all rows may have together; 0 keeps none.
    """

    def __init__(self, room: int):
        self.room = room
        self.kept: list[Kept] = []
        self._lock = threading.Lock()

    def longest(self, ids: np.ndarray) -> int:
        """How many of these ids need not be read. May be asked from any thread."""
        with self._lock:
            return max((len(kept.ids) for kept in self.kept if _continues(kept.ids, ids)), default=0)

    def find(self, ids: np.ndarray) -> tuple[Kept | None, int]:
        """(the kept row that these ids continue, if any; how many ids they share with any kept row)."""
        with self._lock:
            best = max((k for k in self.kept if _continues(k.ids, ids)), key=lambda k: len(k.ids), default=None)
            if best is not None:
                self.kept.remove(best)
                self.kept.append(best)
            shared = max((_common(kept.ids, ids) for kept in self.kept), default=0)
            return best, min(shared, len(ids) - 1)

    def keep(self, ids: np.ndarray, row: int, engine: Engine, stem: bool = False, instead: Kept | None = None) -> None:
        """Keep a row, in place of the one that it continued unless that is a stem."""
        gone: list[int] = []
        with self._lock:
            if instead is not None and not instead.stem and instead in self.kept:
                self.kept.remove(instead)
                gone.append(instead.row)
            if len(ids) > self.room or any(len(k.ids) == len(ids) and (k.ids == ids).all() for k in self.kept):
                gone.append(row)
            else:
                self.kept.append(Kept(ids, row, stem))
            while sum(len(kept.ids) for kept in self.kept) > self.room:
                gone.append(self.kept.pop(0).row)
        if gone:
            engine.close(gone)

    def clear(self) -> None:
        """Forget all rows without closing them: their engine is gone."""
        with self._lock:
            self.kept = []


def _continues(kept: np.ndarray, ids: np.ndarray) -> bool:
    """Whether ids begin with all of `kept` and go on: the last id must be read to know what follows."""
    return len(kept) < len(ids) and bool((ids[: len(kept)] == kept).all())


def _common(a: np.ndarray, b: np.ndarray) -> int:
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size
