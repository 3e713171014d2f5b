"""Source: dialogues and their duties, made and judged one by one as somebody asks for them: what tests stand on.

A file of runs is read at once and judged dialogue by dialogue; an agent runs a task when its first duty is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cm2.assure.gate_case import Case
from cm2.assure.gate_judge import judge_runs
from cm2.assure.gate_runs import Duties, Reading, Run, Shown, read_runs, run_tasks
from cm2.assure.gate_tally import Tally
from cm2.assure.outcomes import duty_name
from cm2.assure.suite import Suite
from cm2.checklist import Item, Task
from cm2.dialogue import Step
from cm2.errors import ConfigError
from cm2.formats import read_tasks
from cm2.judge import ChecksJudge, Judge
from cm2.llm import ProviderError
from cm2.policy import load_policy
from cm2.rollout.agents import Action, step_of
from cm2.rollout.environment import Environment
from cm2.rollout.template import tool_schema
from cm2.worlds import world_for


class Source:
    """See the module.

    Args:
        folder: where paths start.
        policy, dialogues, tasks: files; see `cm2.pytest_plugin.case`.
        agent: runs the tasks, where there is no file of runs.
        repeats, seed: of the agent's runs.
        judge: who judges.

    Attributes:
        crashed: what the agent raised, by task.

    Raises:
        ConfigError: there is no duty.
        DataError: a file is missing or of another kind.
    """

    def __init__(
        self,
        folder: Path,
        policy: str | None = None,
        dialogues: str | None = None,
        tasks: str | None = None,
        agent: Any = None,
        repeats: int = 1,
        seed: int = 0,
        judge: Judge | None = None,
    ):
        rules = None if policy is None else load_policy(folder / policy)
        lent = None if tasks is None else {task.dialogue.id: task for _, task in read_tasks(folder / tasks)}
        self._duties, self._agent, self._judge = Duties(rules, lent), agent, judge or ChecksJudge()
        self._suite = Suite(name="tests", repeats=repeats, seed=seed)
        self._read: dict[str, list[Run]] = {}
        self._shown: dict[str, list[Shown]] = {}
        self.crashed: dict[str, BaseException] = {}
        if dialogues is not None:
            for run in read_runs(Suite(dialogues=str(folder / dialogues)), self._duties, Reading()):
                self._read.setdefault(run.task, []).append(run)
        self._ids = [*self._read] if dialogues is not None else [*self._tasks]
        if not any(True for _ in self.cases()):
            raise ConfigError("no dialogue has a duty", fix="give a policy, or labelled tasks")

    @property
    def _tasks(self) -> dict[str, Task]:
        return self._duties.tasks or {}

    def cases(self) -> Iterator[tuple[str, str]]:
        """Every (dialogue, duty)."""
        for id in self._ids:
            yield from ((id, duty) for duty in dict.fromkeys(duty_name(item) for item in self._items(id)))

    def _items(self, id: str) -> Iterator[Item]:
        if id in self._read:
            groups = [group for run in self._read[id] for group in run.checklists]
        else:
            groups = self._duties.of(self._tasks[id].dialogue, id, [])
        return (item for group in groups for checklist in group for item in checklist.items)

    def shown(self, id: str) -> list[Shown]:
        """The judged runs of a task."""
        if id not in self._shown:
            if id not in self._read:
                self._read[id] = self._make(id)
            self._shown[id] = list(judge_runs(self._read[id], self._judge, self._suite.concurrency, []))
        return self._shown[id]

    def tally(self, id: str, duty: str) -> Case:
        """How a duty came out in the runs of a task."""
        tally = Tally(self._suite, asks=hasattr(self._judge, "judge_async"))
        for shown in self.shown(id):
            tally.add(shown)
        return next(case for case in tally.cases() if case.duty == duty)

    def _make(self, id: str) -> list[Run]:
        acting = self._agent if hasattr(self._agent, "act") else FunctionAgent(self._agent)
        one = Duties(self._duties.policy, {id: self._tasks[id]})
        runs = run_tasks(self._suite, one, acting, world_for, lambda tasks: tasks, lambda rollout: None, [])
        if isinstance(acting, FunctionAgent) and acting.raised is not None:
            self.crashed[id] = acting.raised
        return runs


class FunctionAgent:
    """A function of chat messages and tools as an agent; it answers with a message, a text or a Step, or awaits one.

    What it raises is kept in `raised`: it is the agent's own failure, unless it is a provider's.
    """

    def __init__(self, answers: Callable[[list[dict[str, Any]], list[dict[str, Any]]], Any]):
        self._answers = answers
        self.name = getattr(answers, "__name__", "agent")
        self.raised: BaseException | None = None

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        tools = [tool_schema(tool) for tool in environment.dialogue.tools]
        try:
            said = self._answers([dict(message) for message in environment.messages], tools)
            said = await said if inspect.isawaitable(said) else said
            if isinstance(said, str):
                said = Step(reply=said)
            return Action(said if isinstance(said, Step) else step_of(dict(said)))
        except ProviderError:
            raise
        except Exception as error:
            self.raised = self.raised or error
            raise
