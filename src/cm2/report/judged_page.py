"""The page of a diagnosis: tables made here, and a viewer that a fixed script fills from data.

The script makes elements and sets their text; it never reads markup. That holds by the browser's own means too: a
Content-Security-Policy allows this style sheet and this script by hash, and Trusted Types forbid every assignment that
would parse a string as markup or load a script, but for the parts of this report (see `cm2.report.shelf`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from cm2.assure.tables import BINS
from cm2.assure.tables_shape import Diagnosis, Row, Share
from cm2.report.page import fill
from cm2.report.shelf import Shelf, inline
from cm2.report.viewer import Names

FIRST = 30
"""Duties in the table; further ones are folded away."""
MODES = 12
RESULTS = {"f": "fail", "p": "pass", "u": "unscored", "n": "not applicable"}


class Tile(msgspec.Struct):
    """A number that the reader should see first."""

    label: str
    share: Share
    note: str


def judged_page(source: str, diagnosis: Diagnosis, names: Names, shelf: Shelf, build: str, folder: str | None) -> str:
    """The page as HTML.

    Args:
        source: the name of the file that was judged.
        diagnosis: what to tell.
        names: the tables that the viewer's data refer to.
        shelf: where the dialogues are.
        build: names the report.
        folder: the name of the folder beside the page; None where everything is in the page.
    """
    meta = {
        "build": build,
        "folder": None if folder is None else quote(folder),
        "indexes": shelf.indexes,
        "total": shelf.count,
        "duties": names.duties,
        "judges": names.judges,
        "combinations": names.combinations,
        "results": RESULTS,
    }
    blocks = {"meta": inline(msgspec.json.encode(meta).decode())}
    blocks |= {name: inline(text) for name, text in shelf.kept.items()}
    allowed = ["require-trusted-types-for 'script'"]
    allowed += ["trusted-types 'none'"] if folder is None else ["script-src 'strict-dynamic'", "trusted-types cm2"]
    return fill(
        "judged.html.jinja",
        ["report.css", "viewer.css"],
        ["theme.js", "viewer.js"],
        allowed,
        source=source,
        found=diagnosis,
        headline=_headline(diagnosis),
        tiles=_tiles(diagnosis),
        tables=[diagnosis.duties[:FIRST], diagnosis.duties[FIRST:]],
        modes=diagnosis.modes.modes,
        first_modes=MODES,
        numbers=names.numbers,
        names=names,
        shown=shelf.count,
        bins=_bins(diagnosis),
        blocks={name: Markup(text) for name, text in blocks.items()},
        results=RESULTS,
        percents=_percents,
        owners=any(row.owner for row in diagnosis.duties),
    )


def _headline(found: Diagnosis) -> str:
    """What failed, in one sentence; the tiles have the rates."""
    told = f"{found.failed:,} of {found.passed + found.failed:,} scored outcomes failed"
    if found.dialogues_passed is not None:
        clean = found.dialogues_passed
        told += f", in {clean.n - clean.passed:,} of {clean.n:,} dialogues"
    return f"{told}."


def _tiles(found: Diagnosis) -> list[Tile]:
    tiles = []
    if found.overall is not None:
        tiles.append(Tile("all duties", found.overall, "of scored outcomes pass"))
    if found.dialogues_passed is not None:
        tiles.append(Tile("dialogues", found.dialogues_passed, "in which nothing failed"))
    for severity, share in found.severities.items():
        tiles.append(Tile(severity, share, f"of {severity} duties pass"))
    return tiles


def _bins(found: Diagnosis) -> list[dict[str, Any]]:
    """The bars of the distribution of scores."""
    highest = max(found.scores.bins, default=0) or 1
    labels = [f"{n / BINS:.1f} – {(n + 1) / BINS:.1f}" for n in range(BINS)] + ["1"]
    bins = zip(labels, found.scores.bins, strict=True)
    return [{"label": label, "count": count, "height": 100 * count / highest} for label, count in bins]


def _percents(row: Row) -> tuple[float, float, float]:
    """Rate and bounds of a row in percent, for its bar."""
    assert row.rate is not None
    return 100 * row.rate.rate, 100 * row.rate.low, 100 * row.rate.high
