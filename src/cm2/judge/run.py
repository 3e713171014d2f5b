"""Judging a file: every dialogue by its own checklists, those of another file or a policy, into an append-only store.

The store holds one verdict a line and item and step. What it holds is not judged again, but for what a model or its
provider failed to decide: that is tried again, as a new draw, and of several lines with one key the last one counts.
Beside the store lies `VERDICTS.input.json`, the fingerprint of what was judged by whom: a store is never continued on
another input or by another judge.

Dialogues stream through, some of them under way at once where a model is asked, and are written in their order. What is
kept of a store is nine bytes a verdict; of the input, the ids of its dialogues.

Dialogues that share an id are told apart by `Verdict.rollout`: empty for the first, then "2", "3" …
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec

from cm2.checklist import Checklist, Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.jsonlines import parse
from cm2.formats.origin import claim, fingerprint
from cm2.formats.store import Store, check_store
from cm2.judge.job import Job, Judged, judge_job, merged
from cm2.judge.judge import AsyncJudge, Judge
from cm2.judge.judging import Judging
from cm2.judge.make import make_judge
from cm2.judge.question import Counts
from cm2.judge.stored import Stored
from cm2.judge.summary import Summary, Tally
from cm2.llm.flow import ordered
from cm2.llm.request import Asker
from cm2.policy import Policy, load_policy
from cm2.verdict import Verdict

__all__ = ["JudgeConfig", "Summary", "Tally", "judge_file"]

KEPT_PROBLEMS = 5
Tasks = Iterable[tuple[int, Task]]


class JudgeConfig(msgspec.Struct):
    """What to judge, by whom, into which store."""

    input: str
    """The dialogues to judge: a reference with checklists, or an agent's runs."""
    output: str
    """The store of verdicts (JSONL). The same command goes on where a killed one stopped."""
    checklists: str | None = None
    """Where the checklists are, when not on the rows of `input`: the same dialogue ids, turns line up by index."""
    policy: str | None = None
    """A policy (YAML) to judge by: its duties, in place of any checklists."""
    format: str = "auto"
    """The format of `input` and `checklists`, when it cannot be told from the rows."""
    concurrency: int = 16
    """Dialogues under way at once, where a model is asked. Raise it until the endpoint's limits bite."""
    judging: Judging = msgspec.field(default_factory=Judging)
    """Who judges, and how."""


def judge_file(
    config: JudgeConfig,
    judge: Judge | None = None,
    progress: Callable[[Tasks], Tasks] = lambda tasks: tasks,
    *,
    asker: Asker | Sequence[Asker] | None = None,
    dry: bool = False,
) -> Summary:
    """Judge every dialogue of `config.input` and append what its store does not hold yet.

    Args:
        config: what to do.
        judge: who judges, in place of the one that `config.judging` describes.
        progress: wraps the tasks as they are read.
        asker: whom that one asks (`cm2.llm.Models`).
        dry: write nothing; for a judge whose models plan only.

    Raises:
        ConfigError: the store was begun on another input or by another judge, input and output are the same file, or
            the output's name is none of a store.
        DataError: an input is missing, empty or of another format; no dialogue has a checklist.
        ProviderError: the judge's provider refuses every request; what was judged is kept.
        BudgetReached: there is no money left; what was judged is kept.
    """
    check_store(config.output)
    judge = judge or make_judge(config.judging, asker)
    if config.policy is not None and config.checklists is not None:
        raise ConfigError("a policy takes the place of checklists", fix="give --policy or --checklists, not both")
    for path in (config.input, config.checklists, config.policy):
        if path is not None and os.path.realpath(path) == os.path.realpath(config.output):
            raise ConfigError("input and output are the same file", fix="give -o another name")
    summary = Summary(by_policy=config.policy is not None)
    before = Counts()
    before.add(getattr(judge, "counts", Counts()))
    lent = _lent(config) if config.checklists is not None else None
    policy = load_policy(config.policy) if config.policy is not None else None
    source = _fingerprints(config)
    if policy is not None:
        source["policy"] = policy.fingerprint
    if identity := getattr(judge, "identity", getattr(judge, "name", type(judge).__name__)):
        source["judge"] = identity
    claim(config.output, source, note=False)
    jobs = _jobs(config, policy if lent is None else lent, summary, progress)
    stored = Stored()
    if dry:
        _read(config.output, stored)
        _run(
            config,
            judge,
            summary,
            stored,
            jobs,
            lambda verdict: None,
        )
    else:
        with Store(config.output, key=stored.add) as store:
            claim(config.output, source)
            _run(
                config,
                judge,
                summary,
                stored,
                jobs,
                store.append,
            )
    summary.counts = _since(before, getattr(judge, "counts", Counts()))
    if summary.dialogues and summary.without_checklist == summary.dialogues:
        raise DataError(
            "no dialogue has a checklist",
            where=Where(file=config.checklists or config.input),
            fix="label it first (cm2 label IN -o OUT), name the labelled file with --checklists, or judge by --policy",
        )
    return summary


def _jobs(
    config: JudgeConfig,
    lent: dict[str, list[Checklist]] | Policy | None,
    summary: Summary,
    progress: Callable[[Tasks], Tasks],
) -> Iterator[Job]:
    """The dialogues of the input, counted as they are read."""

    def problem(row: Any) -> None:
        summary.unreadable += 1
        if len(summary.problems) < KEPT_PROBLEMS:
            summary.problems.append(f"line {row.line}: {row.error}")

    seen: dict[str, int] = {}
    for _, task in progress(read_tasks(config.input, config.format, on_error=problem)):
        id = task.dialogue.id
        seen[id] = seen.get(id, 0) + 1
        summary.dialogues += 1
        summary.duplicates += seen[id] > 1
        if isinstance(lent, Policy):
            checklists = lent.checklists(task.dialogue)
        else:
            checklists = task.checklists if lent is None else lent.get(id, [])
        summary.without_checklist += not checklists
        yield Job(task, str(seen[id]) if seen[id] > 1 else "", checklists)


def _run(
    config: JudgeConfig,
    judge: Judge,
    summary: Summary,
    stored: Stored,
    jobs: Iterator[Job],
    write: Callable[[Verdict], None],
) -> None:
    """Judge the dialogues, in order."""
    stored.seal()
    waits = hasattr(judge, "judge_async")
    for turns in (
        _awaited(jobs, cast(AsyncJudge, judge), stored, config.concurrency) if waits else _now(jobs, judge, stored)
    ):
        for turn in turns:
            summary.add(turn.checklist, turn.said, needs_check=not waits)
            for verdict in turn.new:
                write(verdict)
                summary.written += 1


def _now(jobs: Iterator[Job], judge: Judge, stored: Stored) -> Iterator[list[Judged]]:
    for job in jobs:
        yield [
            merged(job, checklist, stored, judge.judge(job.task.dialogue, checklist.turn, checklist))
            for checklist in job.checklists
        ]


def _awaited(jobs: Iterator[Job], judge: AsyncJudge, stored: Stored, width: int) -> Iterator[list[Judged]]:
    async def work(job: Job) -> list[Judged]:
        return await judge_job(job, judge, stored)

    for _, turns in ordered(jobs, work, width):
        yield turns


def _since(before: Counts, after: Counts) -> Counts:
    return Counts(*(getattr(after, name) - getattr(before, name) for name in Counts.__struct_fields__))


def _read(path: str, stored: Stored) -> None:
    """Take in a store without opening it for writing; what is no row of it is for a real run to complain about."""
    try:
        with open(path, "rb") as file:
            for line in file:
                row, wrong = parse(line)
                if (
                    wrong is None
                    and isinstance(row, dict)
                    and {"dialogue", "turn", "step", "item", "met"} <= row.keys()
                ):
                    stored.add(row)
    except FileNotFoundError:
        return


def _lent(config: JudgeConfig) -> dict[str, list[Checklist]]:
    assert config.checklists is not None
    lent: dict[str, list[Checklist]] = {}
    for line, task in read_tasks(config.checklists, config.format):
        if task.dialogue.id in lent and task.checklists != lent[task.dialogue.id]:
            where = Where(file=config.checklists, line=line, dialogue=task.dialogue.id)
            raise DataError("two rows of this id have different checklists", where=where, fix="make the ids unique")
        lent[task.dialogue.id] = task.checklists
    return lent


def _fingerprints(config: JudgeConfig) -> dict[str, str]:
    paths = {"input": config.input, "checklists": config.checklists}
    return {name: fingerprint(path) for name, path in paths.items() if path is not None}
