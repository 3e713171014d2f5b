"""Flaky: telling a case that passes sometimes from one that broke, by counts and not by rerunning until it is green.

The runs of a case are drawn from a binomial with an unknown pass rate. A case is *flaky* if it passed and failed under
one version of the agent. Whether its rate fell is a question to Fisher's exact test, one-sided: the runs of today
against those on record (baseline and history),

    P(at most as many of the passes are among today's runs | all passes and fails of both), hypergeometric,

over all such cases together at the suite's alpha (Holm). If it fell, the case is worse, flaky or not. If it did not,
that is no proof that it is as it was: `needed_repeats` says how many runs would have shown it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from cm2.assure.gate_case import Case, Flakiness
from cm2.assure.multiple import holm
from cm2.assure.suite import Tolerate

LONGEST = 100
"""No more repeats than these are proposed."""
TOLD = 50
"""Cases for which the needed repeats are worked out."""


class Record(msgspec.Struct):
    """What is known of a case from before."""

    passed: int = 0
    """Runs under versions that a gate let pass; the others tell nothing about how it should be."""
    failed: int = 0
    flaky: bool = False
    """It passed and failed under one version."""

    @property
    def runs(self) -> int:
        """How many runs are on record."""
        return self.passed + self.failed


Key = tuple[str, str]


def fell(passed: int, failed: int, before: Record) -> float:
    """p of Fisher's exact test that the pass rate is not below the one on record; 1 where one side has no runs."""
    if not (passed + failed) or not before.runs:
        return 1.0
    from scipy import stats

    table = [[passed, failed], [before.passed, before.failed]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def power(before: float, now: float, runs_before: int, runs_now: int, alpha: float) -> float:
    """The probability that Fisher's one-sided test at alpha sees a fall from rate `before` to rate `now`: exact, over
    all outcomes of both binomials."""
    import numpy as np
    from scipy import stats

    a, b = np.arange(runs_before + 1)[:, None], np.arange(runs_now + 1)[None, :]
    p = stats.hypergeom.cdf(b, runs_before + runs_now, a + b, runs_now)
    weight = stats.binom.pmf(a, runs_before, before) * stats.binom.pmf(b, runs_now, now)
    return float(weight[p <= alpha * (1 + 1e-9)].sum())


@functools.lru_cache(maxsize=512)
def needed_repeats(
    before: float, now: float, alpha: float, wanted: float, runs_before: int | None = None, longest: int = LONGEST
) -> int | None:
    """The smallest number of runs that sees a fall from `before` to `now` with probability `wanted`; None where
    `longest` do not.

    Args:
        before, now: pass rates.
        alpha: of the test.
        wanted: its power.
        runs_before: runs on record; as many as now where None.
        longest: see there.
    """
    if not now < before:
        return None
    for runs in range(1, longest + 1):
        if power(before, now, runs_before or runs, runs, alpha) >= wanted:
            return runs
    return None


def settle(
    cases: Iterable[Case],
    records: Mapping[Key, Record],
    tolerates: Callable[[Case], Tolerate],
    alpha: float,
    detect: float,
    wanted: float,
) -> Flakiness:
    """Decide which cases that fail are flaky, and which are worse than they were; sets `status` and `worse`.

    Args:
        cases: with `status` "failed" where a run failed.
        records: what is known of them.
        tolerates: which flaky cases are not counted as failing.
        alpha, detect, wanted: see `Suite`.
    """
    cases = list(cases)
    for case in cases:
        record = records.get(case.key, Record())
        case.record_passed, case.record_failed = record.passed, record.failed
    suspects = [case for case in cases if case.failed and (case.mixed or records.get(case.key, Record()).flaky)]
    ps = holm([fell(case.passed, case.failed, records.get(case.key, Record())) for case in suspects])
    found = Flakiness(alpha=alpha / max(len(suspects), 1))
    for case, p in zip(suspects, ps, strict=True):
        known = records.get(case.key, Record()).flaky
        found.known += known
        case.worse = p <= alpha
        tolerated = tolerates(case)
        if not case.worse and (tolerated == "any" or (tolerated == "known" and known)):
            case.status = "flaky"
    repeated = [case for case in cases if case.runs > 1]
    found.repeated, found.flaky = len(repeated), sum(case.mixed for case in repeated)
    if repeated:
        from cm2.assure.gate_tally import bounds

        found.rate = found.flaky / found.repeated
        found.low, found.high = bounds(found.rate, found.repeated)
    for case in [one for one in suspects if not one.worse][:TOLD]:
        runs, passed = case.record_passed + case.record_failed, case.record_passed
        rate = (passed + case.passed) / (runs + case.runs)
        below = max(0.0, math.floor((rate - detect) * 100) / 100)
        name = f"{case.dialogue}: {case.duty}"
        found.repeats[name] = needed_repeats(round(rate, 2), below, found.alpha, wanted, runs or None)
    return found
