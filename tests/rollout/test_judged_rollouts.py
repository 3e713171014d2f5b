"""A model as judge inside rollouts: nothing hangs, nobody pays for another's failure, and no failure is a zero."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cm2.checklist import Task
from cm2.dialogue import Step, ToolCall
from cm2.judge import ChecksJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.vote import VoteJudge
from cm2.llm import Answer, BudgetReached, ModelError, ProviderError, flow
from cm2.rollout import Environment, Limits
from cm2.rollout.agents import Action
from cm2.rollout.run import run_rollouts
from cm2.simulate import World
from judge.judge_askers import Oracle, asked, entry, stripped
from rollout.coffee_task import task

DEADLINE = 30.0


class Player:
    """Plays the reference's own steps; `skip` leaves the first look-up out."""

    name = "player"

    def __init__(self, skip: bool = False, tokens: int = 3):
        self.skip, self.tokens = skip, tokens

    async def act(self, environment: Environment, seed: int) -> Action:
        done = len(environment.dialogue.turns[environment.turn].steps)
        step = environment.task.dialogue.turns[environment.turn].steps[done]
        if self.skip and environment.turn == 0:
            return Action(Step(reply="I added one to 51313."), self.tokens)
        calls = [ToolCall(call.name, call.arguments) for call in step.calls]
        return Action(Step(step.thinking, step.reply, calls), self.tokens)


def truthful(of: Task, delay: float = 0.0, fails=lambda number: None) -> LLMJudge:
    """Decides every item by its check, as seen in the request."""

    class Truth:
        secret = ""

        def __init__(self):
            self.number, self.threads = 0, set()

        async def ask(self, request, check=None):
            self.number += 1
            self.threads.add(threading.current_thread().name)
            error = fails(self.number)
            await asyncio.sleep(delay)
            if error is not None:
                raise error
            met = {"C0": "item_id", "C1": "add_item", "C2": "51313"} if request.where.turn == 0 else {}
            met = met or {"C0": "open at 8", "C1": "open at 8"}
            text = request.messages[-1]["content"]
            first = {"C0": 0, "C1": 2, "C2": 4} if request.where.turn == 0 else {"C0": 1, "C1": 1}
            bought = "add_item(" in text
            return Answer(
                {
                    "verdicts": [
                        entry(one["id"], first[one["id"]] if bought else None, met[one["id"]] if bought else "")
                        for one in asked(request)
                    ]
                }
            )

    return LLMJudge(Truth())


def open_task() -> Task:
    """The coffee task without its checks."""
    found = stripped(task())
    found.checklists[1].items[1].question = "Did the assistant add nothing?"
    return found


def rolled(judge, tasks, agent=None, group=1, concurrency=8):
    async def run():
        return [
            one
            async for one in run_rollouts(
                tasks, agent or Player(), group=group, judge=judge, concurrency=concurrency, limits=Limits(steps=8)
            )
        ]

    return run


JUDGES = {
    "llm": lambda asker: LLMJudge(asker),
    "hybrid": lambda asker: HybridJudge(LLMJudge(asker)),
    "vote": lambda asker: VoteJudge([LLMJudge(asker, sample=k) for k in range(3)]),
    "step": lambda asker: LLMJudge(asker, Judging(kind="llm", schedule="turn", isolate="subjective")),
}


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("where", ["own loop", "the door's loop"])
def test_rollouts_judged_by_a_model_come_to_an_end_on_any_loop(kind, where):
    inner = truthful(task()).asker
    run = rolled(JUDGES[kind](inner), [open_task()] * 4, group=3)
    if where == "own loop":
        rollouts = asyncio.run(asyncio.wait_for(run(), DEADLINE))
    else:
        rollouts = flow.submit(run()).result(timeout=DEADLINE)
    assert len(rollouts) == 12 and all(one.valid and one.reason == "completed" for one in rollouts)
    assert inner.threads == {flow.THREAD}
    assert all({v.met for v in one.verdicts if v.turn == 1} == {False, True} for one in rollouts)


def test_siblings_are_judged_once_while_they_are_alike():
    judge = truthful(task(), delay=0.01)
    rollouts = asyncio.run(rolled(judge, [open_task()], group=8)())
    assert len(rollouts) == 8 and judge.asker.number == 2  # one call a turn, for all eight
    assert len({tuple((v.key, v.met) for v in one.verdicts) for one in rollouts}) == 1


def test_verdicts_are_waited_for_together_and_not_one_after_the_other():
    tasks = [open_task() for _ in range(16)]
    for number, one in enumerate(tasks):
        one.dialogue.id = f"coffee-{number}"
    judge = truthful(task(), delay=0.2)
    started = asyncio.new_event_loop()
    began = started.time()
    rollouts = asyncio.run(asyncio.wait_for(rolled(judge, tasks, concurrency=16)(), DEADLINE))
    assert len(rollouts) == 16 and started.time() - began < 0.2 * 32 / 3  # 32 calls of 0.2 s
    started.close()


def test_a_strict_item_that_a_model_denies_ends_the_rollout():
    (rollout,) = asyncio.run(rolled(truthful(task()), [open_task()], Player(skip=True))())
    assert (rollout.reason, rollout.owner, rollout.valid) == ("strict", "agent", True)


def test_a_sync_driver_waits_for_the_same_verdicts():
    of = open_task()
    environment = Environment(of, World(of.dialogue).session(), truthful(task()), Limits(steps=8))
    while not environment.done:
        environment.feed(asyncio.run(Player().act(environment, 0)).step)
    assert environment.reason == "completed" and {v.met for v in environment.verdicts if v.step == 4} == {True}


def test_judging_on_the_doors_own_loop_without_awaiting_is_put_on_record_and_does_not_hang():
    of = open_task()
    environment = Environment(of, World(of.dialogue).session(), truthful(task()), Limits(steps=8))

    async def wrong():
        return environment.feed(Step(reply="Done."))

    flow.submit(wrong()).result(timeout=DEADLINE)
    assert environment.failure is not None and "judge_async" in environment.failure.message


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("error", [ProviderError("503 for ever"), ModelError("prose only")])
def test_a_judge_that_fails_makes_the_rollout_worth_nothing_and_never_a_zero(error):
    judge = truthful(task(), fails=lambda number: error if number == 2 else None)
    (rollout,) = asyncio.run(rolled(judge, [open_task()])())
    assert not rollout.valid and rollout.failure.owner == "judge" and not rollout.failure.fatal
    assert "turn 1: item C0 is unscored" in rollout.failure.message and error.message in rollout.failure.message
    assert False not in {v.met for v in rollout.verdicts if v.turn == 1}


def test_the_siblings_of_a_failed_rollout_are_judged_as_if_it_had_not_been():
    class Varied(Player):
        async def act(self, environment, seed):
            action = await super().act(environment, seed)
            if action.step.reply:
                action.step.reply += f" ({seed})"
            return action

    judge = truthful(task(), fails=lambda number: ProviderError("503") if number == 1 else None)
    rollouts = asyncio.run(rolled(judge, [open_task()], Varied(), group=4)())
    assert sorted(one.valid for one in rollouts) == [False, True, True, True]
    assert all(one.reason == "completed" for one in rollouts if one.valid)


def test_an_item_without_check_is_unscored_by_checks_and_costs_no_rollout():
    (rollout,) = asyncio.run(rolled(ChecksJudge(), [open_task()])())
    assert rollout.valid and {v.met for v in rollout.verdicts} == {None}


@pytest.mark.parametrize("error", [ProviderError("refused", status=401), BudgetReached("no money left")])
def test_what_every_further_rollout_would_meet_is_fatal(error):
    judge = truthful(task(), fails=lambda number: error)
    of = open_task()
    environment = Environment(of, World(of.dialogue).session(), judge, Limits(steps=8))
    environment.feed(Step(reply="Done."))
    assert environment.failure.fatal and environment.failure.owner == "judge"
    assert (environment.broke is error) is isinstance(error, BudgetReached)


def test_a_rollout_that_is_given_up_while_it_is_judged_leaves_nothing_hanging():
    async def scene():
        judge = truthful(task(), delay=60)
        of = open_task()
        environment = Environment(of, World(of.dialogue).session(), judge, Limits(steps=8))
        feeding = asyncio.create_task(environment.feed_async(Step(reply="Done.")))
        while not judge.asker.number:
            await asyncio.sleep(0.01)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        while judge.memory._flights:  # given up on the door's loop, a moment later
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), DEADLINE))


def test_a_limit_from_outside_is_judged_on_what_is_there():
    async def scene():
        of = open_task()
        environment = Environment(of, World(of.dialogue).session(), truthful(task()), Limits(steps=8))
        for step in of.dialogue.turns[0].steps[:3]:
            await environment.feed_async(Step(calls=[ToolCall(c.name, c.arguments) for c in step.calls]))
        await environment.stop_async("limit_tokens", "limit")
        return environment

    environment = asyncio.run(asyncio.wait_for(scene(), DEADLINE))
    assert environment.reason == "limit_tokens" and environment.failure is None
    said = {v.item: v.met for v in environment.verdicts if v.step == 2}
    assert said == {"C0": True, "C1": True, "C2": False}  # C2 looks at a reply, and there is none


def test_the_oracle_of_the_judges_tests_judges_a_rollout_like_its_checks():
    of = task()
    (by_checks,) = asyncio.run(rolled(ChecksJudge(), [of])())
    oracle = Oracle([by_checks.dialogue], of.checklists)
    (by_model,) = asyncio.run(rolled(LLMJudge(oracle), [stripped(of)])())
    assert [v.met for v in by_model.verdicts] == [v.met for v in by_checks.verdicts]
