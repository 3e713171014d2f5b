"""Two models on one benchmark, paired by task: the whole and every category, better, worse, or chance.

Both must have been run by the same version of the harness, against the same simulated user and with the same handling
of thinking: else the difference is not the models'. Repetitions of a task are averaged first. What either side lost to
somebody else than the agent is left out, and counted. The p of the categories are corrected together (Holm); the whole
stands alone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cm2.assure.compare_result import Change
from cm2.assure.multiple import holm
from cm2.assure.paired import Contrast, contrast
from cm2.errors import ConfigError
from cm2.harness.results import Outcome, Results, paired, read

SAME = ("benchmark", "harness", "user_model", "thinking")
WHOLE = "all tasks"


class PartChange(msgspec.Struct, kw_only=True):
    """One category, or the whole, under both models."""

    name: str
    change: Change = "not compared"
    contrast: Contrast | None = None
    p: float | None = None
    """Corrected, but for the whole."""
    left_out: int = 0
    """Tasks that only one side has a score for."""


class BenchmarkComparison(msgspec.Struct, kw_only=True):
    """B against A on a benchmark."""

    benchmark: str
    harness: str
    name_a: str
    name_b: str
    alpha: float
    parts: list[PartChange]
    """The whole first."""
    notes: list[str] = msgspec.field(default_factory=list)

    def changed(self, change: Change) -> list[str]:
        """The parts that came out so."""
        return [part.name for part in self.parts if part.change == change]


def compare_benchmarks(
    a: str | Path, b: str | Path, name_a: str = "A", name_b: str = "B", alpha: float = 0.05
) -> BenchmarkComparison:
    """Compare two folders of results.

    Raises:
        DataError: one is no such folder.
        ConfigError: they are not of the same benchmark under the same conditions, or share no task.
    """
    (before, rows_a), (after, rows_b) = read(a), read(b)
    for field in SAME:
        ours, theirs = getattr(before, field), getattr(after, field)
        if ours != theirs:
            raise ConfigError(
                f"the two differ in {field.replace('_', ' ')}: {ours} and {theirs}",
                fix="run both alike: such a difference is not the models'",
            )
    whole = _part(WHOLE, rows_a, rows_b)
    if whole.contrast is None:
        raise ConfigError("the two share no task that both have a score for", fix="run the same tasks")
    whole.p = whole.contrast.p
    named = [one.name for one in before.categories if one.name in {other.name for other in after.categories}]
    parts = [_part(name, _of(rows_a, name), _of(rows_b, name)) for name in named]
    tested = [part for part in parts if part.contrast is not None]
    for part, p in zip(tested, holm([part.contrast.p for part in tested if part.contrast is not None]), strict=True):
        part.p = p
    for part in (whole, *tested):
        part.change = _change(part, alpha)
    return BenchmarkComparison(
        benchmark=before.benchmark,
        harness=before.harness,
        name_a=name_a,
        name_b=name_b,
        alpha=alpha,
        parts=[whole, *parts],
        notes=_notes(before, after, name_a, name_b),
    )


def table(found: BenchmarkComparison) -> list[list[str]]:
    """Head and rows, in percent."""
    rows = [["", "n", f"{found.name_a} → {found.name_b}, %", "B − A [95 %]", "+/−", "p", ""]]
    for part in found.parts:
        one = part.contrast
        if one is None:
            rows.append([part.name, "0", "–", "–", "–", "–", part.change])
            continue
        spread = f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
        p = "–" if part.p is None else "< 0.001" if part.p < 0.001 else f"{part.p:.3f}"
        means = f"{100 * one.a:.1f} → {100 * one.b:.1f}"
        rows.append([part.name, str(one.n), means, spread, f"{one.better}/{one.worse}", p, part.change])
    return rows


def markdown(found: BenchmarkComparison) -> str:
    """The table and the notes, for a pull request."""
    head, *rows = table(found)
    lines = [f"**{found.benchmark}** ({found.harness})", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in found.notes)]).rstrip() + "\n"


def _part(name: str, rows_a: list[Outcome], rows_b: list[Outcome]) -> PartChange:
    a, b = paired(rows_a), paired(rows_b)
    shared = sorted(a.keys() & b.keys())
    every = {f"{one.category}/{one.task}" for one in [*rows_a, *rows_b]}
    made = contrast([a[task] for task in shared], [b[task] for task in shared])
    return PartChange(name=name, contrast=made, left_out=len(every) - len(shared))


def _of(rows: list[Outcome], name: str) -> list[Outcome]:
    return [one for one in rows if name == one.category or name in one.groups]


def _change(part: PartChange, alpha: float) -> Change:
    if part.contrast is None or part.p is None:
        return "not compared"
    if part.p >= alpha or part.contrast.difference == 0:
        return "could be chance"
    return "better" if part.contrast.difference > 0 else "worse"


def _notes(a: Results, b: Results, name_a: str, name_b: str) -> list[str]:
    notes = []
    if a.tasks != b.tasks:
        notes.append("the two were run on different sets of tasks: only those that both have are compared")
    if a.runs != b.runs:
        notes.append(f"{name_a} was run {a.runs} times, {name_b} {b.runs} times")
    for one, name in ((a, name_a), (b, name_b)):
        if one.lost:
            notes.append(f"{name}: {one.lost} conversations were lost to others than the agent, and are left out")
    return notes
