"""Reading a side: dialogues (judged by a store of verdicts, or now, by checks), a store of rollouts (`cm2 rollout`,
`cm2 evaluate`), or the result of a gate. What a file holds is told from its content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cm2.assure.compare_side import Cell, DutyInfo, Side, add_run
from cm2.assure.gate_case import FORMAT, read_result
from cm2.assure.gate_runs import Duties, Reading, Shown, read_runs, read_with_verdicts
from cm2.assure.outcomes import Outcome, decide_outcomes
from cm2.assure.suite import Suite
from cm2.checklist import Checklist, Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.rows import read_rows
from cm2.judge import ChecksJudge
from cm2.policy import Policy
from cm2.policy.policy import WEIGHTS
from cm2.rollout.trace import Rollout, read_rollouts

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def as_it_is(runs: Iterable[Any]) -> Iterable[Any]:
    """No progress to show."""
    return runs


class Source(msgspec.Struct, kw_only=True):
    """Where a side comes from, and by which duties it is looked at."""

    path: str
    name: str
    verdicts: str | None = None
    """A store of `cm2 judge` about the dialogues. None: they are judged now, by checks."""
    policy: Policy | None = None
    policy_file: str | None = None
    checklists: str | None = None
    """A labelled file with the checklists of dialogues of the same ids."""
    pair_by: str | None = None
    """The field of a dialogue's `meta` that names its task, where each run has an id of its own."""
    format: str = "auto"


def read_side(source: Source, progress: Progress = as_it_is) -> Side:
    """A side, read and judged.

    Raises:
        DataError: the file is missing, empty or of no known kind; there is nothing to judge it by.
        ConfigError: settings do not fit the kind of file.
    """
    path, kind = _kind(source.path)
    side = Side(source.name, source.path, kind)
    if kind != "dialogues" and source.verdicts is not None:
        what = "rollouts carry their verdicts" if kind == "rollouts" else "a gate's result is judged"
        raise ConfigError(f"{source.path}: {what}", fix="leave the store of verdicts out")
    if kind == "gate":
        if source.policy or source.checklists:
            raise ConfigError(f"{path} is the result of a gate, which is judged", fix="leave the duties out")
        _read_gate(side, path)
    elif kind == "rollouts":
        _read_rollouts(side, source, path, progress)
    else:
        _read_dialogues(side, source, progress)
    if not side.runs and not side.lost:
        raise DataError("there is no run in it", where=Where(file=source.path), fix="check the path")
    return side


def _kind(path: str) -> tuple[str, str]:
    """The file to read, and what it holds."""
    inside = os.path.join(path, "rollouts.jsonl")
    if os.path.isdir(path) and os.path.isfile(inside):
        return inside, "rollouts"
    if path.endswith(".json") and os.path.isfile(path):
        with open(path, "rb") as file:
            head = file.read(65536)
        if FORMAT.encode() in head:
            return path, "gate"
    first = next((row.value for row in read_rows(path) if row.value is not None), None)
    if isinstance(first, dict) and isinstance(first.get("task"), str) and isinstance(first.get("dialogue"), dict):
        return path, "rollouts"
    return path, "dialogues"


def _read_gate(side: Side, path: str) -> None:
    result = read_result(path, "result of a gate")
    for case in result.cases:
        if case.status == "not_judged":
            side.unjudged.add(case.duty)
            continue
        side.duties.setdefault(case.duty, DutyInfo(case.severity, case.owner, case.question))
        weight = WEIGHTS[case.severity]
        cell = Cell(case.passed, case.failed, case.unscored, case.not_applicable)
        cell.won, cell.weight = weight * case.passed, weight * case.runs
        cell.definition, cell.reason = case.definition, case.reason
        side.cells.setdefault(case.duty, {})[case.dialogue] = cell
        runs = case.passed + case.failed + case.unscored + case.not_applicable
        side.runs[case.dialogue] = max(side.runs.get(case.dialogue, 0), runs)


def _read_dialogues(side: Side, source: Source, progress: Progress) -> None:
    if source.verdicts is not None and source.policy is not None and source.checklists is not None:
        raise ConfigError("verdicts are by a policy or by checklists", fix="give one of --policy and --checklists")
    suite = Suite(
        dialogues=source.path,
        verdicts=source.verdicts,
        policy=source.policy_file,
        tasks=source.checklists,
        runs_of=source.pair_by,
        format=source.format,
    )
    reading = Reading()
    known = False
    metrics: dict[str, dict[str, list[float]]] = {}
    if source.verdicts is not None:
        shown = iter(progress(read_with_verdicts(suite, source.policy, reading)))
    else:
        runs = progress(read_runs(suite, Duties(source.policy, _labelled(source)), reading))
        shown = (Shown(run, _judged(run.dialogue, run.checklists)) for run in runs)
    for one in shown:
        known = known or any(outcome.verdict is not None for outcome in one.outcomes)
        add_run(side, one.run.task, one.outcomes, digest=source.policy is None)
        reward = one.run.dialogue.meta.get("reward")
        if isinstance(reward, bool | int | float):
            _note(metrics, "outcome", one.run.task, float(reward))
    _settle(side, metrics)
    side.unreadable, side.problems = reading.unreadable, list(reading.problems)
    if not side.cells and not side.unjudged and side.runs:
        fix = "give --policy POLICY.yaml or --checklists LABELLED, or label the dialogues first"
        raise DataError("no dialogue has a checklist", where=Where(file=source.path), fix=fix)
    if source.verdicts is not None and side.cells and not known:
        where = Where(file=source.verdicts)
        raise DataError(f"no verdict in it is about {source.path}", where=where, fix="judge first: cm2 judge")


def _judged(dialogue: Dialogue, groups: list[list[Checklist]]) -> list[Outcome]:
    """How a dialogue's duties come out by checks. Ids of items are unique only within a group."""
    judge, found = ChecksJudge(), list[Outcome]()
    for group in groups:
        verdicts = [one for checklist in group for one in judge.judge(dialogue, checklist.turn, checklist)]
        found += decide_outcomes(dialogue, "", group, verdicts)
    return found


def _labelled(source: Source) -> dict[str, Task] | None:
    """The tasks whose checklists are lent; None where dialogues carry their own, which a policy stands in place of."""
    if source.checklists is None:
        return None if source.policy is None else {}
    return {task.dialogue.id: task for _, task in read_tasks(source.checklists, source.format)}


def _read_rollouts(side: Side, source: Source, path: str, progress: Progress) -> None:
    duties = Duties(source.policy, _labelled(source)) if source.policy or source.checklists else None
    metrics: dict[str, dict[str, list[float]]] = {}
    for rollout in progress(read_rollouts(path)):
        task = _task_of(rollout, source)
        if rollout.failure is not None:
            side.lost.setdefault(task, []).append(rollout.failure.owner)
            continue
        if duties is None:
            outcomes = decide_outcomes(rollout.dialogue, "", rollout.checklists, rollout.verdicts)
        else:
            outcomes = _judged(rollout.dialogue, duties.of(rollout.dialogue, rollout.task, []))
        add_run(side, task, outcomes, digest=source.policy is None)
        for name, value in _scores(rollout):
            _note(metrics, name, task, value)
    _settle(side, metrics)


def _task_of(rollout: Rollout, source: Source) -> str:
    if source.pair_by is not None:
        name = rollout.dialogue.meta.get(source.pair_by)
        if not isinstance(name, str | int):
            where = Where(file=source.path, dialogue=rollout.task)
            raise DataError(f"its meta has no {source.pair_by!r}", where=where, fix="correct --pair-by")
        return str(name)
    return f"{rollout.task}#{rollout.group}" if rollout.group else rollout.task


def _scores(rollout: Rollout) -> Iterator[tuple[str, float]]:
    for name in ("reward", "strict_pass"):
        value = rollout.score.get(name)
        if isinstance(value, bool | int | float):
            yield name, float(value)
    success = rollout.outcome.get("success")
    if isinstance(success, bool | int | float):
        yield "outcome", float(success)


def _note(metrics: dict[str, dict[str, list[float]]], name: str, task: str, value: float) -> None:
    metrics.setdefault(name, {}).setdefault(task, []).append(value)


def _settle(side: Side, metrics: dict[str, dict[str, list[float]]]) -> None:
    for name, found in metrics.items():
        side.metrics[name] = {task: sum(values) / len(values) for task, values in found.items()}
