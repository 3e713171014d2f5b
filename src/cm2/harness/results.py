"""Results: what a benchmark's own grader found, in one shape for every benchmark.

A run of a benchmark is a table of outcomes, one a task and repetition. An outcome has the official score, or it has
none, because the conversation was lost to somebody else than the agent: the user simulator, a judge, or what lies
between (an endpoint that failed, a time-out, a harness that broke down). What was lost is never a zero: it is left out,
counted by its owner, and makes the run fail unless so many were allowed. An error of the agent's own (arguments that
are no JSON, a tool that does not exist) is told too, and the official score of it stands.

A folder of results holds `results.json` (this), `outcomes.jsonl` (the table, to be paired with another's) and `raw/`
(everything that the harness wrote).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from cm2.errors import DataError, Where
from cm2.evals.intervals import Interval

SCHEMA = 1
OWNERS = ("agent", "user", "judge", "infrastructure")
Owner = Literal["agent", "user", "judge", "infrastructure"]
RESULTS, OUTCOMES, RAW = "results.json", "outcomes.jsonl", "raw"


class Outcome(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What came of one task in one repetition."""

    task: str
    category: str
    run: int = 0
    score: float | None = None
    """By the official grader, 0 to 1; None where the conversation was lost."""
    passed: bool | None = None
    """Where the benchmark knows yes and no."""
    owner: Owner | None = None
    """Whose error it was, where there was one."""
    error: str = ""
    groups: list[str] = msgspec.field(default_factory=list)
    """Further categories that the task is counted in."""
    raw: str = ""
    """The file that shows it, from the folder of results."""

    def __post_init__(self) -> None:
        if self.owner not in (None, "agent"):  # lost to somebody else: whatever the harness made of it is no score
            self.score = self.passed = None

    @property
    def lost(self) -> bool:
        """Whether there is no score, through no fault of the agent."""
        return self.score is None


class Category(msgspec.Struct, kw_only=True):
    """One part of a benchmark."""

    name: str
    n: int
    """Tasks."""
    whole: int | None = None
    """Tasks that it has when nothing is left out."""
    runs: int = 1
    scored: int = 0
    """Outcomes with a score, of n times runs."""
    score: Interval | None = None
    """Mean over tasks of their mean over runs, with a 95 % interval over tasks."""
    by_run: list[float | None] = msgspec.field(default_factory=list)
    pass_hat: dict[str, float] = msgspec.field(default_factory=dict)
    """pass^k by k: how likely k repetitions of a task all pass."""
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    """Outcomes with an error, by owner."""
    official: list[float] = msgspec.field(default_factory=list)
    """The harness's own number, one a run. It may count what was lost as the agent's failure."""
    baseline: float | None = None
    """What an agent gets here that refuses everything."""


class Headline(msgspec.Struct, kw_only=True):
    """A number that tables show: multi-turn and web search of BFCL are two."""

    name: str
    score: Interval | None = None
    by_run: list[float | None] = msgspec.field(default_factory=list)
    pass_hat: dict[str, float] = msgspec.field(default_factory=dict)
    comparable: bool = True
    """Whether all its tasks were run, and none was lost."""


class Results(msgspec.Struct, kw_only=True):
    """One model on one benchmark."""

    schema: int = SCHEMA
    benchmark: str
    harness: str
    """Package and version, or commit."""
    tasks: str
    """Hash of the set of tasks: their ids and what they are."""
    model: str
    endpoint: str
    user_model: str | None = None
    thinking: str = "keep"
    runs: int = 1
    n: int = 0
    """Tasks."""
    headlines: list[Headline] = msgspec.field(default_factory=list)
    categories: list[Category] = msgspec.field(default_factory=list)
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    allowed: int = 0
    """Lost conversations that do not make the run fail."""
    differs: list[str] = msgspec.field(default_factory=list)
    """What differs from a published run; see `comparable` of the headlines."""
    settings: dict[str, object] = msgspec.field(default_factory=dict)
    raw: str = RAW

    @property
    def lost(self) -> int:
        """Conversations that were lost to somebody else than the agent."""
        return sum(count for owner, count in self.errors.items() if owner != "agent")

    @property
    def failed(self) -> bool:
        """Whether more was lost than was allowed, or nothing was scored at all."""
        return self.lost > self.allowed or not self.headlines or any(one.score is None for one in self.headlines)

    @property
    def comparable(self) -> bool:
        """Whether every headline is."""
        return all(one.comparable for one in self.headlines)

    def category(self, name: str) -> Category:
        """The category of that name.

        Raises:
            KeyError: there is none.
        """
        for one in self.categories:
            if one.name == name:
                return one
        raise KeyError(name)


def owners(outcomes: list[Outcome]) -> dict[str, int]:
    """Errors by owner, in a fixed order, none left out where it is not 0."""
    found: Counter[str] = Counter(one.owner for one in outcomes if one.owner is not None)
    return {owner: found[owner] for owner in OWNERS if found[owner]}


def write(results: Results, outcomes: list[Outcome], folder: str | Path) -> None:
    """Put both files into the folder; the results take their name last, whole."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    rows = b"".join(msgspec.json.encode(one) + b"\n" for one in outcomes)
    for name, data in ((OUTCOMES, rows), (RESULTS, msgspec.json.format(msgspec.json.encode(results), indent=2))):
        part = place / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, place / name)


def is_results(folder: str | Path) -> bool:
    """Whether it is a folder of results."""
    return (Path(folder) / RESULTS).is_file() and (Path(folder) / OUTCOMES).is_file()


def read(folder: str | Path) -> tuple[Results, list[Outcome]]:
    """Both files of a folder.

    Raises:
        DataError: it has none, or they are of another shape.
    """
    if not is_results(folder):
        raise DataError(
            "is no folder of a benchmark's results", where=Where(file=str(folder)), fix="give what cm2 eval -o wrote"
        )
    file, line = Path(folder) / RESULTS, 0
    try:
        results = msgspec.json.decode(file.read_bytes(), type=Results)
        file, outcomes = Path(folder) / OUTCOMES, []
        for line, row in enumerate(file.read_bytes().splitlines(), start=1):  # noqa: B007
            outcomes.append(msgspec.json.decode(row, type=Outcome))
    except msgspec.DecodeError as error:
        where = Where(file=str(file), line=line or None)
        raise DataError(str(error), where=where, fix="run cm2 eval again, it goes on") from error
    if results.schema != SCHEMA:
        raise DataError(f"has the schema {results.schema}, this is {SCHEMA}", where=Where(file=str(file)))
    return results, outcomes


def paired(outcomes: list[Outcome]) -> dict[str, float]:
    """Task -> its mean score over repetitions, to be paired with another model's. What was lost is left out."""
    by_task: dict[str, list[float]] = {}
    for one in outcomes:
        if one.score is not None:
            by_task.setdefault(f"{one.category}/{one.task}", []).append(one.score)
    return {task: sum(scores) / len(scores) for task, scores in by_task.items()}
