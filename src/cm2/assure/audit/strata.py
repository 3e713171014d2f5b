"""Strata: the cells of duty, verdict and level, put together until every stratum can have two reviews.

With few reviews and many duties there are more cells than reviews. Levels go first; then the smallest duties with the
same verdict share a stratum. A stratum never mixes verdicts, so what the judge said is the same all over it, and every
outcome keeps a probability above 0, so estimates stay unbiased, for a duty inside a shared stratum too.
"""

from __future__ import annotations

from typing import NamedTuple

from cm2.assure.audit.allocate import allocate, floor, weight
from cm2.assure.audit.case import SCORED, Kind, Stratum
from cm2.errors import ConfigError

ROOM = 0.5
"""Of all reviews, the share that least numbers may take: the rest goes where it says most."""


class Cell(NamedTuple):
    """What is told of an outcome before it is drawn."""

    duty: str
    verdict: Kind
    level: str


class Plan(NamedTuple):
    """The strata, and which cell is in which."""

    strata: list[Stratum]
    of: dict[Cell, int]


def plan(cells: dict[Cell, int], severities: dict[str, str], n: int, aside: dict[Kind, int]) -> Plan:
    """Strata with the numbers to draw of each.

    Args:
        cells: how many outcomes each cell has.
        severities: of the duties.
        n: reviews of outcomes with a yes or no.
        aside: reviews of what has neither, by its kind; one stratum each, in no error rate.

    Raises:
        ConfigError: n is below 2 for each verdict.
    """
    scored = {cell: count for cell, count in cells.items() if cell.verdict in SCORED}
    groups: dict[Cell, list[Cell]] = {cell: [cell] for cell in scored}
    sizes = dict(scored)
    if floor(list(sizes.values())) > ROOM * n:
        groups, sizes = _together(groups, sizes, {cell: cell._replace(level="") for cell in groups})
    while floor(list(sizes.values())) > ROOM * n:
        smallest = _smallest(sizes)
        if smallest is None:
            break
        shared = Cell("", smallest[0].verdict, "")
        groups, sizes = _together(groups, sizes, {cell: shared if cell in smallest else cell for cell in groups})
    if floor(list(sizes.values())) > n:
        raise ConfigError(f"{n} reviews are too few for a sample", fix="ask for 4 or more with -n")
    weights = [weight(sizes[cell], cell.level, _risk(groups[cell], severities)) for cell in groups]
    drawn = allocate(list(sizes.values()), weights, n)
    strata: list[Stratum] = []
    of: dict[Cell, int] = {}
    for (cell, members), count in zip(groups.items(), drawn, strict=True):
        strata.append(Stratum(len(strata), cell.verdict, cell.duty, cell.level, sizes[cell], count))
        of.update(dict.fromkeys(members, strata[-1].id))
    for kind, count in aside.items():
        members = [cell for cell in cells if cell.verdict == kind]
        size = sum(cells[cell] for cell in members)
        if min(size, count):
            strata.append(Stratum(len(strata), kind, "", "", size, min(size, count)))
            of.update(dict.fromkeys(members, strata[-1].id))
    return Plan(strata, of)


def _together(
    groups: dict[Cell, list[Cell]], sizes: dict[Cell, int], into: dict[Cell, Cell]
) -> tuple[dict[Cell, list[Cell]], dict[Cell, int]]:
    merged: dict[Cell, list[Cell]] = {}
    size: dict[Cell, int] = {}
    for cell, members in groups.items():
        merged.setdefault(into[cell], []).extend(members)
        size[into[cell]] = size.get(into[cell], 0) + sizes[cell]
    return merged, size


def _smallest(sizes: dict[Cell, int]) -> tuple[Cell, Cell] | None:
    """The two smallest strata with the same verdict, of the verdict that has more of them."""
    by = {verdict: sorted((c for c in sizes if c.verdict == verdict), key=lambda c: sizes[c]) for verdict in SCORED}
    cells = max(by.values(), key=len)
    return (cells[0], cells[1]) if len(cells) > 1 else None


def _risk(members: list[Cell], severities: dict[str, str]) -> str:
    found = {severities.get(cell.duty, "") for cell in members}
    return next((name for name in ("critical", "major", "minor") if name in found), "")
