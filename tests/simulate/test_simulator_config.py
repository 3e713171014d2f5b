"""Which simulator makes which world."""

from __future__ import annotations

import json

import pytest

from cm2.checklist import Task
from cm2.dialogue import ToolCall
from cm2.errors import ConfigError
from cm2.judge.values import is_error
from cm2.simulate import LLMBackend, SimulatorConfig, simulated
from rollout.coffee_task import task
from simulate.askers import Door, hashed


def answer(config: SimulatorConfig, name: str, arguments: dict, seed: int = 0):
    return simulated(config)(task(), seed).session().respond(ToolCall(name, arguments))


@pytest.mark.parametrize("kind", ["auto", "replay", "fallback", "schema"])
def test_recorded_calls_are_replayed_by_all(kind):
    assert answer(SimulatorConfig(kind=kind), "find_items", {"query": "coffee"}).origin == "replayed"


def test_replay_knows_nothing_else():
    response = answer(SimulatorConfig(kind="replay"), "find_items", {"query": "Coffee"})
    assert response.origin == "simulated" and json.loads(response.content) == {"items": []}
    response = answer(SimulatorConfig(kind="replay"), "add_item", {"item_id": "latte-2323", "quantity": 1})
    assert is_error(response)


def test_the_fallback_knows_near_calls():
    response = answer(SimulatorConfig(kind="fallback"), "find_items", {"query": "Coffee"})
    assert len(json.loads(response.content)["items"]) == 2


def test_a_model_is_asked_anew_for_every_group_only_when_told_to():
    for per_group, samples in ((False, {0}), (True, {3, 8})):
        door = Door(hashed)
        make = simulated(SimulatorConfig(kind="llm", per_group=per_group), door)
        for seed in (3, 8):
            world = make(task(), seed)
            assert isinstance(world.backend, LLMBackend)
            world.session().respond(ToolCall("find_items", {"query": "tea"}))
        assert {request.sample for request in door.requests} == samples


@pytest.mark.parametrize("wrong", [{"kind": "magic"}, {"replay": "never"}, {"on_failure": "ignore"}])
def test_what_is_unknown_is_named_with_what_is_known(wrong):
    with pytest.raises(ConfigError, match="use one of"):
        SimulatorConfig(**wrong)


def test_a_model_without_an_endpoint_is_wrong_use():
    with pytest.raises(ConfigError, match="no model to ask"):
        simulated(SimulatorConfig(kind="llm"))


def test_the_settings_reach_the_world():
    world = simulated(SimulatorConfig(kind="fallback", replay="same_state", on_failure="error"))(
        Task(task().dialogue), 0
    )
    assert (world.replay, world.on_failure) == ("same_state", "error")
