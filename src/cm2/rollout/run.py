"""Running rollouts: tasks × group members, many at once, each of them data whatever happens to it.

The members of a group share one world. What fails in a rollout (provider, simulator, judge, data) is put on its record
and the others go on; a run stops only where every request is bound to fail (a refused key, a wrong address) or money
has run out. Then no rollout is started any more, and those under way come to their end.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from typing import Any

from cm2.checklist import Task
from cm2.dialogue import Dialogue
from cm2.errors import told
from cm2.judge import ChecksJudge, Judge
from cm2.judge.judge import during
from cm2.llm import BudgetReached, ProviderError
from cm2.rollout.agents import Action, Agent
from cm2.rollout.environment import Environment
from cm2.rollout.limits import Limits
from cm2.rollout.trace import Failure, Rollout
from cm2.simulate.backend import SimulatorError
from cm2.simulate.world import Session, World

MakeWorld = Callable[[Task, int], World]
TellOutcome = Callable[[Rollout], dict[str, Any]]
STOP_AFTER = 8


def default_world(task: Task, seed: int) -> World:
    """Replay of the reference plus the embedded fallback."""
    return World(task.dialogue, seed=seed)


async def run_rollouts(
    tasks: Iterable[Task],
    agent: Agent,
    *,
    group: int = 1,
    world: MakeWorld = default_world,
    judge: Judge | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    concurrency: int = 16,
    done: Container[str] = frozenset(),
    outcome: TellOutcome | None = None,
) -> AsyncIterator[Rollout]:
    """Run every task `group` times and yield the records as they finish.

    Args:
        tasks: read lazily, no further ahead than `concurrency` allows.
        agent: acts in all of them.
        world: makes the world that a group shares, from the task and the group's seed.
        judge: judges each turn; ChecksJudge where None.
        limits: of each rollout.
        seed: of the whole run: with a deterministic agent two runs give the same records.
        concurrency: rollouts at once.
        done: keys (`Rollout.key`) to leave out.
        outcome: the true outcome of a finished rollout, where it can be told.

    Raises:
        ConfigError: the judge is one for dialogues that are over.
        ProviderError: STOP_AFTER rollouts in a row failed for a reason that the next would share (they are yielded).
        BudgetReached: the simulator or the judge may spend no more (all that could be finished is yielded before).
    """
    judge = judge or ChecksJudge()
    during(judge)
    running: set[asyncio.Task[Rollout]] = set()
    finished: asyncio.Queue[asyncio.Task[Rollout]] = asyncio.Queue()
    refused, halt = 0, _Halt()
    members = _members(tasks, group, world, seed, done)
    waiting = next(members, None)
    try:
        while waiting is not None or running:
            while waiting is not None and len(running) < concurrency:
                task, label, member, shared = waiting
                own = _seed(seed, task.dialogue.id, label, member)
                one = _run(task, agent, shared, judge, limits, label, member, own, outcome, halt)
                started = asyncio.create_task(one)
                started.add_done_callback(finished.put_nowait)  # asyncio.wait would look at all of them each time
                running.add(started)
                waiting = next(members, None)
            each = await finished.get()
            running.discard(each)
            rollout = each.result()
            yield rollout
            refused = _refusals(rollout, refused)
            if halt.reason is not None:
                waiting = None
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if halt.reason is not None:
        raise halt.reason


class _Halt:
    """Why no further rollout is started."""

    def __init__(self) -> None:
        self.reason: BudgetReached | None = None


class _Shared:
    """The world of a group, made when its first member starts."""

    def __init__(self, make: Callable[[], World]):
        self._make = make
        self._world: World | None = None

    def get(self) -> World:
        if self._world is None:
            self._world = self._make()
        return self._world


def _members(
    tasks: Iterable[Task], group: int, world: MakeWorld, seed: int, done: Container[str]
) -> Iterator[tuple[Task, str, int, _Shared]]:
    seen: dict[str, int] = {}
    for task in tasks:
        id = task.dialogue.id
        seen[id] = seen.get(id, 0) + 1
        label = str(seen[id]) if seen[id] > 1 else ""
        shared = _Shared(lambda task=task, label=label: world(task, _seed(seed, task.dialogue.id, label)))  # type: ignore[misc]
        for member in range(group):
            if Rollout(id, Dialogue(id), group=label, member=member).key not in done:
                yield task, label, member, shared


async def _run(
    task: Task,
    agent: Agent,
    shared: _Shared,
    judge: Judge,
    limits: Limits | None,
    label: str,
    member: int,
    seed: int,
    outcome: TellOutcome | None,
    halt: _Halt,
) -> Rollout:
    started, prompt_tokens, number = time.perf_counter(), 0, 0
    try:
        session = shared.get().session()
        environment = Environment(task, session, judge, limits)
    except Exception as error:  # whatever a row holds, it costs this rollout and not the run
        owner = "simulator" if isinstance(error, SimulatorError) else "data"
        empty, failure = Dialogue(task.dialogue.id, meta=task.dialogue.meta), Failure(owner, told(error))
        return Rollout(
            task.dialogue.id, empty, label, member, seed, agent.name, reason=owner, owner=owner, failure=failure
        )
    while not environment.done:
        try:
            action = await agent.act(environment, (seed + number) % 2**31)
        except Exception as error:  # an agent may be anyone's code: its failure is put on record as the provider's
            fatal = isinstance(error, ProviderError) and error.fatal
            environment.fail("provider", told(error), fatal=fatal)
            break
        if not isinstance(action, Action):
            raise TypeError(
                f"{agent.name}.act gave {type(action).__name__}: wrap the step, cm2.rollout.agents.Action(step)"
            )
        number += 1
        prompt_tokens += action.prompt_tokens
        await environment.feed_async(action.step, tokens=action.tokens, truncated=action.truncated)
    _settle(environment, session, halt)
    rollout = environment.record(group=label, member=member, seed=seed)
    rollout.agent, rollout.prompt_tokens = agent.name, prompt_tokens
    rollout.seconds = round(time.perf_counter() - started, 3)
    if outcome is not None and rollout.valid:
        try:
            rollout.outcome = outcome(rollout)
        except Exception as error:  # the run was fine: only its true outcome stays unknown
            rollout.outcome = {"error": told(error)}
    return rollout


def _settle(environment: Environment, session: Session, halt: _Halt) -> None:
    """What the simulator failed at costs the rollout, also where the agent was answered with an error and went on."""
    halt.reason = halt.reason or environment.broke
    if not session.failed:
        return
    first, last = session.failed[0], session.failed[-1]
    environment.fail("simulator", f"{len(session.failed)} of the agent's calls had no answer; the first: {told(first)}")
    if last.fatal and environment.failure is not None:
        environment.failure.fatal = True
    if isinstance(last.__cause__, BudgetReached):
        halt.reason = last.__cause__


def _seed(*parts: object) -> int:
    """A seed of 31 bits that depends on all of these."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _refusals(rollout: Rollout, before: int) -> int:
    """How many rollouts in a row were refused for good; ProviderError where that is enough."""
    if rollout.failure is None or not rollout.failure.fatal:
        return 0
    if before + 1 >= STOP_AFTER:
        raise ProviderError(
            f"{before + 1} rollouts in a row were refused: {rollout.failure.message}",
            fix="correct the endpoint and run the same command again",
        )
    return before + 1
