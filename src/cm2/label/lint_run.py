"""Linting a file: every task in order, in this process or several, streamed into a summary and a report per item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.rows import RowWriter
from cm2.label.lint import lint_task
from cm2.label.lint_report import ItemReport

BATCH = 32
KEPT_PROBLEMS = 5
Tasks = Iterable[tuple[int, Task]]


class Summary(msgspec.Struct):
    """What lint saw, over a file. `reasons` counts items by failed test, `kinds` items and failed items by kind."""

    dialogues: int = 0
    checklists: int = 0
    items: int = 0
    failed: int = 0
    unscored: int = 0
    without_checklists: int = 0
    unreadable: int = 0
    reasons: dict[str, int] = {}
    tested: dict[str, int] = {}
    kinds: dict[str, dict[str, int]] = {}
    problems: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether everything was read and every item passed."""
        return not self.failed and not self.unreadable

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {**msgspec.to_builtins(self), "ok": self.ok}

    def add(self, report: ItemReport) -> None:
        """Count one item's report."""
        kind = self.kinds.setdefault(report.kind or "(none)", {"items": 0, "failed": 0, "unscored": 0})
        self.items += bool(report.item)
        self.failed += not report.ok
        self.unscored += report.unscored
        kind["items"] += bool(report.item)
        kind["failed"] += not report.ok
        kind["unscored"] += report.unscored
        for test in report.tests:
            self.tested[test] = self.tested.get(test, 0) + 1
        for test in {failure.test for failure in report.failures}:
            self.reasons[test] = self.reasons.get(test, 0) + 1


def lint_tasks(tasks: Tasks, summary: Summary, jobs: int = 1) -> Iterator[ItemReport]:
    """Reports in order of the input, counted into `summary`; a task's neighbour is the task before it. `jobs`
    worker processes share the work.

    Raises:
        ConfigError: `jobs` is less than 1.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}", fix="give 1 or more")
    batches = _batches(tasks, summary)
    if jobs == 1:
        results: Iterator[list[ItemReport]] = map(_lint_batch, batches)
    else:
        results = _ordered(jobs, batches)
    for reports in results:
        for report in reports:
            summary.add(report)
            yield report


_Batch = list[tuple[int, Task, Task | None]]


def _batches(tasks: Tasks, summary: Summary) -> Iterator[_Batch]:
    batch: _Batch = []
    before: Task | None = None
    for line, task in tasks:
        summary.dialogues += 1
        summary.checklists += len(task.checklists)
        summary.without_checklists += not task.checklists
        if task.checklists:
            batch.append((line, task, before))
        before = task
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _lint_batch(batch: _Batch) -> list[ItemReport]:
    found = []
    for line, task, neighbour in batch:
        for report in lint_task(task, neighbour):
            report.line = line
            found.append(report)
    return found


def _ordered(jobs: int, batches: Iterable[_Batch]) -> Iterator[list[ItemReport]]:
    """Results of worker processes in order, with at most three batches a worker under way (memory stays flat)."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting: list[Future[list[ItemReport]]] = []
        for batch in batches:
            waiting.append(pool.submit(_lint_batch, batch))
            if len(waiting) >= 3 * jobs:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


class LintConfig(msgspec.Struct):
    """What to lint and how."""

    input: str
    """Labelled dialogues."""
    output: str | None = None
    """Where to write a report per item (JSONL), when the summary is not enough."""
    jobs: int = 1
    """Worker processes: more than 1 pays on large files."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""


def lint_file(
    config: LintConfig, progress: Callable[[Tasks], Tasks] = lambda tasks: tasks, keep: int = 10
) -> tuple[Summary, list[ItemReport]]:
    """Lint a file: the summary, and the first `keep` reports that failed. Streams, whatever the size of the file.

    Raises:
        DataError: the file is missing, empty or of another format, or no dialogue has a checklist.
        ConfigError: `jobs` is less than 1.
    """
    summary = Summary()
    failed: list[ItemReport] = []

    def problem(row: Any) -> None:
        summary.unreadable += 1
        if len(summary.problems) < KEPT_PROBLEMS:
            summary.problems.append(f"line {row.line}: {row.error}")

    tasks = progress(read_tasks(config.input, config.format, on_error=problem))
    with RowWriter(config.output) if config.output is not None else nullcontext() as writer:
        for report in lint_tasks(tasks, summary, config.jobs):
            if writer is not None:
                writer.write(report)
            if not report.ok and len(failed) < keep:
                failed.append(report)
    if summary.dialogues and not summary.checklists:
        fix = "label it first: cm2 label IN -o OUT"
        raise DataError("no dialogue has a checklist", where=Where(file=config.input), fix=fix)
    return summary, failed
