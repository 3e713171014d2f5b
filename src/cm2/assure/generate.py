"""Generate: rejection sampling. An endpoint's model plays tasks in the simulated world; what keeps its duties is kept.

A folder:

    rollouts.jsonl    every rollout, kept or not (`cm2.rollout`); a killed run goes on with it
    kept.jsonl        the dialogues that were kept, with their checklists: for `cm2 export`, `cm2 sft`
    verdicts.jsonl    the verdicts on these
    pairs.jsonl       the best rollout of a task and one that fails, from where they part (TRL's preference rows)
    summary.json      what came of it

Members are sampled in rounds, one for each task at a time, so that a budget of tokens ends the run between rounds with
every task tried as often. A rollout that failed for another reason than the agent is neither kept nor rejected; one of
which an item could not be judged is not kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Annotated, Any, Literal

import msgspec

from cm2.assure.export_formats import Pair, writer_of
from cm2.assure.export_standing import standing_of
from cm2.assure.leakage import Exclusion
from cm2.assure.outcomes import Judged, decide_outcomes
from cm2.assure.pairs import Paths, fetch
from cm2.checklist import Task
from cm2.curate.features import near_signature
from cm2.curate.minhash import resemblance, spread
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import RowWriter, read_tasks, write_task
from cm2.formats.jsonlines import encode
from cm2.rollout.collect import RolloutConfig, collect, scored
from cm2.rollout.trace import Rollout, read_rollouts

Keep = Literal["strict", "reward"]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class GenerateConfig(msgspec.Struct, kw_only=True):
    """What is sampled, and what of it is kept."""

    rollouts: RolloutConfig
    """Which agent plays which tasks; `group` is how often each."""
    output: str
    """The folder."""
    keep: Keep = "strict"
    """strict: every item holds, and none is unscored. reward: the checklist reward is at least `threshold`."""
    threshold: Share = 1.0
    """For `reward`."""
    best: Count = 1
    """Rollouts of a task that are kept at most: those of the highest reward, then the shortest."""
    near: Share | None = 0.95
    """Rollouts of a task that resemble a kept one so much are not kept beside it; None: only equal ones."""
    tokens: Count | None = None
    """A budget: no round begins when so many tokens (prompts and answers) were spent."""


class Summary(msgspec.Struct, kw_only=True):
    """What was sampled and kept."""

    tasks: int = 0
    rollouts: int = 0
    rounds: int = 0
    failed: dict[str, int] = {}
    """Rollouts that say nothing about the agent, by whose failure it was."""
    passed: int = 0
    """Rollouts that could be kept."""
    kept: int = 0
    kept_tasks: int = 0
    """Tasks of which one was kept."""
    left_out: dict[str, int] = {}
    """The others, by reason."""
    pairs: int = 0
    reward: float | None = None
    """Mean of all valid rollouts …"""
    kept_reward: float | None = None
    """… and of those that were kept."""
    successes: float | None = None
    """Share of the valid ones with a true outcome, where the tasks' worlds can tell …"""
    kept_successes: float | None = None
    """… and of those that were kept: how far the checklist can be trusted as a filter."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    budget_reached: bool = False
    files: dict[str, str] = {}


class Plan(msgspec.Struct, kw_only=True):
    """What a run would ask for, if the agent took the reference's steps."""

    tasks: int = 0
    rollouts: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


async def generate(
    config: GenerateConfig,
    exclusion: Exclusion | None = None,
    rounds: Callable[[Iterator[int]], Iterator[int]] = lambda numbers: numbers,
    **collecting: Any,
) -> Summary:
    """Sample what the folder does not hold yet, and write what is kept.

    Args:
        config: what and how much.
        exclusion: tasks that may not be trained on.
        rounds: wraps the numbers of the rounds.
        collecting: the world, the outcome, the judge, the asker; see `cm2.rollout.collect.collect`.

    Raises:
        ConfigError: the folder was begun with other tasks, another agent or other settings.
        DataError: the tasks are missing or have no checklists, or nothing was kept.
        ProviderError: the endpoint refuses every request.
    """
    os.makedirs(config.output, exist_ok=True)
    store = os.path.join(config.output, "rollouts.jsonl")
    summary = Summary()
    allowed = _tasks(config, exclusion or Exclusion(), summary)
    for number in rounds(iter(range(1, config.rollouts.group + 1))):
        if config.tokens is not None and os.path.exists(store) and _spent(store) >= config.tokens:
            summary.budget_reached = True
            break
        await collect(
            msgspec.structs.replace(config.rollouts, output=store, group=number),
            progress=lambda tasks: (task for task in tasks if task.dialogue.id in allowed),
            **collecting,
        )
        summary.rounds = number
    _write(config, store, allowed, summary)
    return summary


def plan(config: GenerateConfig, exclusion: Exclusion | None = None) -> Plan:
    """What a run would ask for; nothing is asked. Tokens are estimated from the characters."""
    from cm2.llm.tokens import estimate

    def measure(text: str) -> int:
        return estimate(len(text))

    found = Plan()
    allowed = _tasks(config, exclusion or Exclusion(), Summary())
    for _, task in _limited(config):
        dialogue = task.dialogue
        if dialogue.id not in allowed:
            continue
        found.tasks += 1
        told = measure((dialogue.system or "") + encode([tool.parameters for tool in dialogue.tools]).decode())
        for turn in dialogue.turns:
            told += measure(turn.user)
            for step in turn.steps:
                said = measure(step.reply or "") + measure(step.thinking or "") + measure(encode(step.calls).decode())
                found.calls += 1
                found.prompt_tokens += told
                found.answer_tokens += said
                told += said + sum(measure(response.content) for response in step.responses)
    times = config.rollouts.group
    found.rollouts, found.calls = found.tasks * times, found.calls * times
    found.prompt_tokens, found.answer_tokens = found.prompt_tokens * times, found.answer_tokens * times
    return found


def _limited(config: GenerateConfig) -> Iterator[tuple[int, Task]]:
    for number, (line, task) in enumerate(
        read_tasks(config.rollouts.input, config.rollouts.format, on_error=lambda row: None)
    ):
        if config.rollouts.limit is not None and number >= config.rollouts.limit:
            return
        yield line, task


def _tasks(config: GenerateConfig, exclusion: Exclusion, summary: Summary) -> set[str]:
    """The tasks that may be played."""
    allowed: set[str] = set()
    without = 0
    for _, task in _limited(config):
        summary.tasks += 1
        reason = exclusion.reason(task.dialogue)
        if not task.checklists:
            without, reason = without + 1, reason or "the task has no checklist"
        if reason:
            summary.left_out[f"tasks: {reason}"] = summary.left_out.get(f"tasks: {reason}", 0) + 1
        else:
            allowed.add(task.dialogue.id)
    if not allowed:
        fix = "label them first: cm2 label" if without else "give other tasks, or exclude less"
        where = Where(file=config.rollouts.input)
        raise DataError("none of its tasks may be played and has a checklist", where=where, fix=fix)
    return allowed


def _spent(store: str) -> int:
    return sum(rollout.prompt_tokens + rollout.generated_tokens for rollout in read_rollouts(store))


def _write(config: GenerateConfig, store: str, allowed: set[str], summary: Summary) -> None:
    """Choose, task by task, and write what was chosen."""
    by_task: dict[str, list[tuple[Any, int]]] = {}
    rewards: list[float] = []
    successes: list[bool] = []
    for number, rollout in enumerate(read_rollouts(store)):
        summary.rollouts += 1
        summary.prompt_tokens += rollout.prompt_tokens
        summary.generated_tokens += rollout.generated_tokens
        if rollout.failure is not None:
            owner = rollout.failure.owner
            summary.failed[owner] = summary.failed.get(owner, 0) + 1
            continue
        reward, reason = _judge(rollout, config)
        if reward is not None:
            rewards.append(reward)
        if "success" in rollout.outcome:
            successes.append(bool(rollout.outcome["success"]))
        reason = reason or ("" if rollout.task in allowed else "the task may not be trained on")
        if reason:
            _leave(summary, reason)
            continue
        summary.passed += 1
        steps = sum(len(turn.steps) for turn in rollout.dialogue.turns)
        by_task.setdefault(rollout.task, []).append(((-(reward or 0.0), steps, rollout.member), number))
    chosen = _chosen(config, store, by_task, summary)
    kept_rewards: list[float] = []
    kept_successes: list[bool] = []
    names = {name: os.path.join(config.output, f"{name}.jsonl") for name in ("kept", "verdicts", "pairs")}
    with RowWriter(names["kept"]) as kept, RowWriter(names["verdicts"]) as verdicts:
        for number, rollout in enumerate(read_rollouts(store)):
            if number not in chosen:
                continue
            dialogue = _named(rollout)
            kept.write(write_task(Task(dialogue, rollout.checklists), "openai"))
            for verdict in rollout.verdicts:
                verdicts.write(msgspec.structs.replace(verdict, dialogue=dialogue.id, rollout=""))
            summary.kept += 1
            kept_rewards.append(_judge(rollout, config)[0] or 0.0)
            if "success" in rollout.outcome:
                kept_successes.append(bool(rollout.outcome["success"]))
    summary.kept_tasks = len(by_task)
    summary.reward, summary.kept_reward = _mean(rewards), _mean(kept_rewards)
    summary.successes, summary.kept_successes = _mean(successes), _mean(kept_successes)
    with RowWriter(names["pairs"]) as writer:
        make = writer_of("preferences", "trl")
        for pair in _pairs(store, allowed, summary):
            writer.write(make(pair))
            summary.pairs += 1
    summary.files = {"rollouts": store, **names}
    with RowWriter(os.path.join(config.output, "summary.json")) as writer:
        writer.write(summary)


def _judge(rollout: Rollout, config: GenerateConfig) -> tuple[float | None, str]:
    """The reward, and why the rollout is not kept ("" where it may be)."""
    score = scored(rollout)
    if score.reward is None:
        return None, "nothing was decided"
    if config.keep == "reward":
        return score.reward, "" if score.reward >= config.threshold else "the reward is below the threshold"
    outcomes = [met for ledger in score.ledgers.values() for met in ledger.outcome.values()]
    if not score.strict_pass:
        return score.reward, "an item does not hold"
    if None in outcomes and _undecided(rollout):
        return score.reward, "an item could not be judged"
    return score.reward, ""


def _undecided(rollout: Rollout) -> bool:
    """Whether an item that applies was not judged."""
    outcomes = decide_outcomes(rollout.dialogue, "", rollout.checklists, rollout.verdicts)
    return any(one.result == "unscored" for one in outcomes)


def _chosen(
    config: GenerateConfig, store: str, by_task: dict[str, list[tuple[Any, int]]], summary: Summary
) -> set[int]:
    """The numbers of the rollouts that are kept: the best of each task, no two of them alike."""
    ranks = {number: rank for mine in by_task.values() for rank, (_, number) in enumerate(sorted(mine))}
    signatures: dict[int, Any] = {}
    tasks: dict[int, str] = {}
    digests: dict[int, str] = {}
    for number, rollout in enumerate(read_rollouts(store)):
        if number in ranks:
            tasks[number] = rollout.task
            digests[number] = hashlib.blake2b(_content(rollout.dialogue), digest_size=16).hexdigest()
            if config.near is not None and config.best > 1:
                signatures[number] = near_signature(rollout.dialogue)
    chosen: dict[str, list[int]] = {}
    for number in sorted(ranks, key=lambda number: (tasks[number], ranks[number])):
        mine = chosen.setdefault(tasks[number], [])
        if len(mine) >= config.best:
            _leave(summary, "the task has better ones")
        elif any(digests[number] == digests[other] for other in mine) or (
            config.near is not None
            and any(
                float(resemblance(signatures[number], signatures[other])) >= config.near - 3 * spread(config.near)
                for other in mine
            )
        ):
            _leave(summary, "much like a better one")
        else:
            mine.append(number)
    return {number for mine in chosen.values() for number in mine}


def _pairs(store: str, allowed: set[str], summary: Summary) -> Iterator[Pair]:
    """The best and the worst of a task from where they part; rollouts that failed are no evidence."""

    def valid() -> Iterator[Rollout]:
        for rollout in read_rollouts(store):
            if rollout.valid and rollout.task in allowed:
                yield rollout

    paths = Paths()
    for rollout in valid():
        outcomes = decide_outcomes(rollout.dialogue, "", rollout.checklists, rollout.verdicts)
        paths.add(rollout.dialogue, standing_of(Judged(0, rollout.dialogue, "", outcomes)))
    yield from fetch(paths.pairs(), (_named(rollout) for rollout in valid()), summary.left_out)


def _named(rollout: Rollout) -> Dialogue:
    """The dialogue under an id of its own, with the task that it is a run of."""
    id = f"{rollout.task}#{rollout.member}" if not rollout.group else f"{rollout.task}#{rollout.group}#{rollout.member}"
    meta = {**rollout.dialogue.meta, "task": rollout.task, "agent": rollout.agent}
    if rollout.outcome:
        meta["outcome"] = rollout.outcome
    return msgspec.structs.replace(rollout.dialogue, id=id, meta=meta, wire=None)


def _content(dialogue: Dialogue) -> bytes:
    return encode([[turn.user, [[step.reply, step.calls] for step in turn.steps]] for turn in dialogue.turns])


def _leave(summary: Summary, reason: str) -> None:
    summary.left_out[reason] = summary.left_out.get(reason, 0) + 1


def _mean(values: list[Any]) -> float | None:
    return fmean(values) if values else None


def check(config: GenerateConfig) -> None:
    """Make sure that the settings go together.

    Raises:
        ConfigError: they do not.
    """
    if config.keep not in ("strict", "reward"):
        raise ConfigError(f"there is no way to keep {config.keep!r}", fix="use strict or reward")
    if os.path.isfile(config.output):
        raise ConfigError("the output is a file", where=Where(file=config.output), fix="name a folder")
