"""People: what reviewers say together, and how far they agree with each other.

No judge can be held to more than people agree on among themselves. A pair is two reviews of one case that both say pass
or fail; which of the two stands for the truth does not matter to agreement or kappa.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import msgspec
import numpy as np

from cm2.assure.audit.case import Decision, Review, opinion
from cm2.judge.agreement import Confusion, alpha, kappa_intervals


class People(msgspec.Struct, kw_only=True):
    """How far reviewers agree."""

    reviewers: dict[str, int]
    """How many cases each reviewed."""
    cases: int
    """With two reviews or more that say pass or fail."""
    agreement: float | None = None
    base_rate: float | None = None
    """The share of pass in these reviews, beside which kappa is to be read."""
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    alpha: float | None = None
    """Krippendorff's: also for more than two."""


def truths(reviews: Sequence[Review]) -> dict[int, Decision | None]:
    """What people say together of each reviewed case; None where they tie."""
    said: dict[int, list[Decision]] = {}
    for one in reviews:
        said.setdefault(one.case, []).append(one.decision)
    return {case: opinion(decisions) for case, decisions in said.items()}


def people(reviews: Sequence[Review]) -> People:
    """Agreement over all pairs of reviews of one case."""
    counted: dict[str, int] = {}
    said: dict[int, list[tuple[str, bool]]] = {}
    for one in reviews:
        counted[one.reviewer] = counted.get(one.reviewer, 0) + 1
        if one.decision in ("pass", "fail"):
            said.setdefault(one.case, []).append((one.reviewer, one.decision == "pass"))
    several = [sorted(pairs) for pairs in said.values() if len(pairs) > 1]
    found = People(reviewers=dict(sorted(counted.items())), cases=len(several))
    if not several:
        return found
    tables = np.array([_table([holds for _, holds in pairs]) for pairs in several])
    total = Confusion(*(int(n) for n in tables.sum(axis=0)))
    held = [holds for pairs in several for _, holds in pairs]
    found.agreement, found.kappa = total.agreement, total.kappa
    found.base_rate = sum(held) / len(held)
    interval = kappa_intervals([tables])[0]
    if interval is not None:
        found.kappa_low, found.kappa_high = interval
    found.alpha = alpha([[sum(h for _, h in pairs), sum(not h for _, h in pairs)] for pairs in several])
    return found


def _table(held: list[bool]) -> list[int]:
    pairs = list(combinations(held, 2))
    return [pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))]
