"""Plan: what rolling out a file would cost at most, before anything is asked.

The reference's steps are played by an agent that makes every call off the record (other arguments that fit the tool's
schema), so that the simulator would have to answer each of them; every member of a group makes calls of its own. A real
agent repeats recorded calls and its siblings' calls, which are free: this is an upper bound.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Step, ToolCall
from cm2.llm import Asker
from cm2.rollout.agents import Action, reference_step
from cm2.rollout.environment import Environment
from cm2.rollout.limits import Limits
from cm2.rollout.run import run_rollouts
from cm2.simulate import SimulatorConfig, simulated
from cm2.simulate.instance import instance


class Plan(msgspec.Struct):
    """What a run would ask, at most."""

    tasks: int = 0
    rollouts: int = 0
    agent_calls: int = 0
    """Actions of the agent's endpoint, if it took the reference's steps."""
    simulated_calls: int = 0
    """Calls of tools that the simulator would have to answer."""


class Stray:
    """Takes the reference's steps and makes each call with other arguments."""

    name = "stray"

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        step = reference_step(environment)
        rng = random.Random(seed)
        return Action(Step(step.thinking, step.reply, [self._astray(call, environment, rng) for call in step.calls]))

    def _astray(self, call: ToolCall, environment: Environment, rng: random.Random) -> ToolCall:
        tool = environment.dialogue.tool(call.name)
        if tool is None:
            return call
        try:
            return ToolCall(call.name, instance(tool.parameters, rng))
        except ValueError:
            return call


async def plan(
    tasks: Iterable[Task],
    config: SimulatorConfig,
    asker: Asker,
    *,
    group: int = 1,
    seed: int = 0,
    limits: Limits | None = None,
) -> Plan:
    """Play the tasks with a simulator that only counts (`Models(config, dry=True)`)."""
    found = Plan()

    def unjudged() -> Iterable[Task]:
        for task in tasks:
            found.tasks += 1
            yield Task(task.dialogue)  # without checklists no turn is gated: all of them are played

    worlds = simulated(config, asker)
    async for rollout in run_rollouts(unjudged(), Stray(), group=group, world=worlds, limits=limits, seed=seed):
        found.rollouts += 1
        steps = [step for turn in rollout.dialogue.turns for step in turn.steps]
        found.agent_calls += len(steps)
        found.simulated_calls += sum(one.origin == "simulated" for step in steps for one in step.responses)
    return found
