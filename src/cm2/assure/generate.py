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

import os
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import msgspec

from cm2.assure.export_formats import writer_of
from cm2.assure.generate_choice import chosen, judge, named, pairs
from cm2.assure.generate_config import GenerateConfig, Summary
from cm2.assure.generate_plan import playable
from cm2.assure.leakage import Exclusion
from cm2.checklist import Task
from cm2.formats import RowWriter, write_task
from cm2.rollout.collect import collect
from cm2.rollout.trace import read_rollouts


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
    allowed = playable(config, exclusion or Exclusion(), summary)
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
        reward, reason = judge(rollout, config)
        if reward is not None:
            rewards.append(reward)
        if "success" in rollout.outcome:
            successes.append(bool(rollout.outcome["success"]))
        reason = reason or ("" if rollout.task in allowed else "the task may not be trained on")
        if reason:
            summary.leave(reason)
            continue
        summary.passed += 1
        steps = sum(len(turn.steps) for turn in rollout.dialogue.turns)
        by_task.setdefault(rollout.task, []).append(((-(reward or 0.0), steps, rollout.member), number))
    kept_numbers = chosen(config, store, by_task, summary)
    kept_rewards: list[float] = []
    kept_successes: list[bool] = []
    names = {name: os.path.join(config.output, f"{name}.jsonl") for name in ("kept", "verdicts", "pairs")}
    with RowWriter(names["kept"]) as kept, RowWriter(names["verdicts"]) as verdicts:
        for number, rollout in enumerate(read_rollouts(store)):
            if number not in kept_numbers:
                continue
            dialogue = named(rollout)
            kept.write(write_task(Task(dialogue, rollout.checklists), "openai"))
            for verdict in rollout.verdicts:
                verdicts.write(msgspec.structs.replace(verdict, dialogue=dialogue.id, rollout=""))
            summary.kept += 1
            kept_rewards.append(judge(rollout, config)[0] or 0.0)
            if "success" in rollout.outcome:
                kept_successes.append(bool(rollout.outcome["success"]))
    summary.kept_tasks = len(by_task)
    summary.reward, summary.kept_reward = _mean(rewards), _mean(kept_rewards)
    summary.successes, summary.kept_successes = _mean(successes), _mean(kept_successes)
    with RowWriter(names["pairs"]) as writer:
        make = writer_of("preferences", "trl")
        for pair in pairs(store, allowed, summary):
            writer.write(make(pair))
            summary.pairs += 1
    summary.files = {"rollouts": store, **names}
    with RowWriter(os.path.join(config.output, "summary.json")) as writer:
        writer.write(summary)


def _mean(values: list[Any]) -> float | None:
    return fmean(values) if values else None
