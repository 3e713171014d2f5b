"""Agents: what an endpoint's message says, and baselines that need no model."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.dialogue import Step, ToolCall
from cm2.judge import ChecksJudge
from cm2.llm import ChatClient, Endpoint
from cm2.rollout import Environment
from cm2.rollout.agents import EndpointAgent, ReplayAgent, ScriptedAgent, step_of
from cm2.simulate import World
from rollout.coffee_task import dialogue, task
from servers.openai_server import OpenAIServer, calls, says


def environment() -> Environment:
    return Environment(task(), World(dialogue()).session(), ChecksJudge())


def function(name="f", arguments="{}", id="c") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def message(**fields) -> dict:
    return {"role": "assistant"} | fields


def test_a_plain_reply_is_a_reply():
    assert step_of(message(content="hi")) == Step(reply="hi")


def test_null_content_beside_calls_is_no_reply():
    assert step_of(message(content=None, tool_calls=[function()])) == Step(calls=[ToolCall("f", {}, "c")])
    assert step_of(message(content="", tool_calls=[function()])).reply is None
    assert step_of(message(content="Wait.", tool_calls=[function()])).reply == "Wait."


@pytest.mark.parametrize("fields", [{}, {"content": None}, {"content": None, "tool_calls": None}, {"tool_calls": []}])
def test_a_message_that_says_nothing_is_an_empty_step(fields):
    step = step_of(message(**fields))
    assert not step.reply and step.calls == []


def test_content_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}, "c"]
    assert step_of(message(content=parts)).reply == "a\nb"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_comes_from_its_own_field(field):
    assert step_of(message(content="<think>quoted</think>hi", **{field: "hm"})) == Step("hm", "<think>quoted</think>hi")


@pytest.mark.parametrize(
    "content, step",
    [
        ("<think>hm</think>\n\nhi", Step("hm", "hi")),
        ("\n<think>\nhm\n</think>hi", Step("hm", "hi")),
        ("hm</think>hi", Step("hm", "hi")),
        ("<think>never closed", Step("never closed", "")),
        ("say <think> aloud", Step(None, "say <think> aloud")),
    ],
)
def test_thinking_is_found_inside_the_content(content, step):
    assert step_of(message(content=content)) == step


def test_a_refusal_is_a_reply():
    assert step_of(message(content=None, refusal="I cannot.")).reply == "I cannot."


def test_the_old_function_call_is_a_call():
    old = message(content=None, function_call={"name": "f", "arguments": '{"a": 1}'})
    assert step_of(old).calls == [ToolCall("f", {"a": 1})]


@pytest.mark.parametrize("arguments, value", [('{"a": 1}', {"a": 1}), ("", {}), (None, {}), ({"a": 1}, {"a": 1})])
def test_arguments_are_read_in_every_form_that_servers_use(arguments, value):
    assert step_of(message(tool_calls=[function(arguments=arguments)])).calls == [ToolCall("f", value, "c")]


@pytest.mark.parametrize(
    "made, name, raw, error",
    [
        (function(arguments='{"a": '), "f", '{"a": ', "not JSON"),
        (function(arguments="[1]"), "f", "[1]", "not a JSON object"),
        (function(arguments=[1]), "f", "[1]", "not a JSON object"),
        (function(arguments="[" * 9999), "f", "[" * 9999, "not JSON"),
        (function(name=None), "", None, "names no function"),
        ({"id": "c", "type": "function"}, "", None, "names no function"),
        ("call f please", "", '"call f please"', "names no function"),
    ],
)
def test_a_malformed_call_stays_a_call_with_its_text(made, name, raw, error):
    (call,) = step_of(message(tool_calls=[made])).calls
    assert (call.name, call.valid) == (name, False) and error in call.error
    assert call.raw is not None and raw in (None, call.raw)


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
json_values = st.recursive(leaves, lambda value: st.lists(value, max_size=3), max_leaves=4)
functions = st.fixed_dictionaries({}, optional={"name": json_values, "arguments": json_values})
odd = json_values | st.fixed_dictionaries({}, optional={"id": json_values, "function": functions})


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={"content": json_values, "tool_calls": json_values | st.lists(odd, max_size=3), "function_call": odd}
        | dict.fromkeys(("reasoning_content", "reasoning", "refusal"), json_values),
    )
)
def test_whatever_an_endpoint_says_the_environment_can_take_it(wild):
    step = step_of(wild)
    assert all(isinstance(text, str | None) for text in (step.thinking, step.reply))
    made = wild.get("tool_calls")
    if isinstance(made, list) and made:
        assert len(step.calls) == len(made)
    env = environment()
    env.feed(step)
    assert env.failure is None


def test_the_replay_agent_earns_everything():
    async def run():
        env = environment()
        while not env.done:
            action = await ReplayAgent().act(env, 0)
            env.feed(action.step)
        return env

    env = asyncio.run(run())
    assert env.reason == "completed"
    assert {(v.turn, v.item) for v in env.verdicts if v.met} == {(0, "C0"), (0, "C1"), (0, "C2"), (1, "C0"), (1, "C1")}


def test_the_replay_agent_says_nothing_where_the_reference_stopped():
    env = environment()
    env.task.dialogue.turns[0].steps[:] = env.task.dialogue.turns[0].steps[:1]
    first = asyncio.run(ReplayAgent().act(env, 0))
    env.feed(first.step)
    second = asyncio.run(ReplayAgent().act(env, 1))
    assert first.step.calls and second.step == Step(reply="")


def test_a_scripted_agent_does_what_its_function_says():
    agent = ScriptedAgent(lambda env: Step(reply=env.messages[-1]["content"]), "echo")
    assert (
        asyncio.run(agent.act(environment(), 0)).step.reply == "A mocha on order 51313 please." and agent.name == "echo"
    )


def act(script, seed=3, **settings):
    async def run(url):
        async with ChatClient(Endpoint(url, "m", backoff=0.001)) as client:
            return await EndpointAgent(client, **settings).act(environment(), seed)

    with OpenAIServer(script) as server:
        return asyncio.run(run(server.url)), server


def test_an_endpoint_is_shown_the_conversation_and_the_tools():
    action, server = act([calls(("find_items", {"query": "tea"}))])
    (request,) = server.requests
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert [tool["function"]["name"] for tool in request["tools"]] == [tool.name for tool in dialogue().tools]
    assert request["tools"][0]["function"]["parameters"]["required"] == ["query"] and request["seed"] == 3
    assert action.step.calls == [ToolCall("find_items", {"query": "tea"}, "call_0")]
    assert (action.tokens, action.prompt_tokens, action.truncated) == (5, 7, False)


def test_an_action_that_hit_the_token_limit_is_truncated():
    assert act([says("I was just going to", finish="length")])[0].truncated


def test_an_endpoint_that_knows_no_seed_is_sent_none():
    assert "seed" not in act([says("hi")], seeded=False)[1].requests[0]
