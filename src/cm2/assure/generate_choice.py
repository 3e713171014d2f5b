"""Which rollouts of an agent are worth keeping: those that kept their duties, the best of each task, no two alike.

A rollout of which an item could not be judged is not kept; one that failed through somebody else is no evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from cm2.assure.export_formats import Pair
from cm2.assure.export_standing import standing_of
from cm2.assure.generate_config import GenerateConfig, Summary
from cm2.assure.outcomes import Judged, decide_outcomes
from cm2.assure.pairs import Paths, fetch
from cm2.curate.features import near_signature
from cm2.curate.minhash import resemblance, spread
from cm2.dialogue import Dialogue
from cm2.formats.jsonlines import encode
from cm2.rollout.collect import scored
from cm2.rollout.trace import Rollout, read_rollouts


def judge(rollout: Rollout, config: GenerateConfig) -> tuple[float | None, str]:
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


def chosen(config: GenerateConfig, store: str, by_task: dict[str, list[tuple[Any, int]]], summary: Summary) -> set[int]:
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
    best: dict[str, list[int]] = {}
    for number in sorted(ranks, key=lambda number: (tasks[number], ranks[number])):
        mine = best.setdefault(tasks[number], [])
        if len(mine) >= config.best:
            summary.leave("the task has better ones")
        elif any(digests[number] == digests[other] for other in mine) or (
            config.near is not None
            and any(
                float(resemblance(signatures[number], signatures[other])) >= config.near - 3 * spread(config.near)
                for other in mine
            )
        ):
            summary.leave("much like a better one")
        else:
            mine.append(number)
    return {number for mine in best.values() for number in mine}


def pairs(store: str, allowed: set[str], summary: Summary) -> Iterator[Pair]:
    """The best and the worst of a task from where they part; rollouts that failed are no evidence."""

    def valid() -> Iterator[Rollout]:
        for rollout in read_rollouts(store):
            if rollout.valid and rollout.task in allowed:
                yield rollout

    paths = Paths()
    for rollout in valid():
        outcomes = decide_outcomes(rollout.dialogue, "", rollout.checklists, rollout.verdicts)
        paths.add(rollout.dialogue, standing_of(Judged(0, rollout.dialogue, "", outcomes)))
    yield from fetch(paths.pairs(), (named(rollout) for rollout in valid()), summary.left_out)


def named(rollout: Rollout) -> Dialogue:
    """The dialogue under an id of its own, with the task that it is a run of."""
    id = f"{rollout.task}#{rollout.member}" if not rollout.group else f"{rollout.task}#{rollout.group}#{rollout.member}"
    meta = {**rollout.dialogue.meta, "task": rollout.task, "agent": rollout.agent}
    if rollout.outcome:
        meta["outcome"] = rollout.outcome
    return msgspec.structs.replace(rollout.dialogue, id=id, meta=meta, wire=None)


def _content(dialogue: Dialogue) -> bytes:
    return encode([[turn.user, [[step.reply, step.calls] for step in turn.steps]] for turn in dialogue.turns])
