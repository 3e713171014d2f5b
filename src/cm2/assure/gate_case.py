"""Case: one duty in one dialogue, over all runs of it; and the result of a gate, which is made of cases.

A run may show a duty several times, in several turns. It counts once, by its worst: fail before unscored before pass
before not applicable. So the runs of a case are a list of yes and no, cases of different dialogues are independent,
and everything that is said of rates and of change is said of cases.
"""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from cm2.checklist import Severity
from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode
from cm2.formats.target import replacing
from cm2.verdict import Pointer

FORMAT = "cm2-gate/1"
Status = Literal["passed", "failed", "flaky", "unscored", "not_applicable", "not_judged"]
State = Literal["passed", "failed", "undecided"]


class Case(msgspec.Struct, omit_defaults=True):
    """One duty in one dialogue."""

    dialogue: str
    duty: str
    severity: Severity = "major"
    owner: str = ""
    definition: str = ""
    """Digest of the items that made it: cases of another definition are not compared."""
    passed: int = 0
    """Runs in which it passed; the other three likewise."""
    failed: int = 0
    unscored: int = 0
    not_applicable: int = 0
    status: Status = "not_applicable"
    """failed: it counts as failing. flaky: it passed and failed, and that is tolerated. not_judged: the judge cannot
    decide it at all (no check, and no model was to be asked)."""
    worse: bool = False
    """Flaky or not, its runs are significantly worse than those on record."""
    new: bool = False
    """It fails and did not in the baseline."""
    record_passed: int = 0
    """Runs that the baseline and the history have of it."""
    record_failed: int = 0
    question: str = ""
    reason: str = ""
    """Of a run that failed, else of one that is unscored: why, and where."""
    turn: int | None = None
    item: str = ""
    run: str = ""
    line: int = 0
    """In the file of runs; 0 where the gate made them."""
    evidence: list[Pointer] = []
    unscored_by: str = ""
    """Whose failure it is that it is unscored: judge, provider, simulator, data."""

    @property
    def key(self) -> tuple[str, str]:
        """What pairs it with the same case of another result."""
        return (self.dialogue, self.duty)

    @property
    def runs(self) -> int:
        """Runs that were scored."""
        return self.passed + self.failed

    @property
    def rate(self) -> float | None:
        """Share of its scored runs that passed."""
        return self.passed / self.runs if self.runs else None

    @property
    def mixed(self) -> bool:
        """Whether it passed and failed, in runs of one version."""
        return self.passed > 0 and self.failed > 0

    @property
    def where(self) -> str:
        """The place of the example, for a person."""
        parts = [f"run {self.run}"] if self.run else []
        if self.turn is not None and self.turn >= 0:
            parts.append(f"turn {self.turn}")
        if self.item and self.item != self.duty:
            parts.append(f"item {self.item}")
        return ", ".join(parts)


class Rate(msgspec.Struct, omit_defaults=True):
    """How cases with one duty, or of one severity, came out."""

    name: str
    severity: Severity
    owner: str = ""
    question: str = ""
    cases: int = 0
    """Those in which it applies."""
    passed: int = 0
    failed: int = 0
    flaky: int = 0
    unscored: int = 0
    not_applicable: int = 0
    not_judged: int = 0
    rate: float | None = None
    """Mean over the scored cases of their share of runs that passed."""
    low: float | None = None
    high: float | None = None
    before: float | None = None
    """The rate of the same cases in the baseline …"""
    paired: int = 0
    """… and how many these are."""
    p: float | None = None
    """That they fell by chance: one-sided, after Holm's correction."""


class Rule(msgspec.Struct, omit_defaults=True):
    """One thing that the gate asks, and whether it is so."""

    name: str
    """What is asked of whom: `critical: max_fails`, `confirm-before-write: baseline`."""
    state: State
    message: str
    owner: str = ""


class Flakiness(msgspec.Struct, omit_defaults=True):
    """What is known about cases that pass and fail."""

    repeated: int = 0
    """Cases with several scored runs: the others could not show it."""
    flaky: int = 0
    """Of those, the ones that passed and failed."""
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    known: int = 0
    """Flaky cases, repeated here or not, that were on record as such."""
    alpha: float = 0.05
    """What each of them was tested at, at the least (Bonferroni's bound of Holm's correction)."""
    repeats: dict[str, int | None] = {}
    """For each flaky case the repeats that see the fall which the suite asks for; None where no number to 100 does."""


class GateResult(msgspec.Struct, omit_defaults=True, tag_field="format", tag=FORMAT):
    """What a gate found; also the baseline of a later one."""

    suite: str
    state: State
    id: str = ""
    """Names this run of the gate."""
    at: str = ""
    version: str = ""
    """Of the agent: a commit, a tag."""
    source: str = ""
    """The file of runs, or the endpoint's model and host."""
    policy: str | None = None
    dialogues: int = 0
    runs: int = 0
    lost: int = 0
    """Runs that failed through somebody else than the agent, and tasks that were never run."""
    unreadable: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    """US dollars, of the judge."""
    rules: list[Rule] = []
    severities: list[Rate] = []
    duties: list[Rate] = []
    flakiness: Flakiness = msgspec.field(default_factory=Flakiness)
    notes: list[str] = []
    cases: list[Case] = []

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed or undecided."""
        return 0 if self.state == "passed" else 1

    def ruled(self, state: State) -> list[Rule]:
        """The rules that came out so."""
        return [rule for rule in self.rules if rule.state == state]

    def with_status(self, *statuses: Status) -> list[Case]:
        """The cases that came out so, worst severity first."""
        order = {"critical": 0, "major": 1, "minor": 2}
        found = [case for case in self.cases if case.status in statuses]
        return sorted(found, key=lambda case: (order[case.severity], case.duty, case.dialogue))


class _Head(msgspec.Struct):
    format: str = ""


def read_result(path: str, what: str = "baseline") -> GateResult:
    """A stored result.

    Raises:
        DataError: there is no such file, or it is no result of a gate.
    """
    where, fix = Where(file=path), f"make the {what} with: cm2 gate SUITE -o {os.path.basename(path)}"
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"there is no such {what}", where=where, fix=fix) from error
    try:
        if msgspec.json.decode(text, type=_Head).format != FORMAT:
            raise DataError(f"is no {what}: it does not say {FORMAT!r}", where=where, fix=fix)
        return msgspec.json.decode(text, type=GateResult)
    except msgspec.DecodeError as error:
        raise DataError(f"is no {what}: {error}", where=where, fix=fix) from error


def write_result(result: GateResult, path: str) -> None:
    """Write a result; the file has its name only when it is whole."""
    write_whole(path, encode(result) + b"\n")


def write_whole(path: str, content: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(content)
