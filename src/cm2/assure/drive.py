"""Drive: two agents, prompts or models on the same simulated tasks, one store of rollouts for each.

Both play the same tasks with the same seeds: a task's world and the seeds of its requests depend on the task and the
run's number, and not on who acts. A store goes on where it was killed; a run that a provider failed is tried again by
the next call, and until then it is nobody's loss (`cm2.rollout.collect`).

An agent with a system prompt of its own plays a copy of the tasks in which that prompt stands in place of theirs. Items
about the whole dialogue have no part in the environment, which gates turn by turn; they are judged afterwards.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import RowWriter, detect_format, read_rows, read_task, read_tasks, write_task
from cm2.llm import Endpoint
from cm2.llm.config import RoleModel
from cm2.llm.prices import Prices
from cm2.rollout.collect import RolloutConfig, Summary, collect
from cm2.rollout.limits import Limits
from cm2.verdict import WHOLE
from cm2.worlds import outcome_for, world_for

Track = Callable[[Iterator[Task], str], Iterator[Task]]


class Actor(msgspec.Struct, kw_only=True):
    """One of the two agents."""

    endpoint: Endpoint
    system: str | None = None
    """Its system prompt, in place of the tasks' own."""


class DriveConfig(msgspec.Struct, kw_only=True):
    """Who plays what."""

    tasks: str
    """Reference dialogues whose user turns are played, labelled where they are to be judged by their own checklists."""
    folder: str
    """Where the rollouts go: a.jsonl and b.jsonl. The same command goes on where a killed one stopped."""
    a: Actor
    b: Actor
    group: int = 1
    """Runs of each task, averaged within it. More of them make its number steadier; more tasks tell more."""
    limit: int | None = None
    """Only the first so many tasks."""
    concurrency: int = 16
    """Rollouts at once."""
    seed: int = 0
    """Varies the simulated world and the seeds sent to the endpoints; the same for both."""
    limits: Limits = msgspec.field(default_factory=Limits)
    """When a rollout ends at the latest."""
    format: str = "auto"
    """Of the tasks, when it cannot be told from the rows."""


class Spent(msgspec.Struct):
    """What an agent's store has cost so far, failed and repeated runs included."""

    rollouts: int = 0
    written: int = 0
    """Of those, the ones of this call."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float | None = None
    """US dollars; None where the model has no price that is known."""


class Driven(msgspec.Struct):
    """Two stores that can be compared."""

    a: str
    b: str
    whole: bool
    """Whether the tasks have items about the whole dialogue."""
    spent: dict[str, Spent]


class Expected(msgspec.Struct):
    """What driving would ask, if both agents took as many steps as the reference."""

    tasks: int
    rollouts: int
    """Of both agents."""
    actions: int
    """Requests to both endpoints."""


def expected(config: DriveConfig) -> Expected:
    """What there is to ask, before anything is asked.

    Raises:
        DataError: the tasks are missing, empty or of another kind.
    """
    tasks = steps = 0
    for task in _tasks(config):
        tasks += 1
        steps += sum(max(1, len(turn.steps)) for turn in task.dialogue.turns)
    return Expected(tasks, 2 * config.group * tasks, 2 * config.group * steps)


def drive(config: DriveConfig, track: Track = lambda tasks, what: tasks) -> Driven:
    """Let both agents play, A first.

    Args:
        config: who plays what.
        track: wraps the tasks as they are started, with whose turn it is.

    Raises:
        ConfigError: a store was begun on other tasks, by another agent or with other settings.
        DataError: the tasks are missing, empty or of another kind.
        ProviderError: an endpoint refuses every request; what was played is kept.
    """
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = any(checklist.turn == WHOLE for task in _tasks(config) for checklist in task.checklists)
    spent = {}
    stores = []
    for name, actor in (("a", config.a), ("b", config.b)):
        store = str(folder / f"{name}.jsonl")
        played = RolloutConfig(
            input=_played(config, actor, str(folder / f"tasks-{name}.jsonl"), whole),
            output=store,
            endpoint=actor.endpoint,
            group=config.group,
            seed=config.seed,
            concurrency=config.concurrency,
            limit=config.limit,
            format=config.format,
            limits=config.limits,
        )
        summary = asyncio.run(_collect(played, lambda tasks, name=name: track(tasks, f"agent {name.upper()}")))  # type: ignore[misc]
        spent[name] = _spent(store, actor.endpoint, summary.written)
        stores.append(store)
    return Driven(stores[0], stores[1], whole, spent)


async def _collect(config: RolloutConfig, progress: Callable[[Iterator[Task]], Iterator[Task]]) -> Summary:
    return await collect(config, world=world_for, outcome=outcome_for, progress=progress)


def _tasks(config: DriveConfig) -> Iterator[Task]:
    for count, (_, task) in enumerate(read_tasks(config.tasks, config.format, on_error=lambda row: None)):
        if config.limit is not None and count >= config.limit:
            return
        yield task


def _played(config: DriveConfig, actor: Actor, copy: str, whole: bool) -> str:
    """The file of tasks that an agent plays: the given one, or a copy with its prompt and without items about the whole
    dialogue. The same settings make the same copy, so that a store goes on."""
    if actor.system is None and not whole:
        return config.tasks
    with RowWriter(copy) as out:
        for row in read_rows(config.tasks):
            if row.value is None:
                out.write_text((row.raw or "").encode())  # rows that do not read stay, on their line, to be told of
                continue
            try:
                task = read_task(row.value, config.format, Where(file=config.tasks, line=row.line))
            except DataError:
                out.write(row.value)
                continue
            dialogue = task.dialogue
            if actor.system is not None:
                dialogue = msgspec.structs.replace(dialogue, system=actor.system)
            checklists = [checklist for checklist in task.checklists if checklist.turn != WHOLE]
            format = detect_format(row.value) if config.format == "auto" else config.format
            out.write(write_task(Task(dialogue, checklists), format))
    return copy


class _Tokens(msgspec.Struct):
    prompt_tokens: int = 0
    generated_tokens: int = 0


def _spent(store: str, endpoint: Endpoint, written: int) -> Spent:
    found = Spent(written=written)
    with open(store, "rb") as file:
        for line in file:
            tokens = msgspec.json.decode(line, type=_Tokens)
            found.rollouts += 1
            found.prompt_tokens += tokens.prompt_tokens
            found.generated_tokens += tokens.generated_tokens
    price = Prices().of(RoleModel(base_url=endpoint.base_url, model=endpoint.model))
    if price is not None:
        found.cost = price.cost(found.prompt_tokens, 0, found.generated_tokens)
    return found


def read_prompt(path: str) -> str:
    """A system prompt from a file.

    Raises:
        ConfigError: the file is absent, empty or no text.
    """
    where = Where(file=path)
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError("there is no such file", where=where, fix="check the path of the system prompt") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no text file", where=where, fix="pass the system prompt as text") from error
    if not text:
        raise ConfigError("the system prompt is empty", where=where, fix="write one, or leave the option out")
    return text


def apart(config: DriveConfig) -> None:
    """Make sure that the tasks are not one of the files that driving writes.

    Raises:
        ConfigError: they are.
    """
    written = ("a.jsonl", "b.jsonl", "tasks-a.jsonl", "tasks-b.jsonl")
    if os.path.realpath(config.tasks) in {os.path.realpath(os.path.join(config.folder, name)) for name in written}:
        raise ConfigError("the tasks are a file that this command writes", fix="give --runs another folder")
