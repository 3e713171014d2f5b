"""Measure: from reviews to error rates, kappa and true pass rates, of each duty and of all.

Everything rests on two *sides*: what the judge passed and what it failed. Of each side the size is known and the share
that really holds is estimated from its reviews, weighted by 1 / probability: an outcome of a stratum with N_h outcomes,
r_h of which have a known truth, counts N_h / r_h. With W the share of the passed side, p and q the shares of both sides
that hold,

    false yes   = W·(1 − p) / (W·(1 − p) + (1 − W)·(1 − q))   of what does not hold, the share that the judge passes
    false no    = (1 − W)·q / (W·p + (1 − W)·q)               of what holds, the share that the judge fails
    wrong yes   = 1 − p,  wrong no = q                        of its yes (its no) the share that is wrong
    pass rate   = W·p + (1 − W)·q                             the corrected one

The pass rate is the prediction-powered estimate in strata (p and q by `correct.powered`), so it is right for these logs
whatever the judge is. It speaks about the agent, not only about these dialogues: W has an interval too, by dialogues.
What people could not tell, or said does not apply, is in no rate and is counted beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from cm2.assure.audit.case import ALL, SCORED, Case, Decision, Population, Said, Stratum
from cm2.assure.audit.correct import Estimate, combine, powered, ratio, rogan_gladen, share
from cm2.judge.agreement import Confusion, effective_size, exact, kappa

LEAST = 5
"""Reviews of what holds, and of what does not, from which error rates are good enough to correct by. They are never
borrowed from other duties: a check that misses half of its yes says nothing about another one."""


class Seen(msgspec.Struct, frozen=True):
    """A case with a known truth."""

    duty: str
    passed: bool
    """What the judge said."""
    holds: bool
    """What people say."""
    certainty: float
    weight: float


class Side(msgspec.Struct):
    """What the judge said one thing about."""

    size: int
    reviewed: int = 0
    holds: Estimate | None = None
    """The share that really holds; None where nothing was reviewed."""
    worth: float = 0.0
    """Independent reviews that it is worth."""
    lam: float = 0.0


class Rates(msgspec.Struct):
    """How the judge does where its sensitivity and specificity are needed elsewhere, and what they rest on."""

    sensitivity: float
    n_sensitivity: float
    specificity: float
    n_specificity: float


class Measured(msgspec.Struct, kw_only=True):
    """One duty, or all of them. Rates are None where the side that they need was not reviewed."""

    name: str
    severity: str = ""
    passed: Side
    failed: Side
    unscored: int = 0
    not_applicable: int = 0
    counts: Confusion
    """Reviews as they are, unweighted."""
    cannot_tell: int = 0
    applies_not: int = 0
    """Judged cases of which people say that the duty does not apply."""
    undecided: int = 0
    """Cases on which people differ and nobody broke the tie."""
    false_yes: Estimate | None = None
    false_no: Estimate | None = None
    wrong_yes: Estimate | None = None
    wrong_no: Estimate | None = None
    base_rate: float | None = None
    """The share of yes in the truth: the corrected pass rate, beside which kappa is to be read."""
    agreement: float | None = None
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    judged_rate: Estimate | None = None
    """The pass rate as the judge says it."""
    pass_rate: Estimate | None = None
    """The corrected one, prediction-powered."""
    rogan_gladen: Estimate | None = None
    """The corrected one by error rates alone; None where `rates` is."""
    rates: Rates | None = None
    """For other logs; None where too few reviews say that the duty holds, or that it does not."""


def weights(cases: Sequence[Case], strata: Sequence[Stratum], truth: dict[int, Decision | None]) -> dict[int, float]:
    """What each case with a known truth counts: the size of its stratum through how many of it are known."""
    known = [case for case in cases if truth.get(case.id) in ("pass", "fail")]
    reviewed: dict[int, int] = {}
    for case in known:
        reviewed[case.stratum] = reviewed.get(case.stratum, 0) + 1
    size = {stratum.id: stratum.size for stratum in strata}
    return {case.id: size[case.stratum] / reviewed[case.stratum] for case in known}


def measure_all(
    cases: Sequence[Case],
    strata: Sequence[Stratum],
    populations: Sequence[Population],
    truth: dict[int, Decision | None],
) -> tuple[Measured, list[Measured]]:
    """All duties together, and each.

    Args:
        cases: of the audit.
        strata: of the audit.
        populations: what the judge said of each duty.
        truth: what people say of each reviewed case; None: they tie.
    """
    weight = weights(cases, strata, truth)
    scored = [case for case in cases if case.kind in SCORED]
    seen = [
        Seen(case.duty, case.kind == "pass", truth[case.id] == "pass", case.certainty, weight[case.id])
        for case in scored
        if case.id in weight
    ]
    total = measure(next(one for one in populations if one.duty == ALL), seen)
    each = [measure(one, [s for s in seen if s.duty == one.duty]) for one in populations if one.duty != ALL]
    for found in (total, *each):
        mine = [truth[c.id] for c in scored if c.id in truth and (found is total or c.duty == found.name)]
        found.cannot_tell = mine.count("cannot_tell")
        found.applies_not = mine.count("not_applicable")
        found.undecided = mine.count(None)
    return total, each


def measure(population: Population, seen: Sequence[Seen]) -> Measured:
    """One duty from its reviewed cases."""
    passed = side(population.passed, [one for one in seen if one.passed])
    failed = side(population.failed, [one for one in seen if not one.passed])
    tally = [sum(one.passed is p and one.holds is h for one in seen) for p, h in _FOUR]
    found = Measured(
        name=population.duty,
        severity=population.severity,
        passed=passed,
        failed=failed,
        unscored=population.unscored,
        not_applicable=population.not_applicable,
        counts=Confusion(*tally),
    )
    n = passed.size + failed.size
    if not n:
        return found
    found.judged_rate = judged_rate(population)
    whole = passed.size / n
    if passed.holds is not None:
        found.wrong_yes = combine([(-1.0, passed.holds), (1.0, ONE)])
    found.wrong_no = failed.holds
    found.pass_rate = _pass_rate(passed, failed, found.judged_rate)
    if found.pass_rate is None:
        return found
    found.base_rate = found.pass_rate.value
    p = passed.holds.value if passed.holds else 0.0
    q = failed.holds.value if failed.holds else 0.0
    found.agreement = whole * p + (1 - whole) * (1 - q)
    found.kappa = _kappa(whole, p, q)
    if passed.holds is not None and failed.holds is not None:
        odds = whole / (1 - whole)
        found.kappa_low, found.kappa_high = _kappa_interval(whole, passed.holds, failed.holds)
        miss = combine([(-1.0, passed.holds), (1.0, ONE)]), combine([(-1.0, failed.holds), (1.0, ONE)])
        found.false_yes = _from_odds(miss[0], miss[1], odds)
        found.false_no = _from_odds(failed.holds, passed.holds, 1 / odds)
        found.rates = _rates(passed, failed, odds, found.counts)
        if found.rates is not None:
            found.rogan_gladen = rogan_gladen(*share_of(population), *msgspec.structs.astuple(found.rates))
    return found


def side(said: Said, seen: Sequence[Seen]) -> Side:
    """One side from its reviewed cases."""
    if not seen or not said.size:
        return Side(said.size)
    mean = said.total / said.size
    found = powered(
        [one.holds for one in seen],
        [one.certainty for one in seen],
        mean,
        max(0.0, said.squares / said.size - mean**2),
        said.size,
        [one.weight for one in seen],
    )
    holds, worth = share(found)
    return Side(said.size, len(seen), holds, worth, found.lam)


def judged_rate(population: Population) -> Estimate:
    """The judge's own pass rate, with an interval that knows dialogues."""
    share, worth = share_of(population)
    return Estimate(share, *exact(share * worth, worth))


def share_of(population: Population) -> tuple[float, float]:
    """The judge's share of yes, and how many independent outcomes it is worth."""
    n = population.passed.size + population.failed.size
    counts = np.array([k for k, _, times in population.spread for _ in range(times)])
    sizes = np.array([m for _, m, times in population.spread for _ in range(times)])
    return population.passed.size / n, effective_size(counts, sizes) if len(sizes) else float(n)


def _pass_rate(passed: Side, failed: Side, judged: Estimate) -> Estimate | None:
    if any(one.size and one.holds is None for one in (passed, failed)):
        return None
    p = passed.holds or Estimate(1.0, 1.0, 1.0)  # a side that is empty: what is unknown of it hardly counts
    q = failed.holds or Estimate(0.0, 0.0, 0.0)
    w = judged.value
    found = combine([(w, p), (1 - w, q), (p.value - q.value, judged), (q.value - p.value, Estimate(w, w, w))])
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def _from_odds(above: Estimate, below: Estimate, odds: float) -> Estimate | None:
    """above·odds / (above·odds + below) as a share."""
    found = ratio(above, below)
    if math.isnan(found.value):
        return None

    def share(r: float) -> float:
        return 1.0 if math.isinf(r) else odds * r / (1 + odds * r)

    return Estimate(share(found.value), share(found.low), share(found.high))


def _rates(passed: Side, failed: Side, odds: float, counts: Confusion) -> Rates | None:
    """Sensitivity and specificity, and how many reviews they are worth by the delta method."""
    assert passed.holds is not None and failed.holds is not None
    if min(counts.tp + counts.fn, counts.fp + counts.tn) < LEAST:
        return None
    sides = ((passed.holds.value, passed.worth), (failed.holds.value, failed.worth))
    p, q = ((value * n + 0.5) / (n + 1) for value, n in sides)  # away from 0 and 1, where nothing has a variance
    n_p, n_q = passed.worth, failed.worth
    sensitivity = odds * passed.holds.value
    specificity = 1 - failed.holds.value
    truly, falsely = sensitivity + failed.holds.value, specificity + odds * (1 - passed.holds.value)
    if not truly or not falsely:
        return None
    se, sp = odds * p / (odds * p + q), (1 - q) / (1 - q + odds * (1 - p))
    worth_se = 1 / (se * (1 - se) * ((1 - p) / (p * n_p) + (1 - q) / (q * n_q)))
    worth_sp = 1 / (sp * (1 - sp) * (q / ((1 - q) * n_q) + p / ((1 - p) * n_p)))
    return Rates(sensitivity / truly, worth_se, specificity / falsely, worth_sp)


def _kappa(whole: float, p: float, q: float) -> float | None:
    value = float(kappa([whole * p, whole * (1 - p), (1 - whole) * q, (1 - whole) * (1 - q)]))
    return None if math.isnan(value) else value


def _kappa_interval(whole: float, p: Estimate, q: Estimate) -> tuple[float | None, float | None]:
    """By recovered variances: kappa grows with p and falls with q. A bootstrap knows nothing of errors that a small
    sample of a large stratum did not happen to hold."""
    value = _kappa(whole, p.value, q.value)
    ends = [_kappa(whole, x, y) for x, y in ((p.low, q.value), (p.value, q.high), (p.high, q.value), (p.value, q.low))]
    if value is None or None in ends:
        return None, None
    gaps = [end - value for end in ends if end is not None]
    return value - math.hypot(*gaps[:2]), min(1.0, value + math.hypot(*gaps[2:]))


ONE = Estimate(1.0, 1.0, 1.0)
_FOUR = [(True, True), (True, False), (False, True), (False, False)]
