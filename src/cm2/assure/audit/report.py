"""Report: what an audit has found, and what it has not found out yet."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from cm2.assure.audit.book import Book
from cm2.assure.audit.case import ALL, Case, Decision, Population, Stratum
from cm2.assure.audit.correct import Estimate, rogan_gladen
from cm2.assure.audit.measure import Measured, Rates, judged_rate, measure_all, share_of
from cm2.assure.audit.people import People, people, truths
from cm2.assure.audit.sample import SampleConfig, Track, count
from cm2.errors import Where
from cm2.policy import Policy
from cm2.policy.load import read_policy


class Report(msgspec.Struct, kw_only=True):
    """See the module."""

    audit: str
    created: str
    judges: list[str]
    cases: int
    reviewed: int
    """Cases with at least one review."""
    to_double: int
    """Cases that still want a second person."""
    covered: float
    """The share of all judged outcomes that lie in strata with a review whose truth is known. Below 1 the estimates are
    about these strata only."""
    decisions: dict[str, int]
    """What people say, over cases of all kinds; `tie` where they differ."""
    blind: int
    """Reviews that were given without seeing the verdict."""
    total: Measured
    duties: list[Measured]
    people: People
    unscored: dict[str, int]
    """What people say of outcomes that the judge could not decide."""
    not_applicable: dict[str, int]
    """What people say of outcomes for which the judge saw no occasion."""
    changes: dict[str, int]
    """Duties that were edited, approved, retired."""


class Applied(msgspec.Struct):
    """A duty in other logs: the judge's pass rate, and what Rogan and Gladen's estimate makes of it."""

    duty: str
    """`ALL` for all of them: right where the logs have about the same mix of duties."""
    n: int
    judged_rate: Estimate
    rogan_gladen: Estimate | None
    """None where this audit has too few reviews of the duty."""


def report(book: Book) -> Report:
    """Everything that an audit says by now."""
    cases, strata, reviews = book.cases(), book.strata(), book.reviews()
    truth = truths(reviews)
    total, duties = measure_all(cases, strata, book.populations(), truth)
    counted = Counter(one.case for one in reviews)
    subjects = book.subjects()
    return Report(
        audit=book.id,
        created=book.facts["created"],
        judges=book.facts["judges"],
        cases=len(cases),
        reviewed=len(truth),
        to_double=sum(counted[case.id] < case.wanted for case in cases if case.wanted > 1),
        covered=_covered(cases, strata, truth),
        decisions=_counted(truth.values()),
        blind=sum(one.blind for one in reviews),
        total=total,
        duties=duties,
        people=people(reviews),
        unscored=_counted(truth[case.id] for case in cases if case.kind == "unscored" and case.id in truth),
        not_applicable=_counted(truth[case.id] for case in cases if case.kind == "not_applicable" and case.id in truth),
        changes={
            "edited": sum(one.edited for one in subjects),
            "approved": sum(one.status == "approved" for one in subjects),
            "retired": sum(one.status == "retired" for one in subjects),
        },
    )


def apply(
    book: Book,
    logs: str,
    verdicts: str,
    track: Track = lambda read: read,
) -> list[Applied]:
    """The pass rates of other logs, judged by the same judge and duties, corrected by this audit's error rates.

    Raises:
        DataError: the files do not read, or nothing there was judged.
    """
    made = report(book)
    config = msgspec.convert({**book.facts["config"], "logs": logs, "verdicts": verdicts}, SampleConfig)
    populations, _, _ = count(config, policy_of(book), track)
    rates = {one.name: one.rates for one in made.duties} | {ALL: made.total.rates}
    found = [_applied(populations[name], rates.get(name)) for name in sorted(populations)]
    return [one for one in found if one is not None]


def policy_of(book: Book) -> Policy | None:
    """The policy that the audited logs were judged by."""
    kept = book.facts.get("policy")
    return None if kept is None else read_policy(kept, Where(file=book.place))


def _applied(population: Population, rates: Rates | None) -> Applied | None:
    n = population.passed.size + population.failed.size
    if not n:
        return None
    yes, worth = share_of(population)
    corrected = None if rates is None else rogan_gladen(yes, worth, *msgspec.structs.astuple(rates))
    return Applied(population.duty, n, judged_rate(population), corrected)


def _covered(cases: list[Case], strata: list[Stratum], truth: dict[int, Decision | None]) -> float:
    known = {case.stratum for case in cases if truth.get(case.id) in ("pass", "fail")}
    scored = [one for one in strata if one.verdict in ("pass", "fail")]
    return sum(one.size for one in scored if one.id in known) / sum(one.size for one in scored)


def _counted(decisions: Any) -> dict[str, int]:
    return dict(sorted(Counter(one or "tie" for one in decisions).items()))
