"""Runs: where the dialogues that a gate looks at come from, each with how its duties came out.

They are read from a file (dialogues, or a store of rollouts) and judged, or read with the verdicts that are there
already, or made: an endpoint plays the suite's tasks in the simulated environment. A run that somebody else than the
agent lost, a verdict that a provider did not give and a task that was never run are unscored in every duty, with the
owner of the failure: nothing of it reads as a failure of the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any, cast

import msgspec

from cm2.assure.outcomes import Outcome, read_judged
from cm2.assure.suite import Suite
from cm2.checklist import Checklist, Task
from cm2.dialogue import Dialogue, Turn
from cm2.errors import DataError, Where
from cm2.formats import read_tasks
from cm2.formats.rows import Row, read_rows
from cm2.judge import ChecksJudge
from cm2.llm import BudgetReached, ChatClient, ProviderError
from cm2.policy import Policy
from cm2.rollout.agents import Agent, EndpointAgent
from cm2.rollout.run import MakeWorld, run_rollouts
from cm2.rollout.trace import Rollout, read_rollouts
from cm2.verdict import WHOLE

NEVER_RUN = "no run of this task"
KEPT_PROBLEMS = 5
Progress = Callable[[Iterable[Any]], Iterable[Any]]
_BEFORE_ANY_TURN = Dialogue("", [Turn("")])
"""A run that was lost before it began owes what any run owes."""


class Run(msgspec.Struct):
    """One run of one task, with the duties that it is judged by."""

    task: str
    """Runs of one task are runs of the same cases."""
    dialogue: Dialogue
    checklists: list[list[Checklist]]
    """By where they come from: the task's, the policy's. Ids of items are unique only in each of them."""
    number: str = ""
    """Which of the task's runs it is, as `Verdict.rollout`."""
    line: int = 0
    lost: str = ""
    """Why it says nothing about the agent …"""
    lost_by: str = ""
    """… and whose failure that is."""


class Shown(msgspec.Struct):
    """A run with how its duties came out."""

    run: Run
    outcomes: list[Outcome]


class Reading(msgspec.Struct):
    """What reading the runs met with."""

    unreadable: int = 0
    problems: list[str] = []
    runs: int = 0
    without: int = 0
    """Runs without any checklist."""

    def problem(self, row: Row) -> None:
        """Count a row that does not read."""
        self.unreadable += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"line {row.line}: {row.error}")


class Duties:
    """The checklists of any dialogue of a suite: its task's, and its policy's.

    Args:
        policy: holds in every dialogue.
        tasks: by id; None where the dialogues carry their own checklists.
    """

    def __init__(self, policy: Policy | None, tasks: dict[str, Task] | None):
        self.policy, self.tasks = policy, tasks

    def of(self, dialogue: Dialogue, task: str, own: list[Checklist]) -> list[list[Checklist]]:
        """The checklists of a dialogue that is a run of `task` and came with `own`."""
        lent = self.tasks.get(task) if self.tasks is not None else None
        found = [lent.checklists if lent is not None else own if self.tasks is None else []]
        if self.policy is not None:
            found.append(self.policy.checklists(dialogue if dialogue.turns else _BEFORE_ANY_TURN))
        return [checklists for checklists in found if checklists]


def read_runs(suite: Suite, duties: Duties, reading: Reading) -> Iterator[Run]:
    """The runs of the suite's file.

    Raises:
        DataError: the file is missing, empty or holds neither dialogues nor rollouts.
    """
    assert suite.dialogues is not None
    seen: dict[str, int] = {}
    rows = _rollouts(suite.dialogues) if _is_rollouts(suite.dialogues) else _dialogues(suite, reading)
    for run, own in rows:
        seen[run.task] = seen.get(run.task, 0) + 1
        run.number = str(seen[run.task]) if seen[run.task] > 1 else ""
        run.checklists = duties.of(run.dialogue, run.task, own)
        yield run


def _dialogues(suite: Suite, reading: Reading) -> Iterator[tuple[Run, list[Checklist]]]:
    assert suite.dialogues is not None
    for line, task in read_tasks(suite.dialogues, suite.format, on_error=reading.problem):
        dialogue = task.dialogue
        yield Run(_task_of(dialogue, suite, line), dialogue, [], line=line), task.checklists


def _task_of(dialogue: Dialogue, suite: Suite, line: int) -> str:
    if suite.runs_of is None:
        return dialogue.id
    name = dialogue.meta.get(suite.runs_of)
    if not isinstance(name, str | int):
        where = Where(file=suite.dialogues, line=line, dialogue=dialogue.id)
        fields = ", ".join(sorted(dialogue.meta)) or "no field"
        message = f"its meta has no {suite.runs_of!r} that names its task"
        raise DataError(message, where=where, fix=f"correct `runs_of`; it has {fields}")
    return str(name)


def _is_rollouts(path: str) -> bool:
    first = next((row.value for row in read_rows(path) if row.value is not None), None)
    return isinstance(first, dict) and isinstance(first.get("task"), str) and isinstance(first.get("dialogue"), dict)


def _rollouts(path: str) -> Iterator[tuple[Run, list[Checklist]]]:
    for rollout in read_rollouts(path):
        yield _of_rollout(rollout), rollout.checklists


def _of_rollout(rollout: Rollout) -> Run:
    run = Run(rollout.task, rollout.dialogue, [])
    if rollout.failure is not None:
        run.lost, run.lost_by = rollout.failure.message, rollout.failure.owner
    return run


def read_with_verdicts(suite: Suite, policy: Policy | None, reading: Reading) -> Iterator[Shown]:
    """The runs of the suite's file with the verdicts that it names.

    Raises:
        DataError: a file is missing or of another kind.
    """
    assert suite.dialogues is not None and suite.verdicts is not None
    counted: dict[str, int] = {}
    lent = suite.tasks if policy is None else None
    for judged in read_judged(
        suite.dialogues,
        suite.verdicts,
        policy=policy,
        checklists=lent,
        format=suite.format,
        on_error=reading.problem,
    ):
        task = _task_of(judged.dialogue, suite, judged.line)
        counted[task] = counted.get(task, 0) + 1
        number = str(counted[task]) if counted[task] > 1 else ""
        yield Shown(Run(task, judged.dialogue, [], number, judged.line), judged.outcomes)


async def make_runs(
    suite: Suite,
    tasks: dict[str, Task],
    agent: Agent,
    world: MakeWorld,
    progress: Progress = lambda tasks: tasks,
    keep: Callable[[Rollout], None] = lambda rollout: None,
) -> AsyncIterator[Run]:
    """Let an agent run the suite's tasks; the checklists are not set yet.

    Turns are gated by their strict items as in every rollout, decided by checks. Items about the whole dialogue have no
    part in it: they are judged when it is over.

    Args:
        suite: how often, and within which limits.
        tasks: what is run.
        agent: who acts.
        world: makes the world that the runs of a task share.
        progress: wraps the tasks as they are started.
        keep: is told of every rollout.

    Raises:
        BudgetReached: the simulator may spend no more.
        ProviderError: the endpoint refuses every request.
    """
    played = (_played(task, suite.system) for task in tasks.values())
    rollouts = run_rollouts(
        cast(Iterable[Task], progress(played)),
        agent,
        group=suite.repeats,
        world=world,
        judge=ChecksJudge(),
        limits=suite.limits,
        seed=suite.seed,
        concurrency=suite.concurrency,
    )
    async for rollout in rollouts:
        keep(rollout)
        run = _of_rollout(rollout)
        run.number = str(rollout.member + 1) if rollout.member else ""
        yield run


def _played(task: Task, system: str | None) -> Task:
    dialogue = task.dialogue if system is None else msgspec.structs.replace(task.dialogue, system=system, wire=None)
    return Task(dialogue, [checklist for checklist in task.checklists if checklist.turn != WHOLE])


def run_tasks(
    suite: Suite,
    duties: Duties,
    agent: Agent | None,
    world: MakeWorld,
    progress: Progress,
    keep: Callable[[Rollout], None],
    problems: list[str],
) -> list[Run]:
    """All runs that an agent, or the suite's endpoint, makes of the suite's tasks. What ends them early is put into
    `problems`: the tasks that are missing then count as never run."""
    tasks = duties.tasks or {}

    async def collect() -> list[Run]:
        found: list[Run] = []
        async with AsyncExitStack() as stack:
            acting = agent
            if acting is None:
                assert suite.endpoint is not None
                acting = EndpointAgent(await stack.enter_async_context(ChatClient(suite.endpoint, seed=suite.seed)))
            try:
                async for run in make_runs(suite, tasks, acting, world, progress, keep):
                    found.append(run)
            except (ProviderError, BudgetReached) as error:
                problems.append(str(error))
        return found

    runs = asyncio.run(collect())
    for run in runs:
        run.checklists = duties.of(run.dialogue if not run.lost else tasks[run.task].dialogue, run.task, [])
    return sorted(runs, key=lambda run: (run.task, len(run.number), run.number))


def never_run(duties: Duties, seen: set[str], wanted: Iterable[str]) -> Iterator[Run]:
    """A lost run for every wanted task that was not seen."""
    for id in wanted:
        if id not in seen:
            task = (duties.tasks or {})[id]
            checklists = duties.of(task.dialogue, id, [])
            yield Run(id, task.dialogue, checklists, lost=NEVER_RUN, lost_by="data")
