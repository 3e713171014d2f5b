"""Curriculum: a gate whose strictness rises over the updates, from lenient to the method's own.

A policy that can hardly pass the first turn learns little behind an all-or-nothing gate: it never sees the second. A
lenient gate lets it practise all turns, and rewards what the method does not. Rising strictness has both: practice
first, the true reward in the end.
"""

from __future__ import annotations


def strictness(update: int, start: float, updates: int) -> float:
    """The strictness of an update, from 0 on: a straight line from `start` to 1 at `updates`, and 1 from there on.

    Without a curriculum (`updates` 0) it stays at `start`.
    """
    if updates <= 0:
        return start
    return start + (1.0 - start) * min(1.0, update / updates)
