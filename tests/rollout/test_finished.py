"""A conversation that another engine ran earns what it would have earned in an environment."""

from __future__ import annotations

import asyncio

import pytest

from cm2.credit import Credit
from cm2.dialogue import Step
from cm2.errors import DataError
from cm2.judge import ChecksJudge
from cm2.label.reference import ReferenceLabeler
from cm2.llm import ProviderError
from cm2.rollout import Environment, Limits, finished, finished_async
from cm2.rollout.agents import reference_step
from cm2.rollout.collect import scored
from cm2.worlds import MakeConfig, make, world_of


class Awaited(ChecksJudge):
    """The checks, awaited."""

    async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
        await asyncio.sleep(0)
        return super().judge(dialogue, turn, checklist, since)


class Failing(Awaited):
    """A judge that is down."""

    def __init__(self, error):
        self.error = error

    def judge(self, dialogue, turn, checklist, since=0):
        raise self.error

    async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
        raise self.error


class Undecided(ChecksJudge):
    """A judge whose provider failed on the last item of the last turn."""

    def judge(self, dialogue, turn, checklist, since=0):
        found = super().judge(dialogue, turn, checklist, since)
        if turn == len(dialogue.turns) - 1:
            found[-1].met, found[-1].owner = None, "provider"
        return found


def tasks():
    labeler = ReferenceLabeler()
    return [labeler.label(each).task for each in make(MakeConfig(count=12, seed=3, profile="short", two_turns=0.5))]


def played(task, lazy):
    """An environment in which the agent does as the reference did, but for the steps in `lazy`, which are words."""
    environment = Environment(task, world_of(task).session(), ChecksJudge(), Limits(steps=8))
    number = 0
    while not environment.done:
        environment.feed(Step(reply="All done!") if number in lazy else reference_step(environment))
        number += 1
    return environment


@pytest.mark.parametrize("lazy", [(), (0,), (1,), (2,)])
def test_it_earns_what_it_earned_in_an_environment(lazy):
    rewards = set()
    for task in tasks():
        environment = played(task, lazy)
        record = environment.record()
        found = finished(task, environment.messages)
        assert found.score == scored(record).as_json(), task.dialogue.id
        assert found.verdicts == record.verdicts and found.valid
        assert asyncio.run(finished_async(task, environment.messages, Awaited())) == found
        assert finished(task, environment.messages, Awaited()) == found, "waited for where there is no loop"
        rewards.add(found.score["reward"])
    assert min(rewards) == 1.0 if not lazy else min(rewards) < 1.0


def test_the_settings_of_credit_decide_how_verdicts_are_read():
    task = next(task for task in tasks() if len(task.dialogue.turns) == 2)
    messages = [*played(task, (0,)).messages, {"role": "user", "content": task.dialogue.turns[1].user}]
    for step in task.dialogue.turns[1].steps:
        messages += [
            {
                "role": "assistant",
                "content": step.reply,
                "tool_calls": [
                    {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in step.calls
                ],
            },
            *({"role": "tool", "tool_call_id": one.call_id, "content": one.content} for one in step.responses),
        ]
    full = finished(task, messages).score
    half = finished(task, messages, credit=Credit(gate="graded", strictness=0.5)).score
    assert full["turns"][1] > 0 and half["turns"] == [full["turns"][0], full["turns"][1] / 2]


def test_a_failed_judge_is_no_zero():
    task = tasks()[0]
    messages = played(task, ()).messages
    for judge in (Failing(RuntimeError("down")), Undecided()):
        found = finished(task, messages, judge)
        assert found.failure is not None and found.owner == "judge" and found.score == {} and not found.valid
    found = asyncio.run(finished_async(task, messages, Failing(ProviderError("down"))))
    assert found.failure is not None and "down" in found.failure.message
    with pytest.raises(ProviderError):
        finished(task, messages, Failing(ProviderError("the key is refused", status=401)))


def test_what_is_no_conversation_of_the_task_is_told():
    task = tasks()[0]
    with pytest.raises(DataError, match="no message has the role 'user'"):
        finished(task, [{"role": "assistant", "content": "Hello"}])
    turns = len(task.dialogue.turns) + 1
    with pytest.raises(DataError, match=f"the rollout has {turns} turns"):
        finished(task, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}] * turns)


def test_tools_are_the_tasks_unless_others_were_offered():
    task = tasks()[0]
    messages = played(task, ()).messages
    assert finished(task, messages).dialogue.tools == task.dialogue.tools
    assert [tool.name for tool in finished(task, messages, tools=[{"name": "other"}]).dialogue.tools] == ["other"]
