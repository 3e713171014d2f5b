"""Gate: runs of an agent against a suite, and one answer: passed, failed or undecided."""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Callable, Iterator

from cm2.assure import baseline as before
from cm2.assure import gate_rules
from cm2.assure.flaky import settle
from cm2.assure.gate_case import Case, GateResult, read_result
from cm2.assure.gate_judge import judge_runs
from cm2.assure.gate_runs import (
    Duties,
    Progress,
    Reading,
    Run,
    Shown,
    never_run,
    read_runs,
    read_with_verdicts,
    run_tasks,
)
from cm2.assure.gate_tally import Tally, rates
from cm2.assure.suite import Suite
from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.judge import Judge
from cm2.judge.make import make_judge
from cm2.llm import Asker
from cm2.policy import Policy, load_policy
from cm2.rollout.agents import Agent
from cm2.rollout.run import MakeWorld, default_world
from cm2.rollout.trace import Rollout
from cm2.simulate.config import simulated

KEPT_NOTES = 5
_same: Progress = lambda runs: runs  # noqa: E731


def run_gate(
    suite: Suite,
    *,
    judge: Judge | None = None,
    agent: Agent | None = None,
    world: MakeWorld = default_world,
    asker: Asker | None = None,
    version: str = "",
    progress: Progress = _same,
    keep: Callable[[Rollout], None] = lambda rollout: None,
) -> GateResult:
    """Look at the runs of an agent, or make them, and say whether the suite lets it pass.

    Nothing is written but the history that the suite names.

    Args:
        suite: what is asked.
        judge: who judges, in place of the one that `suite.judging` describes.
        agent: who acts, in place of `suite.endpoint`.
        world: makes a task's world, for the simulator "auto".
        asker: answers for a judge or a simulator that asks a model.
        version: of the agent (a commit): cases that pass and fail under one version are flaky.
        progress: wraps the runs, or the tasks, as they are begun.
        keep: is told of every rollout that is made.

    Raises:
        ConfigError: the suite names a duty that there is not; a model is to be asked and there is none.
        DataError: a file is missing or of another kind.
    """
    started = time.perf_counter()
    old = None if suite.baseline is None else read_result(suite.baseline)
    history = [] if suite.history is None else before.read_history(suite.history, suite.history_runs)
    policy = None if suite.policy is None else load_policy(suite.policy)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = GateResult(suite.name, "undecided", uuid.uuid4().hex, now, version, _source(suite, agent), suite.policy)
    if suite.verdicts is None and judge is None:
        judge = make_judge(suite.judging, asker)
    tally = Tally(suite, asks=hasattr(judge, "judge_async"))
    problems: list[str] = []
    reading = Reading()
    for shown in _shown(suite, policy, judge, agent, world, asker, reading, problems, progress, keep):
        result.runs += not shown.run.lost
        result.lost += bool(shown.run.lost)
        tally.add(shown)
    cases = result.cases = tally.cases()
    _known_duties(suite, cases, policy)
    result.dialogues = len({case.dialogue for case in cases if case.status != "unscored"})
    result.cost = tally.cost
    result.unreadable = reading.unreadable
    known = before.records(cases, old, history)
    result.flakiness = settle(
        cases, known, lambda case: suite.tolerates(case.severity, case.duty), suite.alpha, suite.detect, suite.power
    )
    level = suite.confidence or 0.95
    result.severities, result.duties = rates(cases, "severity", level), rates(cases, "duty", level)
    result.rules = gate_rules.unscored_rules(suite, cases)
    result.rules += gate_rules.threshold_rules(suite, cases, result.severities, result.duties)
    result.notes = [*reading.problems, *problems[:KEPT_NOTES], *_notes(suite, result, reading)]
    if old is not None:
        paired, skipped = before.compare(cases, result.duties, old)
        result.rules += gate_rules.baseline_rules(suite, cases, result.duties, paired)
        result.notes += _unpaired(skipped)
    result.rules += gate_rules.worse_rules(cases)
    result.state = gate_rules.state_of(result.rules)
    result.seconds = round(time.perf_counter() - started, 3)
    if suite.history is not None:
        before.append_history(suite.history, result)
    return result


def _shown(
    suite: Suite,
    policy: Policy | None,
    judge: Judge | None,
    agent: Agent | None,
    world: MakeWorld,
    asker: Asker | None,
    reading: Reading,
    problems: list[str],
    progress: Progress,
    keep: Callable[[Rollout], None],
) -> Iterator[Shown]:
    """The runs with how their duties came out."""
    if judge is None:
        yield from progress(read_with_verdicts(suite, policy, reading))
        return
    duties = Duties(policy, _tasks(suite))
    seen: set[str] = set()

    def noted(runs: Iterator[Run]) -> Iterator[Run]:
        for run in runs:
            seen.add(run.task)
            reading.runs += 1
            reading.without += not run.checklists
            yield run

    if suite.dialogues is not None:
        runs = noted(iter(progress(read_runs(suite, duties, reading))))
    else:
        make = world if suite.simulator.kind == "auto" else simulated(suite.simulator, asker)
        runs = noted(iter(run_tasks(suite, duties, agent, make, progress, keep, problems)))
    yield from judge_runs(runs, judge, suite.concurrency, problems)
    if reading.without and reading.without == reading.runs and not duties.tasks:
        where = Where(file=suite.dialogues)
        raise DataError("no dialogue has a checklist", where=where, fix="name a `policy`, or labelled `tasks`")
    if duties.tasks and not seen & duties.tasks.keys():
        where = Where(file=suite.dialogues)
        raise DataError(f"none of its dialogues is one of {suite.tasks}", where=where, fix="their ids must be the same")
    yield from judge_runs(never_run(duties, seen, duties.tasks or {}), judge, suite.concurrency, problems)


def _tasks(suite: Suite) -> dict[str, Task] | None:
    if suite.tasks is None:
        return None
    found: dict[str, Task] = {}
    for line, task in read_tasks(suite.tasks, suite.format):
        if task.dialogue.id in found:
            where = Where(file=suite.tasks, line=line, dialogue=task.dialogue.id)
            raise DataError("another task has this id", where=where, fix="make the ids unique")
        found[task.dialogue.id] = task
    return found


def _known_duties(suite: Suite, cases: list[Case], policy: Policy | None) -> None:
    known = {case.duty for case in cases} | ({duty.id for duty in policy.duties} if policy is not None else set())
    for field in ("duties", "owners"):
        for name in getattr(suite, field):
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise ConfigError(f"`{field}` names {name!r}, which is no duty", fix=f"the duties are {names}")


def _source(suite: Suite, agent: Agent | None) -> str:
    if agent is not None:
        return agent.name
    return suite.endpoint.name if suite.endpoint is not None else os.path.basename(suite.dialogues or "")


def _notes(suite: Suite, result: GateResult, reading: Reading) -> Iterator[str]:
    """What a reader should know beside the rules."""
    if result.lost:
        yield f"{result.lost} runs were lost, and are unscored: the agent is not to blame"
    if result.unreadable:
        yield f"{result.unreadable} rows do not read"
    if reading.without:
        yield f"{reading.without} runs have no checklist"
    if unjudged := sorted({case.duty for case in result.cases if case.status == "not_judged"}):
        names = ", ".join(unjudged)
        yield f"{len(unjudged)} duties have no check and were not judged: {names}; `judging: {{kind: hybrid}}` asks"
    for rate in result.severities:
        asked = suite.threshold(rate.severity)
        mine = [duty.name for duty in result.duties if duty.severity == rate.severity]
        if asked.min_pass_rate is None and asked.max_fails is None and not set(mine) & suite.duties.keys():
            rest = "" if suite.baseline else ", and there is no baseline"
            yield f"nothing is asked of {rate.name} duties{rest}: set thresholds.{rate.name}"


def _unpaired(skipped: dict[str, int]) -> Iterator[str]:
    said = {
        "changed": "whose duty was changed since the baseline",
        "new": "that the baseline does not have",
        "gone": "of the baseline that were not run",
    }
    parts = [f"{count} cases {said[name]}" for name, count in skipped.items() if count]
    if parts:
        yield f"not compared: {', '.join(parts)}"
