"""Collecting rollouts of an endpoint over a file of tasks, into a store that a killed run goes on with.

A failed rollout is written like any other and tried again by the next run, so of several records with one key the last
one counts (`read_rollouts`). Beside the store lies `OUT.input.json`, the fingerprint of what was asked of whom.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from statistics import fmean
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.credit import Score, score
from cm2.errors import ConfigError
from cm2.formats import read_tasks
from cm2.formats.origin import claim, fingerprint
from cm2.formats.store import Store
from cm2.judge import Judge
from cm2.judge.judging import Judging
from cm2.judge.make import identity
from cm2.llm import Asker, ChatClient, Endpoint
from cm2.rollout.agents import EndpointAgent
from cm2.rollout.limits import Limits
from cm2.rollout.run import MakeWorld, TellOutcome, default_world, run_rollouts
from cm2.rollout.trace import Rollout, read_rollouts
from cm2.simulate import SimulatorConfig, simulated

KEPT_PROBLEMS = 5


class RolloutConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Which agent runs which tasks, how often, into which store."""

    input: str
    """The tasks: reference dialogues, labelled where they are to be judged."""
    output: str
    """The store of rollouts (JSONL). The same command goes on where a killed one stopped."""
    endpoint: Endpoint
    """Whom to ask for the agent's actions."""
    group: int = 1
    """Rollouts of each task, in one world. More of them show how steady the agent is, and cost as much more."""
    seed: int = 0
    """Varies the simulated world and the seeds sent to the endpoint."""
    concurrency: int = 16
    """Rollouts at once. Raise it until the endpoint's limits bite."""
    limit: int | None = None
    """Only the first so many tasks."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""
    limits: Limits = msgspec.field(default_factory=Limits)
    """When a rollout ends at the latest."""
    simulator: SimulatorConfig = msgspec.field(default_factory=SimulatorConfig)
    """What answers the calls that the reference did not record."""
    judging: Judging = msgspec.field(default_factory=Judging)
    """Who judges. `collect` is given the judge itself; this tells a store's rollouts from those of another judge."""

    def __post_init__(self) -> None:
        for name in ("group", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="use a number from 1 up")
        self.judging.during()

    def asked(self, asker: Asker | None = None) -> dict[str, str]:
        """What a store's rollouts have in common: the input's content, and everything that shapes an action or, by
        `asker`, an answer of the simulated world."""
        endpoint = self.endpoint
        sampling = [endpoint.temperature, endpoint.top_p, endpoint.max_tokens, endpoint.extra, endpoint.send_thinking]
        settings = msgspec.json.encode([sampling, self.seed, self.limits], order="sorted").decode()
        found = {"input": fingerprint(self.input), "agent": endpoint.name, "settings": settings}
        if self.simulator != SimulatorConfig():
            found["simulator"] = msgspec.json.encode([self.simulator, _sampling(asker)], order="sorted").decode()
        if self.judging.asks:
            found["judge"] = identity(self.judging, [asker])
        return found


class Summary(msgspec.Struct):
    """What the store holds of this run's tasks."""

    tasks: int = 0
    rollouts: int = 0
    written: int = 0
    valid: int = 0
    reasons: dict[str, int] = {}
    """How the valid ones ended."""
    failures: dict[str, int] = {}
    """Failed ones by owner; they are in no mean below."""
    answers: dict[str, int] = {}
    """What the agents' calls were answered with, in the valid ones: replayed, simulated, error."""
    judged: int = 0
    """Valid rollouts with a checklist."""
    reward: float | None = None
    """Mean checklist reward R of the judged ones (method, eq. 4); items that nobody could decide are left out."""
    strict_pass: float | None = None
    """Share of the judged ones that satisfied every decided item of every turn of the reference."""
    turns_reached: float | None = None
    """Mean share of the reference's turns that were begun."""
    successes: float | None = None
    """Share with a true outcome, where the task's world can tell."""
    generated_tokens: int = 0
    unreadable: int = 0
    problems: list[str] = []


def scored(rollout: Rollout) -> Score:
    """What the rollout earned under the verdicts on its record (method, eq. 2 to 4)."""
    steps = [len(turn.steps) for turn in rollout.dialogue.turns]
    return score(rollout.checklists, rollout.verdicts, steps, rollout.reference_turns)


def reward(rollout: Rollout) -> float | None:
    """R of the method (eq. 4); None where nothing could be decided, or the record does not say how many turns its
    reference has."""
    return scored(rollout).reward if rollout.reference_turns else None


async def collect(
    config: RolloutConfig,
    *,
    world: MakeWorld = default_world,
    outcome: TellOutcome | None = None,
    judge: Judge | None = None,
    asker: Asker | None = None,
    progress: Callable[[Iterator[Task]], Iterator[Task]] = lambda tasks: tasks,
) -> Summary:
    """Roll out the tasks of a file with an endpoint's model; append to the store what it does not hold yet.

    Args:
        config: what to do.
        world: makes the world of a group, for the simulator "auto".
        outcome: tells a rollout's true outcome, where its world can; only asked with the simulator "auto", because in a
            simulated world nobody knows it.
        judge: judges each turn; ChecksJudge where None.
        asker: who answers for the simulator "llm", and for a judge that asks.
        progress: wraps the tasks as they are started.

    Raises:
        ConfigError: the store was begun on another input, agent or setting, or is the input.
        DataError: the input is missing, empty or of another format.
        ProviderError: the endpoint refuses every request.
        BudgetReached: the simulator may spend no more; the same command goes on with a higher limit.
    """
    if os.path.realpath(config.input) == os.path.realpath(config.output):
        raise ConfigError("input and output are the same file", fix="give -o another name")
    known = config.simulator.kind == "auto"
    make = world if known else simulated(config.simulator, asker)
    asked = config.asked(asker)
    claim(config.output, asked, note=False)
    summary = Summary()

    def problem(row: Any) -> None:
        summary.unreadable += 1
        if len(summary.problems) < KEPT_PROBLEMS:
            summary.problems.append(f"line {row.line}: {row.error}")

    def tasks() -> Iterator[Task]:
        for _, task in read_tasks(config.input, config.format, on_error=problem):
            if config.limit is not None and summary.tasks >= config.limit:
                return
            summary.tasks += 1
            yield task

    with Store(config.output, key=_key) as store:
        claim(config.output, asked)
        async with ChatClient(config.endpoint, seed=config.seed) as client:
            rollouts: AsyncIterator[Rollout] = run_rollouts(
                progress(tasks()),
                EndpointAgent(client),
                group=config.group,
                world=make,
                judge=judge,
                limits=config.limits,
                seed=config.seed,
                concurrency=config.concurrency,
                done={key for key in store.done if isinstance(key, str)},
                outcome=outcome if known else None,
            )
            async for rollout in rollouts:
                if rollout.valid and rollout.reference_turns:
                    rollout.score = scored(rollout).as_json()
                store.append(rollout)
                summary.written += 1
    _summarise(summary, read_rollouts(config.output))
    return summary


def _sampling(asker: Asker | None) -> Any:
    """What decides an asker's answers: its model and how that samples; where it is does not."""
    config = getattr(asker, "config", None)
    if config is None:
        return None
    model = config.of("simulator")
    return [model.model, model.temperature, model.top_p, model.max_tokens, model.effort, model.extra]


def _key(row: dict[str, Any]) -> str:
    key = f"{row['task']}#{row.get('group', '')}#{row.get('member', 0)}"
    return f"{key}#failed" if row.get("failure") else key


def _summarise(summary: Summary, rollouts: Iterator[Rollout]) -> None:
    rewards: list[float] = []
    strict: list[bool] = []
    reached: list[float] = []
    successes: list[bool] = []
    for rollout in rollouts:
        summary.rollouts += 1
        summary.generated_tokens += rollout.generated_tokens
        if rollout.failure is not None:
            owner = rollout.failure.owner
            summary.failures[owner] = summary.failures.get(owner, 0) + 1
            if len(summary.problems) < KEPT_PROBLEMS:
                summary.problems.append(f"{rollout.task}: {rollout.failure.message}")
            continue
        summary.valid += 1
        summary.reasons[rollout.reason] = summary.reasons.get(rollout.reason, 0) + 1
        for response in (one for turn in rollout.dialogue.turns for step in turn.steps for one in step.responses):
            summary.answers[response.origin] = summary.answers.get(response.origin, 0) + 1
        reached.append(len(rollout.dialogue.turns) / max(rollout.reference_turns, 1))
        earned = scored(rollout)
        if earned.reward is not None and earned.strict_pass is not None:
            rewards.append(earned.reward)
            strict.append(earned.strict_pass)
        if "success" in rollout.outcome:
            successes.append(bool(rollout.outcome["success"]))
    summary.judged = len(rewards)
    summary.reward = fmean(rewards) if rewards else None
    summary.strict_pass = fmean(strict) if strict else None
    summary.turns_reached = fmean(reached) if reached else None
    summary.successes = fmean(successes) if successes else None
