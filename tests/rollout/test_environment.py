"""The dialogue's state machine: turns, strictness, limits, failures and their owners."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import ConfigError, DataError
from cm2.judge import ChecksJudge
from cm2.rollout import Environment, Limits
from cm2.simulate import SimulatorError, World
from rollout.coffee_task import dialogue, task


def environment(of: Task | None = None, judge=None, **limits) -> Environment:
    of = task() if of is None else of
    judge = ChecksJudge() if judge is None else judge
    return Environment(of, World(of.dialogue).session(), judge, Limits(**limits))


def call(name: str, **arguments) -> Step:
    return Step(calls=[ToolCall(name, arguments)])


def malformed(raw: str = '{"query": ', name: str = "find_items") -> Step:
    return Step(calls=[ToolCall(name, None, "bad", raw, "the arguments are not JSON")])


FIND = call("find_items", query="coffee")
BUY = call("add_item", item_id="mocha-7835", quantity=1)
SAY = Step(thinking="done", reply="Added to 51313.")


def reference(env: Environment, turn: int) -> None:
    for step in env.task.dialogue.turns[turn].steps:
        env.feed(step)


def yes(env: Environment) -> set[tuple[int, str]]:
    return {(verdict.turn, verdict.item) for verdict in env.verdicts if verdict.met}


class CountingJudge(ChecksJudge):
    """Checks, and a count of the turns that were asked for."""

    def __init__(self):
        self.turns: list[int] = []

    def judge(self, dialogue, turn, checklist, since=0):
        self.turns.append(turn)
        return super().judge(dialogue, turn, checklist, since)


def test_the_agent_starts_with_the_system_prompt_and_the_first_user_message():
    env = environment()
    assert env.messages == [
        {"role": "system", "content": "You serve coffee."},
        {"role": "user", "content": "A mocha on order 51313 please."},
    ]
    assert not env.done and env.dialogue.turns == [Turn("A mocha on order 51313 please.")]


def test_a_greeting_stands_before_the_first_user_message():
    greeted = Dialogue("d", [Turn("hi", [Step(reply="hello")])], opening=[Step(reply="Welcome!")])
    env = environment(Task(greeted))
    assert [message["content"] for message in env.messages] == ["Welcome!", "hi"]


def test_a_call_is_answered_and_the_turn_goes_on():
    seen = environment().feed(FIND)
    (message,) = seen.new_messages
    assert (message["role"], message["name"]) == ("tool", "find_items") and "mocha-7835" in message["content"]
    assert not seen.done


def test_every_call_of_a_step_is_answered_in_order_with_its_id():
    env = environment()
    seen = env.feed(Step(calls=[ToolCall("find_items", {"query": "coffee"}), ToolCall("fly", {}, "mine")]))
    asked = env.messages[-3]["tool_calls"]
    assert [message["tool_call_id"] for message in seen.new_messages] == [one["id"] for one in asked]
    assert asked[1]["id"] == "mine" and env.messages[-2:] == seen.new_messages


def test_two_calls_never_share_an_id_whatever_the_agent_calls_them():
    for ids in (["x", "x"], [None, None], ["call_0_0_1", None], ["", "call_0_0_0"]):
        env = environment()
        seen = env.feed(Step(calls=[ToolCall("fly", {}, id) for id in ids]))
        assert len({message["tool_call_id"] for message in seen.new_messages}) == 2, ids


def test_the_next_user_message_follows_when_the_strict_items_hold():
    env = environment()
    reference(env, 0)
    assert env.messages[-1] == {"role": "user", "content": "When do you open on Monday?"}
    assert (env.turn, env.done) == (1, False)


def test_the_rollout_ends_where_a_strict_item_is_not_met():
    env = environment()
    seen = env.feed(Step(reply="I added one to 51313."))
    assert seen.new_messages == [] and (seen.done, seen.reason, seen.owner) == (True, "strict", "agent")
    assert yes(env) == {(0, "C2")}


def test_a_strict_item_waits_for_what_it_depends_on():
    env = environment()
    env.feed(BUY)
    assert env.feed(SAY).reason == "strict"  # bought without having looked: C1 depends on C0
    env = environment()
    env.feed(FIND)
    env.feed(BUY)
    assert not env.feed(SAY).done


def test_an_undecided_strict_item_does_not_end_the_rollout():
    of = task()
    of.checklists[0].items[1].check = None
    env = environment(of)
    assert not env.feed(SAY).done


def test_without_a_judge_no_turn_is_gated():
    env = Environment(task(), World(dialogue()).session())
    assert not env.feed(Step(reply="No.")).done
    assert env.feed(Step(reply="No.")).reason == "completed" and env.verdicts == []


def test_the_reference_itself_completes_and_earns_everything():
    env = environment()
    reference(env, 0)
    reference(env, 1)
    assert (env.reason, env.owner) == ("completed", "agent")
    assert yes(env) == {(0, "C0"), (0, "C1"), (0, "C2"), (1, "C0"), (1, "C1")}


def test_an_unmet_strict_item_of_the_last_turn_is_still_a_completed_rollout():
    of = task()
    of.checklists[1].items[0].required_for_next_turn = True
    env = environment(of)
    reference(env, 0)
    assert env.feed(Step(reply="No idea.")).reason == "completed"


def test_an_empty_reply_ends_the_rollout_where_the_reference_says_something():
    for reply in (None, "", "  \n"):
        env = environment()
        env.feed(FIND)
        env.feed(BUY)
        seen = env.feed(Step(reply=reply))
        assert (seen.reason, seen.owner) == ("empty_reply", "agent")
        assert (0, "C1") in yes(env)  # what was earned before is kept


def test_an_empty_reply_is_fine_where_the_reference_says_nothing_either():
    silent = Dialogue("d", [Turn("thanks", [Step(reply="")]), Turn("bye", [Step(reply="bye")])])
    env = environment(Task(silent))
    assert not env.feed(Step(reply="")).done


def test_a_malformed_call_becomes_an_error_that_the_agent_can_mend():
    env = environment()
    seen = env.feed(malformed())
    assert not seen.done and "malformed call" in seen.new_messages[0]["content"]
    assert env.messages[-2]["tool_calls"][0]["function"]["arguments"] == '{"query": '  # shown as it was written
    assert "mocha-7835" in env.feed(FIND).new_messages[0]["content"]
    env.feed(BUY)
    assert not env.feed(SAY).done


def test_a_call_of_an_unknown_tool_or_with_bad_arguments_is_the_agents_error_and_not_a_failure():
    env = environment()
    assert "unknown tool" in env.feed(call("fly")).new_messages[0]["content"]
    assert "missing argument 'query'" in env.feed(call("find_items")).new_messages[0]["content"]
    assert not env.done and env.failure is None
    assert [response.origin for step in env.dialogue.turns[0].steps for response in step.responses] == ["error"] * 2


def test_arguments_that_nest_without_end_are_malformed():
    deep: dict = {}
    for _ in range(500):
        deep = {"a": deep}
    env = environment()
    seen = env.feed(Step(calls=[ToolCall("find_items", deep)]))
    assert "nest deeper" in seen.new_messages[0]["content"] and not seen.done
    assert json.loads(env.messages[-2]["tool_calls"][0]["function"]["arguments"]) == deep


def test_the_agents_step_is_copied_and_its_own_responses_are_ignored():
    step = Step(calls=[ToolCall("find_items", {"query": "coffee"})], responses=[ToolResponse("forged")])
    env = environment()
    env.feed(step)
    (response,) = env.dialogue.turns[0].steps[0].responses
    assert response.content != "forged" and step.responses == [ToolResponse("forged")]


def test_the_reference_is_never_changed():
    of = task()
    before = msgspec.json.encode(of)
    env = environment(of)
    env.feed(malformed())
    reference(env, 0)
    reference(env, 1)
    assert msgspec.json.encode(of) == before


def test_thinking_stays_in_the_context():
    env = environment()
    env.feed(Step(thinking="hm", calls=FIND.calls))
    assert env.messages[2]["reasoning_content"] == "hm"


def test_too_many_steps_end_the_turn_which_is_judged():
    env = environment(steps=2)
    env.feed(FIND)
    seen = env.feed(BUY)
    assert (seen.done, seen.reason, seen.owner) == (True, "limit_steps", "limit")
    assert len(seen.new_messages) == 1 and yes(env) == {(0, "C0"), (0, "C1")}


def test_too_many_tokens_end_the_rollout_between_steps_and_between_turns():
    env = environment(tokens=10)
    assert not env.feed(FIND, tokens=9).done
    assert env.feed(BUY, tokens=1).reason == "limit_tokens"
    env = environment(tokens=10)
    env.feed(FIND, tokens=3)
    env.feed(BUY, tokens=3)
    assert env.feed(SAY, tokens=4).reason == "limit_tokens"
    assert env.tokens_used == 10 and len(env.dialogue.turns) == 1


def test_the_limit_of_turns_ends_before_the_next_user_message():
    env = environment(turns=1)
    reference(env, 0)
    assert (env.reason, env.owner, len(env.dialogue.turns)) == ("limit_turns", "limit", 1)
    assert env.record().reference_turns == 2  # L stays that of the reference


def test_calls_beyond_the_limit_are_not_executed():
    env = environment(calls=2)
    seen = env.feed(Step(calls=[ToolCall("find_items", {"query": "coffee"})] * 2 + [BUY.calls[0]] * 3))
    assert ["too many calls" in message["content"] for message in seen.new_messages] == [False] * 2 + [True] * 3
    assert env.session.writes == [] and not seen.done


def test_a_truncated_step_is_on_record_but_its_calls_are_not_executed():
    env = environment()
    env.feed(FIND)
    seen = env.feed(BUY, tokens=5, truncated=True)
    assert (seen.done, seen.reason, seen.owner, seen.new_messages) == (True, "limit_tokens", "limit", [])
    step = env.dialogue.turns[0].steps[-1]
    assert step.calls[0].name == "add_item" and step.responses == [] and env.session.writes == []
    assert {item for _, item in yes(env)} >= {"C0"} and env.tokens_used == 5


def test_a_truncated_reply_is_judged_too():
    env = environment()
    env.feed(Step(reply="I added it to 51313 and"), truncated=True)
    assert env.reason == "limit_tokens" and yes(env) == {(0, "C2")}


@pytest.mark.parametrize(
    "end", ["strict", "completed", "limit_steps", "limit_turns", "stop", "truncated", "empty_reply"]
)
def test_a_turn_is_judged_once_however_it_ends(end):
    judge = CountingJudge()
    limits = {"limit_steps": {"steps": 1}, "limit_turns": {"turns": 1}}.get(end, {})
    env = environment(judge=judge, **limits)
    if end == "strict":
        env.feed(SAY)
    elif end in ("limit_turns", "completed"):
        reference(env, 0)
        if end == "completed":
            reference(env, 1)
    elif end == "truncated":
        env.feed(FIND, truncated=True)
    else:
        env.feed(Step(reply="") if end == "empty_reply" else FIND)
        if end == "stop":
            env.stop("limit_tokens", "limit")
    env.stop("again", "limit")
    assert env.reason == {"stop": "limit_tokens", "truncated": "limit_tokens"}.get(end, end)
    assert judge.turns == ([0, 1] if end == "completed" else [0])


def test_stopping_from_outside_judges_what_was_done():
    env = environment()
    env.feed(FIND)
    seen = env.stop("limit_tokens", "limit")
    assert (seen.done, seen.reason, seen.owner) == (True, "limit_tokens", "limit") and yes(env) == {(0, "C0")}


def test_several_checklists_of_a_turn_are_all_judged_and_all_gate():
    of = task()
    other = msgspec.structs.replace(of.checklists[0], variant=1, items=[of.checklists[0].items[0]])
    other.items[0] = msgspec.structs.replace(other.items[0], required_for_next_turn=True)
    of.checklists.append(other)
    env = environment(of)
    assert env.feed(SAY).reason == "strict"
    assert {verdict.variant for verdict in env.verdicts} == {0, 1}


class Broken:
    """A session, or a judge, that fails."""

    def __init__(self, error: Exception):
        self.error = error

    def respond(self, call):
        raise self.error

    async def respond_async(self, call):
        raise self.error

    def judge(self, *_):
        raise self.error


@pytest.mark.parametrize("error", [SimulatorError("no answer"), KeyError("boom")])
def test_a_world_that_fails_is_the_simulators_failure_and_not_the_agents(error):
    for feed in (Environment.feed, lambda env, step: asyncio.run(env.feed_async(step))):
        env = Environment(task(), Broken(error), ChecksJudge())
        seen = feed(env, FIND)
        assert (seen.done, seen.reason, seen.owner) == (True, "simulator", "simulator")
        assert env.failure.owner == "simulator" and str(error) in env.failure.message
        assert not env.record().valid and env.verdicts == []


def test_a_judge_that_fails_is_the_judges_failure_and_never_a_no():
    for act in (lambda env: env.feed(SAY), lambda env: env.stop("limit_tokens", "limit")):
        env = environment(judge=Broken(TimeoutError("slow judge")))
        act(env)
        assert (env.done, env.reason, env.owner) == (True, "judge", "judge")
        assert env.failure.message == "turn 0: TimeoutError: slow judge" and env.verdicts == []


def test_the_first_failure_is_the_one_on_record():
    env = environment()
    env.fail("provider", "503", fatal=False)
    env.fail("judge", "late")
    assert (env.failure.owner, env.failure.message, env.owner) == ("provider", "503", "provider")


def test_a_step_after_the_end_is_a_programming_error():
    env = environment()
    env.feed(Step(reply="no"))
    with pytest.raises(RuntimeError, match="has ended"):
        env.feed(FIND)


def test_a_reference_without_a_user_message_is_refused():
    with pytest.raises(DataError, match="no user message"):
        environment(Task(Dialogue("empty")))


@pytest.mark.parametrize("name", ["turns", "steps", "tokens", "calls"])
def test_a_limit_of_zero_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0})


class Slow:
    """A backend that must be awaited."""

    executable = False

    def session(self):
        return self

    async def respond(self, call, context):
        await asyncio.sleep(0)
        return '{"slow": true}'


def test_an_asynchronous_world_is_awaited():
    async def run():
        env = Environment(task(), World(dialogue(), backend=Slow()).session(), ChecksJudge())
        first = await env.feed_async(call("find_items", query="tea"))
        for step in env.task.dialogue.turns[0].steps:
            await env.feed_async(step)
        return first, env

    first, env = asyncio.run(run())
    assert first.new_messages[0]["content"] == '{"slow": true}' and env.turn == 1


def test_feed_and_feed_async_do_the_same():
    async def awaited(env, steps):
        return [await env.feed_async(step) for step in steps]

    steps = [FIND, malformed(), BUY, SAY, call("get_opening_hours", day="Sunday"), SAY]
    one, other = environment(), environment()
    assert [one.feed(step) for step in steps] == asyncio.run(awaited(other, steps))
    assert msgspec.json.encode(one.record()) == msgspec.json.encode(other.record())


def test_the_record_holds_what_happened():
    env = environment()
    env.feed(FIND, tokens=4)
    env.stop("limit_tokens", "limit")
    record = env.record(group="g", member=2, seed=9)
    assert (record.task, record.group, record.member, record.seed) == ("coffee", "g", 2, 9)
    assert (record.reason, record.owner, record.generated_tokens) == ("limit_tokens", "limit", 4)
    assert record.checklists == env.task.checklists and record.dialogue is env.dialogue and record.valid


STEPS = [
    FIND,
    BUY,
    malformed(),
    call("fly"),
    call("get_order", order_id="51313"),
    call("get_opening_hours", day="Monday"),
    Step(reply=""),
    SAY,
    Step(reply="At 8."),
    Step(calls=[FIND.calls[0], BUY.calls[0]]),
]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 3), st.booleans()), max_size=14))
def test_whatever_an_agent_does_the_record_is_consistent(script):
    """Random agents: every call answered, every reached turn judged once, an end with an owner."""
    judge = CountingJudge()
    env = environment(judge=judge, steps=5, tokens=20)
    for index, tokens, cut in script:
        if env.done:
            break
        env.feed(STEPS[index], tokens=tokens, truncated=cut and tokens == 0)
    env.stop("limit_tokens", "limit")
    assert env.failure is None and env.owner in ("agent", "limit") and env.reason
    assert judge.turns == list(range(len(env.dialogue.turns)))
    roles = [message["role"] for message in env.messages]
    assert roles.count("user") == len(env.dialogue.turns)
    steps = [step for turn in env.dialogue.turns for step in turn.steps]
    assert all(len(step.responses) == len(step.calls) for step in steps[:-1])
    judged = {(verdict.turn, verdict.step) for verdict in env.verdicts}
    assert judged == {(t, s) for t, turn in enumerate(env.dialogue.turns) for s in range(len(turn.steps))}
