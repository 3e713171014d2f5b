"""Sample worlds inside a run: rollouts go through the executable world and carry their true outcome."""

from __future__ import annotations

import asyncio

from cm2.checklist import Task
from cm2.dialogue import Step
from cm2.rollout.agents import Action
from cm2.rollout.run import run_rollouts
from cm2.worlds import MakeConfig, make, outcome_of, world_of


class Player:
    """Plays the reference; every second member books nothing and says that it did."""

    name = "player"

    def __init__(self, dialogues):
        self.dialogues = {dialogue.id: dialogue for dialogue in dialogues}
        self.count = 0

    async def act(self, environment, seed):
        reference = self.dialogues[environment.dialogue.id].turns[environment.turn]
        done = len(environment.dialogue.turns[environment.turn].steps)
        if done == 0 and environment.turn == 0:
            self.count += 1
            environment.lazy = self.count % 2 == 0
        if environment.lazy:
            return Action(Step(reply="All done, it is booked."))
        return Action(Step(calls=reference.steps[done].calls, reply=reference.steps[done].reply))


def test_members_of_a_group_share_a_world_but_not_its_state_and_each_is_told_its_outcome():
    dialogues = list(make(MakeConfig(count=16, profile="short"))) + list(make(MakeConfig(count=16, profile="full")))

    async def run():
        tasks = [Task(dialogue) for dialogue in dialogues]
        rollouts = run_rollouts(tasks, Player(dialogues), group=2, world=world_of, outcome=outcome_of, concurrency=1)
        return [rollout async for rollout in rollouts]

    rollouts = asyncio.run(run())
    assert len(rollouts) == 64 and all(rollout.valid for rollout in rollouts)
    assert [rollout.outcome["success"] for rollout in sorted(rollouts, key=lambda r: r.member)] == [True] * 32 + [
        False
    ] * 32
