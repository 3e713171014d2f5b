"""Thousands of tools from the field: every one can be called, and a dialogue among them starts at once."""

from __future__ import annotations

import gzip
import json
import random
import time

import jsonschema_rs
import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Tool, ToolCall, Turn
from cm2.rollout import Environment
from cm2.simulate import SimulatorConfig, simulated
from cm2.simulate.instance import instance
from cm2.simulate.schema import ArgumentSchema
from rollout.coffee_task import made
from simulate.askers import Door


@pytest.fixture(scope="module")
def pool(shared_data):
    tools: dict[str, Tool] = {}
    with gzip.open(shared_data / "mcp_tool_pool.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            function = row["tool"]["function"]
            name = function["name"]
            while name in tools:  # servers share names
                name += "_"
            tools[name] = Tool(name, function["description"] or "", function["parameters"])
    assert len(tools) > 5000
    return list(tools.values())


@pytest.fixture(scope="module")
def calls(pool):
    return [
        ToolCall(tool.name, instance(tool.parameters, random.Random(number)), f"c{number}")
        for number, tool in enumerate(pool)
    ]


def among(tools: list[Tool]) -> Task:
    own = Tool("get_order", "Show the order", {"type": "object", "properties": {"order_id": {"type": "string"}}})
    steps = [made("get_order", {"order_id": "A17"}, {"order_id": "A17", "lines": 2})]
    return Task(Dialogue("d", [Turn("Where is my order A17?", steps)], [own, *tools]))


def test_arguments_are_drawn_for_every_tool_and_fit(pool, calls):
    broken = 0
    for tool, call in zip(pool, calls, strict=True):
        assert isinstance(call.arguments, dict)
        broken += ArgumentSchema(tool).broken
        assert jsonschema_rs.is_valid(tool.parameters, call.arguments), tool.name
    assert broken == 0


@pytest.mark.parametrize("kind", ["replay", "fallback", "schema"])
def test_every_tool_can_be_called(pool, calls, kind):
    session = simulated(SimulatorConfig(kind=kind))(among(pool), 0).session()
    responses = [session.respond(call) for call in calls]
    assert {response.origin for response in responses} == {"simulated"} and all(one.content for one in responses)
    assert session.respond(ToolCall("get_order", {"order_id": "A17"})).origin == "replayed"


def test_every_tool_can_be_answered_by_a_model_that_sees_only_that_tool(pool, calls):
    door = Door(lambda request, attempt: {"answer": {"ok": True}})
    world = simulated(SimulatorConfig(kind="llm"), door)(among(pool), 0)
    few = calls[::25]
    for call in few:
        assert world.session().respond(call).content == '{"ok":true}'
    sizes = sorted(len(request.messages[-1]["content"]) for request in door.requests)
    assert len(door.requests) == len(few) and sizes[len(sizes) // 2] < 4000


def test_a_dialogue_among_them_starts_at_once_and_compiles_nothing(pool):
    task = among(pool)
    make = simulated(SimulatorConfig(kind="llm"), Door(lambda request, attempt: {}))
    started = time.process_time()
    for _ in range(20):
        world = make(task, 0)
        Environment(task, world.session())
        assert world._schemas == {}
    assert (time.process_time() - started) / 20 < 0.1
