"""Regression: whether training cost a model abilities that it was not trained for, as a gate.

Two results of the general evaluation (`cm2.harness.general`), paired example by example. A part (the whole, or a
category) has fallen where both hold: it is worse beyond chance (the p of the comparison, corrected over the
categories), and its 95 % interval lies below -tolerance as a whole. So a fall that is certain but small passes, and so
does a large one that so few examples cannot tell from luck: what the whole may have lost all the same is told, as
`at_most`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cm2.assure.compare_benchmark import BenchmarkComparison, compare_benchmarks
from cm2.assure.compare_benchmark import markdown as compared
from cm2.errors import ConfigError

TOLERANCE = 0.02


class Regression(msgspec.Struct, kw_only=True):
    """What was found."""

    tolerance: float
    fell: list[str]
    """The parts that fell by more than the tolerance; empty: the gate passes."""
    at_most: float
    """The largest fall of the whole that its interval does not rule out; 0 where it leaves none."""
    comparison: BenchmarkComparison

    @property
    def passed(self) -> bool:
        """Whether nothing fell."""
        return not self.fell


def regression(
    before: str | Path,
    after: str | Path,
    names: tuple[str, str] = ("before", "after"),
    tolerance: float = TOLERANCE,
    alpha: float = 0.05,
) -> Regression:
    """Compare two folders of results.

    Raises:
        DataError: one is no such folder.
        ConfigError: they cannot be compared, or were made with different settings.
    """
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance is {tolerance:g}", fix="use a share: 0.02 is two points of a hundred")
    found = compare_benchmarks(before, after, *names, alpha)
    fell = [
        part.name
        for part in found.parts
        if part.change == "worse" and part.contrast is not None and part.contrast.high < -tolerance
    ]
    whole = found.parts[0].contrast
    assert whole is not None  # a comparison without it was refused
    return Regression(tolerance=tolerance, fell=fell, at_most=max(0.0, -whole.low), comparison=found)


def verdict(found: Regression) -> str:
    """One sentence."""
    points = 100 * found.tolerance
    if found.fell:
        return f"fell by more than {points:g} points, beyond chance: {', '.join(found.fell)}"
    return (
        f"nothing fell by more than {points:g} points beyond chance; over all examples a fall of more than "
        f"{100 * found.at_most:.1f} points is ruled out (95 %)"
    )


def markdown(found: Regression) -> str:
    """The table, the notes and the verdict, for a pull request."""
    return f"{compared(found.comparison)}\n{'Failed' if found.fell else 'Passed'}: {verdict(found)}.\n"
