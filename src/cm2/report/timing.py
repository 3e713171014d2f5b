"""Timing: where the seconds of the trainings went, by kind of work."""

from __future__ import annotations

import msgspec

from cm2.report.source import Curve, Source, is_number
from cm2.report.text import visible

PARTS = ("rollout", "judge", "forward", "backward")


class Part(msgspec.Struct):
    """A stretch of the bar."""

    name: str
    seconds: float
    start: float
    """Where it starts, as a share of the whole."""
    share: float
    colour: str


class Split(msgspec.Struct):
    """Where one training's time went."""

    name: str
    total: float
    parts: list[Part]


def splits(source: Source) -> list[Split]:
    """The split of every training that recorded seconds, by the sum over its steps."""
    return [split for curve in source.curves if (split := _split(curve)) is not None]


def _split(curve: Curve) -> Split | None:
    def total(name: str) -> float:
        return sum(float(row[name]) for row in curve.rows if is_number(row.get(name)))

    seconds = {part: total(f"seconds_{part}") for part in PARTS}
    known = sum(seconds.values())
    whole = max(known, total("seconds"))
    if known <= 0:
        return None
    seconds["other"] = whole - known
    parts, start = [], 0.0
    for index, (name, spent) in enumerate(seconds.items()):
        if spent > 0.001 * whole:
            parts.append(Part(name, spent, start / whole, spent / whole, f"part{index}"))
            start += spent
    return Split(visible(curve.name), whole, parts)
