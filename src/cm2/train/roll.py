"""Rolling out groups with the policy that is being trained, and what a trainer needs of each rollout.

A group is G rollouts of one task in one world. The members that can still teach something are run, not more: first
`probe` members of every group, and where those all earned the same (everything or nothing, mostly) the rest are not.
Such a hopeless group would have had no advantage anyway; the time goes to groups that differ.

Token in, token out: what is trained on are the ids that were sampled and the ids that were shown, as the driver kept
them. `mask` is 1 for sampled ids only; what tools and people said, and template text, carries no loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from cm2.checklist import Checklist, Task
from cm2.credit import Advantages, Credit, Score, advantages, score, spread
from cm2.dialogue import Dialogue
from cm2.judge import ChecksJudge, Judge
from cm2.rollout.driver import Driver
from cm2.rollout.gate import Gate, environment_of
from cm2.rollout.limits import Limits
from cm2.rollout.run import TellOutcome, default_world
from cm2.rollout.trace import Rollout
from cm2.simulate.world import World
from cm2.verdict import Verdict


class Row(msgspec.Struct):
    """One rollout as a trainer's row. The arrays after `prompt` have one entry a completion id."""

    prompt: list[int]
    completion: list[int] = []
    mask: list[int] = []
    """1: sampled by the policy."""
    logprobs: list[float] = []
    """Of the sampled ids under the policy that sampled them; 0 elsewhere."""
    advantages: list[float] = []
    """0 where nothing was sampled."""
    rewards: list[float] = []
    """What each step added to R, on its last sampled token; 0 elsewhere. They sum to R. For a critic."""
    reward: float | None = None
    """None: the rollout was not run, failed, or nothing of it was scored."""


class Timed:
    """A judge that counts its seconds."""

    def __init__(self, judge: Judge):
        self.inner, self.seconds = judge, 0.0

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`."""
        start = time.perf_counter()
        try:
            return self.inner.judge(dialogue, turn, checklist, since)
        finally:
            self.seconds += time.perf_counter() - start


class TimedLater(Timed):
    """The same of a judge that is awaited: the seconds of judgements that overlap add up."""

    async def judge_async(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `AsyncJudge.judge_async`."""
        start = time.perf_counter()
        try:
            inner: Any = self.inner
            found: list[Verdict] = await inner.judge_async(dialogue, turn, checklist, since)
            return found
        finally:
            self.seconds += time.perf_counter() - start


def timed(judge: Judge) -> Timed:
    """The judge with a clock."""
    return TimedLater(judge) if hasattr(judge, "judge_async") else Timed(judge)


class Roller:
    """Runs groups.

    Args:
        driver: decodes; its sampling decides temperature and token limits.
        credit: how rewards become advantages.
        group: G, members of a group.
        probe: members that are run before it is decided whether the rest are; G or more runs all.
        limits: of each rollout.
        judge: ChecksJudge where None.
        world: makes a group's world, from the task and a seed.
        outcome: tells the true outcome, where the task's world can.
    """

    def __init__(
        self,
        driver: Driver,
        credit: Credit,
        *,
        group: int,
        probe: int | None = None,
        limits: Limits | None = None,
        judge: Judge | None = None,
        world: Callable[[Task, int], World] = default_world,
        outcome: TellOutcome | None = None,
    ):
        self.driver, self.credit, self.group, self.limits = driver, credit, group, limits
        self.probe = min(group, probe or group)
        self.judge = timed(judge or ChecksJudge())
        self.world, self.outcome = world, outcome

    def roll(self, tasks: Sequence[Task], seed: int, start: int = 0) -> list[list[Rollout]]:
        """The groups of these tasks, each with as many rollouts as were run; `seed` varies worlds and draws.

        `start` is the first task's number in the update: one that another process rolls draws as it would here.
        """
        worlds = [self.world(task, _mix(seed, start + i)) for i, task in enumerate(tasks)]
        found: list[list[Rollout]] = [[] for _ in tasks]
        open_ = list(range(len(tasks)))
        for first, last in ((0, self.probe), (self.probe, self.group)):
            if first == last or not open_:
                continue
            members = [(i, member) for i in open_ for member in range(first, last)]
            gates = [Gate(self.credit, _mix(seed, start + i)) for i in range(len(tasks))]
            environments = [
                environment_of(tasks[i], worlds[i].session(), self.judge, self.limits, gates[i]) for i, _ in members
            ]
            seeds = [_mix(seed, start + i, member) for i, member in members]
            names = [f"{seed}.{start + i}" for i, _ in members]
            for (i, member), rollout in zip(
                members, self.driver.run(environments, groups=names, seeds=seeds), strict=True
            ):
                rollout.member = member
                self._finish(rollout)
                found[i].append(rollout)
            open_ = [i for i in open_ if self._differs(found[i])]
        return found

    def _finish(self, rollout: Rollout) -> None:
        if not rollout.valid:
            return
        rollout.score = score_of(rollout, self.credit).as_json()
        if self.outcome is not None:
            rollout.outcome = self.outcome(rollout)

    def _differs(self, group: list[Rollout]) -> bool:
        """Whether the probes earned different things, so that the rest of the group is worth running.

        A probe that failed says nothing: with fewer than two that do, the rest are run.
        """
        earned = [
            tuple(rollout.score["turns"]) for rollout in group if rollout.valid and rollout.score["reward"] is not None
        ]
        return len(earned) < 2 or len(set(earned)) > 1


def score_of(rollout: Rollout, credit: Credit) -> Score:
    """What a rollout earned under its own checklists and verdicts."""
    steps = [len(turn.steps) for turn in rollout.dialogue.turns]
    return score(rollout.checklists, rollout.verdicts, steps, rollout.reference_turns, credit.reading, credit.discount)


def credit_group(group: list[Rollout], credit: Credit) -> Advantages:
    """The advantages of a group's rollouts; failed ones leave the statistics and the loss."""
    return advantages([score_of(rollout, credit) for rollout in group], [rollout.valid for rollout in group], credit)


def rows_of(group: list[Rollout], credit: Credit) -> tuple[list[Row], Advantages]:
    """The rows of a group, in its order. A rollout that may not be trained keeps its ids and loses its mask."""
    given = credit_group(group, credit)
    rows = []
    for rollout, steps, trained in zip(group, given.steps, given.trained, strict=True):
        row = Row(rollout.segments[0].prompt if rollout.segments else [])
        flat = spread(steps, [(s.turn, s.step, len(s.tokens)) for s in rollout.segments])
        earned = score_of(rollout, credit).step_rewards if trained else {}
        at = 0
        for number, segment in enumerate(rollout.segments):
            shown = segment.prompt if number else []
            count = len(segment.tokens)
            row.completion += shown + segment.tokens
            row.mask += [0] * len(shown) + [int(trained)] * count
            row.logprobs += [0.0] * len(shown) + segment.logprobs
            row.advantages += [0.0] * len(shown) + flat[at : at + count].tolist()
            row.rewards += [0.0] * (len(shown) + count)
            if count:
                row.rewards[-1] = earned.get((segment.turn, segment.step), 0.0)
            at += count
        row.reward = rollout.score.get("reward") if trained else None
        rows.append(row)
    return rows, given


def strict_reward(groups: list[list[Rollout]], credit: Credit) -> float | None:
    """The mean reward had nothing counted behind the first missed gate: what the method would have paid."""
    strict = msgspec.structs.replace(credit, gate="graded", strictness=1.0)
    everyone = [rollout for members in groups for rollout in members if rollout.valid]
    return _mean([found for rollout in everyone if (found := score_of(rollout, strict).reward) is not None])


def summary_of(
    groups: list[list[Rollout]], rows: list[list[Row]], group: int, further: Sequence[list[Rollout]] = ()
) -> dict[str, Any]:
    """The numbers of one batch of groups; `further` groups (see `cm2.train.dynamic`) count as work and as failures, and
    enter no mean."""
    drawn = [rollout for members in groups for rollout in members]
    everyone = drawn + [rollout for members in further for rollout in members]
    valid = [rollout for rollout in drawn if rollout.valid]
    rewards = [rollout.score["reward"] for rollout in valid if rollout.score["reward"] is not None]
    strict = [rollout.score["strict_pass"] for rollout in valid if rollout.score["strict_pass"] is not None]
    told = [bool(rollout.outcome["success"]) for rollout in valid if "success" in rollout.outcome]
    silent = [not any(value for row in members for value in row.advantages) for members in rows]
    return {
        "reward": _mean(rewards),
        "reward_std": float(np.std(rewards)) if rewards else None,
        "strict_pass": _mean(strict),
        "outcome": _mean(told),
        "rollouts": len(everyone),
        "failures": sum(not rollout.valid for rollout in everyone),
        "groups_without_signal": sum(silent),
        "groups_stopped_early": sum(len(members) < group for members in [*groups, *further]),
        "truncated": sum(rollout.reason == "limit_tokens" for rollout in valid),
        "tokens_generated": sum(rollout.generated_tokens for rollout in everyone),
        "tokens_shown": sum(rollout.prompt_tokens for rollout in everyone),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _mix(*parts: int) -> int:
    """A seed of 31 bits that depends on all of these, the same on every machine."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1)[0] >> 1)
