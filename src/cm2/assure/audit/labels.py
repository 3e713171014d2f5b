"""Labels: reviews as the truth that `cm2 judge calibrate --against` reads.

A row is what one person says of one item in its whole turn: {dialogue, turn, item, met, …}; several people are several
rows, which vote. `met` is null for what could not be told or does not apply. The rows carry `weight`, 1 / probability.

The sample is drawn by what the judge said, so its rows are no plain sample, and calibration weighs them. `even` keeps a
case with a probability that evens the drawing out: fewer rows, and each outcome had the same chance to be one.
"""

from __future__ import annotations

import numpy as np

from cm2.assure.audit.book import Book
from cm2.assure.audit.case import Case
from cm2.errors import ConfigError, DataError, Where
from cm2.formats.rows import RowWriter


def write_labels(book: Book, output: str, even: bool = False, seed: int = 0) -> int:
    """Write the labels; how many.

    Raises:
        DataError: nothing is reviewed yet.
    """
    if output == book.place:
        raise ConfigError("the output is the audit", fix="give -o another name")
    scored = [case for case in book.cases() if case.kind in ("pass", "fail", "unscored")]
    reviews: dict[int, list[dict[str, object]]] = {}
    for one in book.reviews():
        met = {"pass": True, "fail": False}.get(one.decision)
        reviews.setdefault(one.case, []).append({"met": met, "by": one.reviewer, "reason": one.reason})
    reviewed = [case for case in scored if case.id in reviews]
    if not reviewed:
        raise DataError("nothing is reviewed yet", where=Where(file=book.place), fix="cm2 audit serve")
    if even:
        reviewed = _evened([case for case in reviewed if case.kind != "unscored"], seed)
    names = book.names()
    with RowWriter(output) as writer:
        for case in reviewed:
            dialogue, rollout = names[case.dialogue]
            for said in reviews[case.id]:
                row = {
                    "dialogue": dialogue,
                    "turn": case.turn,
                    "item": case.item.id,
                    "rollout": rollout,
                    "variant": case.variant,
                    "kind": case.duty,
                    "focus_on": case.item.focus_on,
                    "weight": 1 / case.probability,
                }
                writer.write({**row, **said})
        return writer.count


def _evened(cases: list[Case], seed: int) -> list[Case]:
    """Cases so that each outcome of the logs had the same chance to be among them."""
    least = min((case.probability for case in cases), default=1.0)
    draws = np.random.default_rng([seed % 2**32, 0xE7E2]).random(len(cases))
    return [case for case, at in zip(cases, draws, strict=True) if at < least / case.probability]
