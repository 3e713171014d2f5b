"""Words: a report as tables and sentences for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from cm2.assure.audit.correct import Estimate
from cm2.assure.audit.measure import Measured
from cm2.assure.audit.report import Applied, Report


def shown(found: Report) -> list[Any]:
    """The tables and notes of a report."""
    rows = [*found.duties, _named(found.total)]
    return [_errors(found, rows), _rates(rows), *_notes(found)]


def _named(total: Measured) -> Measured:
    """The total under the name that tables give it."""
    import msgspec

    return msgspec.structs.replace(total, name="all")


def _errors(found: Report, rows: list[Measured]) -> Table:
    table = _table(
        f"{', '.join(found.judges)}: {found.reviewed} of {found.cases} cases reviewed",
        ("reviewed", "false yes", "false no", "kappa"),
    )
    for one in rows:
        table.add_row(
            one.name,
            f"{one.passed.reviewed}+{one.failed.reviewed}",
            rate(one.false_yes),
            rate(one.false_no),
            _kappa(one.kappa, one.kappa_low, one.kappa_high),
        )
    return table


def _rates(rows: list[Measured]) -> Table:
    table = _table(
        "pass rates: as judged, and corrected by the reviews",
        ("judged", "PPI", "Rogan–Gladen", "unscored", "n/a"),
    )
    for one in rows:
        table.add_row(
            one.name,
            rate(one.judged_rate),
            rate(one.pass_rate),
            rate(one.rogan_gladen),
            str(one.unscored),
            str(one.not_applicable),
        )
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title)
    table.add_column("duty", overflow="fold", min_width=10)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def applied_table(found: list[Applied], logs: str) -> Table:
    """Corrected pass rates of other logs."""
    table = _table(
        f"{logs.rsplit('/', 1)[-1]}: corrected by this audit",
        ("n", "judged", "Rogan–Gladen"),
    )
    for one in found:
        table.add_row(one.duty or "all", str(one.n), rate(one.judged_rate), rate(one.rogan_gladen))
    return table


def _notes(found: Report) -> list[str]:
    total = found.total
    notes = [
        "reviewed: what the judge passed + what it failed; in brackets 95 % intervals",
        "false yes: of what does not hold, the share that the judge passes; false no: of what holds, those it fails",
        "kappa is to be read beside the base rate, which is the corrected pass rate (PPI)",
    ]
    for count, what in (
        (total.cannot_tell, "cases that nobody could tell"),
        (total.applies_not, "judged cases to which the duty does not apply, people say"),
        (total.undecided, "cases on which people differ: a third review decides"),
    ):
        if count:
            notes.append(f"{count} {what}; in no rate")
    if found.covered < 1:
        notes.append(
            f"not yet known about {1 - found.covered:.1%} of all outcomes: no case of their strata has a known truth;"
            " the rates are about the others"
        )
    for name, counts in (("unscored", found.unscored), ("not applicable", found.not_applicable)):
        if counts:
            said = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())
            notes.append(f"what the judge left {name}, people say is: {said}")
    people = found.people
    if people.cases:
        notes.append(
            f"people: {people.cases} cases with two reviews or more, agreement {percent(people.agreement)},"
            f" kappa {_kappa(people.kappa, people.kappa_low, people.kappa_high)}"
            f" at a base rate of {percent(people.base_rate)}"
        )
    elif len(people.reviewers) == 1:
        notes.append("one person reviewed: how far people agree is not known")
    if found.to_double:
        notes.append(f"{found.to_double} cases want a second person")
    if any(found.changes.values()):
        notes.append("duties: " + ", ".join(f"{count} {what}" for what, count in found.changes.items() if count))
    return notes


def percent(value: float | None) -> str:
    """A share."""
    return "–" if value is None else f"{value:.1%}"


def rate(found: Estimate | None) -> str:
    """A share with its interval."""
    return "–" if found is None else f"{100 * found.value:.0f}% ({100 * found.low:.0f}–{100 * found.high:.0f})"


def _kappa(value: float | None, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f" ({low:.2f}–{high:.2f})"
    return "–" if value is None else f"{value:.2f}{interval}"
