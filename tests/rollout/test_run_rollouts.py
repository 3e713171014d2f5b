"""Many rollouts at once: groups share a world, every failure has an owner, nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, ToolCall
from cm2.llm import ProviderError
from cm2.rollout import Limits, Rollout
from cm2.rollout.agents import Action, ReplayAgent, ScriptedAgent
from cm2.rollout.run import STOP_AFTER, run_rollouts
from cm2.simulate import SimulatorError, World
from rollout.coffee_task import dialogue, task


def tasks(count: int) -> list[Task]:
    made = []
    for index in range(count):
        one = task()
        one.dialogue.id = f"coffee-{index}"
        made.append(one)
    return made


def run(of, agent=None, **settings) -> list[Rollout]:
    async def collect():
        return [rollout async for rollout in run_rollouts(of, agent or ReplayAgent(), **settings)]

    return asyncio.run(collect())


class Waiting(ReplayAgent):
    """Replays, waits a little in each step, and counts how many wait at once."""

    def __init__(self):
        self.now = self.most = 0

    async def act(self, environment, seed):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return await super().act(environment, seed)


class Flaky(ReplayAgent):
    """Fails where the seed of the step says so."""

    def __init__(self, error, fails=lambda environment: True):
        self.error, self.fails = error, fails

    async def act(self, environment, seed):
        if self.fails(environment):
            raise self.error
        return await super().act(environment, seed)


def test_every_task_is_run_once_for_every_member():
    found = run(tasks(5), group=3)
    assert Counter(one.key for one in found) == Counter(f"coffee-{i}##{m}" for i in range(5) for m in range(3))
    assert {one.reason for one in found} == {"completed"} and {one.agent for one in found} == {"replay"}
    assert all(one.reference_turns == 2 and one.seconds >= 0 for one in found)


def test_no_more_rollouts_than_asked_for_are_open_and_tasks_are_read_lazily():
    agent, read = Waiting(), []

    def lazily():
        for one in tasks(12):
            read.append(len(read) - done)
            yield one

    done = 0

    async def collect():
        nonlocal done
        async for _ in run_rollouts(lazily(), agent, concurrency=4):
            done += 1

    asyncio.run(collect())
    assert done == 12 and agent.most == 4 and max(read) <= 8


def test_a_group_shares_one_world_and_groups_do_not():
    made = []

    def world(of, seed):
        made.append((of.dialogue.id, seed))
        return World(of.dialogue, seed=seed)

    look = ScriptedAgent(
        lambda env: (
            Step(calls=[ToolCall("add_item", {"item_id": "latte-2323", "quantity": len(env.messages)})])
            if len(env.messages) == 2
            else Step(reply="ok")
        )
    )
    found = run(tasks(3), look, group=4, world=world)
    assert [id for id, _ in made] == ["coffee-0", "coffee-1", "coffee-2"] and len({seed for _, seed in made}) == 3
    answers = {}
    for one in found:
        answers.setdefault(one.task, set()).add(one.dialogue.turns[0].steps[0].responses[0].content)
    assert all(len(seen) == 1 for seen in answers.values())


def test_members_and_steps_get_seeds_of_their_own():
    seeds = []

    class Noting(ReplayAgent):
        async def act(self, environment, seed):
            seeds.append(seed)
            return await super().act(environment, seed)

    run(tasks(2), Noting(), group=2)
    assert len(seeds) == len(set(seeds)) == 4 * 7


def test_two_runs_with_one_seed_are_the_same_and_another_seed_is_another():
    def plain(found):
        return sorted(msgspec.json.encode(msgspec.structs.replace(one, seconds=0)) for one in found)

    first, second = (run(tasks(4), Waiting(), group=2, seed=5, concurrency=n) for n in (1, 7))
    assert plain(first) == plain(second) != plain(run(tasks(4), Waiting(), group=2, seed=6))


def test_what_is_done_is_left_out():
    found = run(tasks(3), group=2, done={"coffee-0##0", "coffee-0##1", "coffee-2##1"})
    assert sorted(one.key for one in found) == ["coffee-1##0", "coffee-1##1", "coffee-2##0"]


def test_tasks_that_share_an_id_are_told_apart():
    assert sorted(one.key for one in run([task(), task(), task()])) == ["coffee##0", "coffee#2#0", "coffee#3#0"]


@pytest.mark.parametrize("error", [ProviderError("503 overloaded", status=503), RuntimeError("bug in an agent")])
def test_a_provider_that_fails_costs_its_rollout_and_no_other(error):
    found = run(tasks(6), Flaky(error, lambda env: env.dialogue.id == "coffee-3" and env.turn == 1))
    failed = [one for one in found if not one.valid]
    assert [one.task for one in failed] == ["coffee-3"] and len(found) == 6
    assert failed[0].failure.owner == failed[0].reason == "provider" and str(error) in failed[0].failure.message
    assert len(failed[0].dialogue.turns) == 2 and failed[0].verdicts  # what was done until then is on record


def test_a_world_that_cannot_be_made_costs_its_group():
    def world(of, seed):
        if of.dialogue.id == "coffee-1":
            raise ValueError("a row that nobody foresaw")
        return World(of.dialogue, seed=seed)

    found = run(tasks(3), group=2, world=world)
    assert Counter((one.task, one.reason) for one in found) == {
        ("coffee-0", "completed"): 2,
        ("coffee-1", "data"): 2,
        ("coffee-2", "completed"): 2,
    }


def test_a_task_without_turns_is_the_datas_failure():
    (one,) = run([Task(Dialogue("empty"))])
    assert one.failure.owner == "data" and "no user message" in one.failure.message


class Unstartable:
    executable = True

    def session(self):
        raise OSError("no room")


class Mute:
    executable = False

    def session(self):
        return self

    async def respond(self, call, context):
        raise TimeoutError("gone")


@pytest.mark.parametrize("backend, says", [(Unstartable(), "no room"), (Mute(), "gone")])
def test_a_simulator_that_fails_is_not_held_against_the_agent(backend, says):
    ask = ScriptedAgent(lambda env: Step(calls=[ToolCall("find_items", {"query": "unheard of"})]))
    (one,) = run([task()], ask, world=lambda of, seed: World(of.dialogue, backend=backend))
    assert one.failure.owner == one.owner == "simulator" and says in one.failure.message


def test_a_session_that_fails_to_start_says_so():
    with pytest.raises(SimulatorError, match="failed to start: OSError: no room"):
        World(dialogue(), backend=Unstartable()).session()


def test_a_run_stops_where_every_request_is_refused_for_good():
    seen = []

    async def collect():
        refused = Flaky(ProviderError("m@h answered 401: bad key", status=401))
        async for one in run_rollouts(tasks(40), refused, concurrency=1):
            seen.append(one)

    with pytest.raises(ProviderError, match="bad key"):
        asyncio.run(collect())
    assert len(seen) == STOP_AFTER and not any(one.valid for one in seen)


def test_a_run_goes_on_where_some_requests_are_served():
    """One model in two is refused: rollouts keep failing, but never so many in a row."""
    refused = Flaky(ProviderError("no", status=404), lambda env: int(env.dialogue.id[7:]) % 2)
    assert Counter(one.valid for one in run(tasks(30), refused, concurrency=1)) == {True: 15, False: 15}


def test_limits_hold_in_every_rollout():
    found = run(tasks(2), limits=Limits(steps=2))
    assert {(one.reason, len(one.dialogue.turns[0].steps)) for one in found} == {("limit_steps", 2)}


def test_a_truncated_action_ends_its_rollout_and_tokens_are_counted():
    class Cut(ReplayAgent):
        async def act(self, environment, seed):
            step = (await super().act(environment, seed)).step
            return Action(step, tokens=10, prompt_tokens=100, truncated=len(environment.messages) > 4)

    (one,) = run([task()], Cut())
    assert (one.reason, one.generated_tokens, one.prompt_tokens) == ("limit_tokens", 30, 300)


def test_the_true_outcome_is_told_and_a_failure_to_tell_costs_only_the_outcome():
    def outcome(one):
        if one.task == "coffee-1":
            raise KeyError("state")
        return {"success": True}

    found = {one.task: one for one in run(tasks(2), outcome=outcome)}
    assert found["coffee-0"].outcome == {"success": True}
    assert (
        found["coffee-1"].valid
        and "success" not in found["coffee-1"].outcome
        and "KeyError" in found["coffee-1"].outcome["error"]
    )


def test_a_run_that_is_given_up_leaves_nothing_running():
    agent = Waiting()

    async def first():
        rollouts = run_rollouts(tasks(50), agent, concurrency=10)
        one = await anext(rollouts)
        await rollouts.aclose()
        return one, [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]

    one, left = asyncio.run(first())
    assert one.valid and left == []
