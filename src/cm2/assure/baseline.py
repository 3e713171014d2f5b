"""Baseline: what is known from before (a stored result, a history of gates), and whether a duty fell.

Results are paired by case, one duty in one dialogue, of the same definition: a duty that was rewritten is another duty.
For each duty the paired cases are tested one-sided for a fall. Where every case ran once on both sides this is
McNemar's exact test,

    P(X ≥ b),  X ~ Binomial(b + c, 1/2),  b cases that passed and fail now, c the other way round,

and with repeats the sign-flip test on each case's difference of pass rates, which is the same thing for differences of
1. Cases of different dialogues are independent; runs of one case need not be. Holm corrects over the duties.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from cm2.assure.flaky import Key, Record
from cm2.assure.gate_case import Case, GateResult, Rate
from cm2.assure.multiple import holm
from cm2.errors import DataError, Where
from cm2.formats.store import Store


class Line(msgspec.Struct, omit_defaults=True):
    """One gate in a history."""

    id: str
    at: str
    version: str
    state: str
    cases: list[tuple[str, str, str, int, int]]
    """Dialogue, duty, definition, runs that passed, runs that failed; of cases that were scored."""


def line_of(result: GateResult) -> Line:
    """What a history keeps of a result."""
    cases = [(c.dialogue, c.duty, c.definition, c.passed, c.failed) for c in result.cases if c.runs]
    return Line(result.id, result.at, result.version, result.state, cases)


def read_history(path: str, last: int) -> list[Line]:
    """The last lines of a history; none where it has not begun.

    Raises:
        DataError: a line is none of a history.
    """
    lines: deque[tuple[int, bytes]] = deque(maxlen=last)
    try:
        with open(path, "rb") as file:
            lines.extend((number, line) for number, line in enumerate(file, 1) if line.endswith(b"\n") and line.strip())
    except FileNotFoundError:
        return []
    except IsADirectoryError as error:
        raise DataError("is a folder", where=Where(file=path), fix="name a file") from error
    found = []
    for number, line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Line))
        except msgspec.DecodeError as error:
            where, fix = Where(file=path, line=number), "take the line out, or name another history"
            raise DataError(f"is no line of a gate's history: {error}", where=where, fix=fix) from error
    return found


def append_history(path: str, result: GateResult) -> None:
    """Add a result to a history, once.

    Raises:
        CM2Error: another gate is writing it; it is no history.
    """
    with Store(path, key=lambda row: row["id"]) as store:
        if result.id not in store.done:
            store.append(line_of(result))


def records(cases: Iterable[Case], baseline: GateResult | None, history: Sequence[Line]) -> dict[Key, Record]:
    """What is known of each case.

    The rate is that of the baseline and of versions that a gate let pass. Flaky is a case that passed and failed under
    one version; that it failed under one and passed under another is what a mended fault looks like.
    """
    definitions = {case.key: case.definition for case in cases}
    lines = [] if baseline is None else [line_of(baseline)]
    accepted = {line.id for line in lines} | {line.id for line in history if line.state == "passed"}
    lines += [line for line in history if baseline is None or line.id != baseline.id]
    found: dict[Key, Record] = {}
    seen: dict[tuple[Key, str], tuple[bool, bool]] = {}
    for line in lines:
        version = line.version or f"gate {line.id}"
        for dialogue, duty, definition, passed, failed in line.cases:
            key = (dialogue, duty)
            if definitions.get(key) != definition:
                continue
            record = found.setdefault(key, Record())
            before = seen.get((key, version), (False, False))
            both = seen[key, version] = (before[0] or passed > 0, before[1] or failed > 0)
            record.flaky = record.flaky or all(both)
            if line.id in accepted:
                record.passed += passed
                record.failed += failed
    return found


class Paired(msgspec.Struct):
    """One duty before and now, over the cases that both have."""

    duty: str
    before: float
    now: float
    n: int
    p: float


def pair(now: Iterable[Case], baseline: GateResult) -> tuple[list[Paired], dict[str, int]]:
    """Every duty that both results have, tested for a fall and corrected; and what could not be compared, counted."""
    old = {case.key: case for case in baseline.cases if case.runs}
    skipped = {"changed": 0, "new": 0, "gone": 0}
    rates: dict[str, list[tuple[Case, Case]]] = {}
    met = set()
    for case in now:
        if not case.runs:
            continue
        before = old.get(case.key)
        met.add(case.key)
        if before is None:
            skipped["new"] += 1
        elif before.definition != case.definition:
            skipped["changed"] += 1
        else:
            rates.setdefault(case.duty, []).append((before, case))
    skipped["gone"] = sum(key not in met for key in old)
    found = []
    for duty, pairs in sorted(rates.items()):
        before_rate = sum(before.passed / before.runs for before, _ in pairs) / len(pairs)
        now_rate = sum(case.passed / case.runs for _, case in pairs) / len(pairs)
        found.append(Paired(duty, before_rate, now_rate, len(pairs), chance(pairs)))
    for one, p in zip(found, holm([one.p for one in found]), strict=True):
        one.p = p
    return found, skipped


def chance(pairs: Sequence[tuple[Case, Case]]) -> float:
    """p of the one-sided test that the pass rates did not fall from the first to the second of each pair."""
    if all(before.runs == case.runs == 1 for before, case in pairs):
        lost = sum(before.passed > case.passed for before, case in pairs)
        won = sum(before.passed < case.passed for before, case in pairs)
        from cm2.assure.paired import mcnemar  # here: it loads statistics that a gate without a baseline does not need

        return mcnemar(lost, won, worse=True)
    import numpy as np

    from cm2.evals.intervals import sign_flips

    fallen = np.array([before.passed / before.runs - case.passed / case.runs for before, case in pairs])
    return 1.0 if fallen.sum() <= 1e-9 else sign_flips(fallen, "greater")


def compare(cases: list[Case], duties: list[Rate], baseline: GateResult) -> tuple[list[Paired], dict[str, int]]:
    """Put what the baseline says on the cases (`new`) and the duties (`before`, `p`); see `pair`."""
    old = {case.key: case for case in baseline.cases}
    for case in cases:
        before = old.get(case.key)
        same = before is not None and before.definition == case.definition
        case.new = bool(
            same and before is not None and before.status in ("passed", "flaky") and case.status == "failed"
        )
    paired, skipped = pair(cases, baseline)
    by_duty = {one.duty: one for one in paired}
    for rate in duties:
        one = by_duty.get(rate.name)
        if one is not None:
            rate.before, rate.paired, rate.p = one.before, one.n, one.p
    return paired, skipped
