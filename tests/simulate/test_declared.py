"""Tools that nobody recorded: answered by what they declare, else with an acknowledgement, else nothing is found."""

from __future__ import annotations

import json

import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Tool, ToolCall, Turn
from cm2.judge.values import is_error
from cm2.simulate import SimulatorConfig, World, simulated
from cm2.simulate.declared import result_schema
from rollout.coffee_task import dialogue, made

RESULT = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "lines": {"type": "integer", "minimum": 1}},
    "required": ["order_id", "lines"],
}


def world(*tools: Tool, steps=(), seed=0) -> World:
    of = Dialogue("d", [Turn("u", list(steps))], list(tools))
    return simulated(SimulatorConfig(kind="schema"))(Task(of), seed)


def respond(of: World, tool: str, /, **arguments):
    response = of.session().respond(ToolCall(tool, arguments))
    assert response.origin == "simulated"
    return json.loads(response.content)


@pytest.mark.parametrize(
    "wire",
    [
        {"outputSchema": RESULT},
        {"type": "function", "function": {"name": "get_order", "returns": RESULT}},
        {"type": "function", "function": {"name": "get_order"}, "output_schema": RESULT},
    ],
)
def test_a_declared_result_is_answered_and_repeats_the_id_that_was_asked_for(wire):
    tool = Tool("get_order", wire=wire)
    assert result_schema(tool) == RESULT
    answer = respond(world(tool), "get_order", order_id="A7")
    assert answer["order_id"] == "A7" and answer["lines"] >= 1
    assert answer == respond(world(tool), "get_order", order_id="A7")  # the same call, the same answer


def test_a_result_that_points_elsewhere_or_is_no_schema_is_not_used():
    for wire in ({"returns": {"$ref": "#/$defs/x"}}, {"returns": "an order"}, {"returns": {}}, {"result": [1]}, None):
        assert result_schema(Tool("get_order", wire=wire)) is None


def test_a_write_is_acknowledged_with_its_arguments_and_a_new_id():
    answer = respond(world(Tool("create_order")), "create_order", name="Ann", lines=[1])
    assert answer["success"] is True and answer["name"] == "Ann" and "lines" not in answer and answer["id"]
    assert respond(world(Tool("create_order")), "create_order", id="7", n=1) == {"success": True, "id": "7", "n": 1}


def test_a_look_up_finds_nothing():
    response = world(Tool("get_order")).session().respond(ToolCall("get_order", {"order_id": "A7"}))
    assert is_error(response) and response.origin == "simulated"


def test_a_tool_that_was_only_ever_refused_is_as_if_nobody_had_recorded_it():
    refused = made("create_order", {"n": 1}, {"error": "no"})
    assert respond(world(Tool("create_order"), steps=[refused]), "create_order", n=2)["success"] is True


def test_a_recorded_tool_answers_as_the_fallback_does():
    of = dialogue()
    plain, declared = World(of).session(), simulated(SimulatorConfig(kind="schema"))(Task(of), 0).session()
    for call in (ToolCall("find_items", {"query": "tea"}), ToolCall("get_order", {"order_id": "1"})):
        assert plain.respond(call) == declared.respond(call)
