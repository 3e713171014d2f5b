"""Outcomes: the reference succeeds, and a run that ends elsewhere or tells less does not, whatever its route."""

from __future__ import annotations

import copy
import random

import msgspec
import pytest

from cm2.checklist import Task
from cm2.dialogue import Step, ToolCall, Turn
from cm2.errors import DataError
from cm2.judge.values import is_error
from cm2.rollout.environment import Environment
from cm2.rollout.trace import Rollout
from cm2.worlds import PROFILES, UNSEEN, MakeConfig, make, outcome_of, world_of

ALL = [(profile, name) for profile, domains in PROFILES.items() for name in domains]


def made(profile: str, name: str, count: int, seed: int = 0):
    split = "unseen" if name in UNSEEN else "train"
    return list(make(MakeConfig(count=count, seed=seed, split=split, profile=profile, domains=(name,))))


def played(dialogue, steps: list[list[Step]]) -> Rollout:
    """The rollout of an agent that takes these steps, turn by turn, in the row's own world."""
    environment = Environment(Task(dialogue), world_of(Task(dialogue), 0).session())
    for turn in steps:
        for step in turn:
            if not environment.done:
                environment.feed(step)
    return environment.record()


def reference_steps(dialogue) -> list[list[Step]]:
    return [[msgspec.structs.replace(step, responses=[]) for step in turn.steps] for turn in dialogue.turns]


def writes(dialogue) -> list[tuple[int, int]]:
    """Where the reference changed the world: (turn, step)."""
    desk = world_of(Task(dialogue)).backend.session()
    found = []
    for t, s, _, call, _ in dialogue.calls():
        before = msgspec.json.encode(desk.tables)
        desk.respond(call)
        if msgspec.json.encode(desk.tables) != before:
            found.append((t, s))
    return found


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_the_reference_played_again_gets_its_own_answers_and_succeeds(profile, name):
    for dialogue in made(profile, name, 120, seed=11):
        rollout = played(dialogue, reference_steps(dialogue))
        answers = [response.content for *_, response in rollout.dialogue.calls()]
        assert answers == [response.content for *_, response in dialogue.calls()]
        outcome = outcome_of(rollout)
        assert outcome["success"], (dialogue.id, outcome)
        assert rollout.reason == "completed"


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_an_agent_that_does_nothing_or_says_nothing_never_succeeds(profile, name):
    for dialogue in made(profile, name, 40):
        idle = played(dialogue, [[Step(reply="Okay, it is all done for you now.")] for _ in dialogue.turns])
        mute = [[*turn[:-1], Step(reply="Hm.")] for turn in reference_steps(dialogue)]
        assert not outcome_of(idle)["success"], dialogue.id
        assert not outcome_of(played(dialogue, mute))["success"], dialogue.id


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_leaving_out_any_write_fails(profile, name):
    checked = 0
    for dialogue in made(profile, name, 40):
        for t, s in writes(dialogue):
            steps = reference_steps(dialogue)
            del steps[t][s]
            outcome = outcome_of(played(dialogue, steps))
            assert not outcome["success"] and not outcome["state"], (dialogue.id, t, s)
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("profile", PROFILES)
def test_an_extra_look_up_changes_nothing_and_another_code_is_accepted(profile):
    for dialogue in made(profile, "hotel", 40):
        steps = reference_steps(dialogue)
        steps[0].insert(0, copy.deepcopy(steps[0][0]))
        assert outcome_of(played(dialogue, steps))["success"]


def test_booking_another_record_fails_in_state_and_in_what_was_told():
    wrong = 0
    for dialogue in made("short", "hotel", 80):
        steps = reference_steps(dialogue)
        rows = dialogue.turns[0].steps[0].responses[0].value
        if len(steps[0]) < 3 or is_error(dialogue.turns[0].steps[1].responses[0]):
            continue
        call = steps[0][1].calls[0]
        other = next(row["id"] for row in rows if row["id"] != call.arguments["hotel_id"])
        steps[0][1] = Step(calls=[ToolCall(call.name, {**call.arguments, "hotel_id": other})])
        outcome = outcome_of(played(dialogue, steps))
        assert not outcome["success"] and outcome["told"] < 1, outcome
        assert any("made" in line or "code" in line for line in outcome["missing"])
        wrong += 1
    assert wrong > 30


def test_booking_twice_fails():
    dialogue = next(d for d in made("short", "hotel", 20) if len(d.turns[0].steps) == 3)
    steps = reference_steps(dialogue)
    steps[0].insert(2, copy.deepcopy(steps[0][1]))
    outcome = outcome_of(played(dialogue, steps))
    assert not outcome["success"] and "made without need" in outcome["missing"][0]


def test_a_task_that_cannot_be_done_wants_no_write_and_a_clear_no():
    seen = 0
    for dialogue in made("short", "food", 150):
        if not dialogue.meta["goal"]["told"][0].get("refuses") or len(dialogue.turns[0].steps) != 2:
            continue
        seen += 1
        dishes = world_of(Task(dialogue)).backend.session()["dishes"]
        dish = next(id for id, record in sorted(dishes.items()) if not record["taken"])
        find = reference_steps(dialogue)[0][0]
        order = Step(calls=[ToolCall("order_dish", {"dish_id": dish, "count": 2})])
        assert outcome_of(played(dialogue, [[find, Step(reply="There is nothing like that, sorry.")]]))["success"]
        assert not outcome_of(played(dialogue, [[find, Step(reply="Here you go!")]]))["success"]
        assert not outcome_of(played(dialogue, [[find, order, Step(reply="Sorry, only this one.")]]))["success"]
    assert seen > 5


def test_a_run_that_stopped_early_lacks_what_its_missing_turns_had_to_tell():
    dialogue = next(d for d in make(MakeConfig(count=40, profile="short", two_turns=1.0)) if len(d.turns) == 2)
    rollout = played(dialogue, reference_steps(dialogue))
    assert outcome_of(rollout)["success"]
    rollout.dialogue.turns.pop()
    outcome = outcome_of(rollout)
    assert not outcome["success"] and any(line.startswith("turn 1") for line in outcome["missing"])


def test_sessions_of_one_world_do_not_see_each_other():
    dialogue = next(d for d in made("short", "hotel", 20) if len(d.turns[0].steps) == 3)
    world = world_of(Task(dialogue))
    first, second = world.session(), world.session()
    book = dialogue.turns[0].steps[1].calls[0]
    assert first.respond(book).content == second.respond(book).content
    assert first.respond(book).content != second.respond(ToolCall("search_hotels", {"city": "x"})).content


def test_unknown_tools_and_broken_calls_are_answered_and_do_not_disturb_the_outcome():
    dialogue = made("short", "hotel", 1)[0]
    steps = reference_steps(dialogue)
    broken = [
        ToolCall("book_motel", {"id": "H1"}),
        ToolCall("book_hotel", None, raw="{", error="no JSON"),
        ToolCall("book_hotel", {"hotel_id": 5}),
        ToolCall("book_hotel", {"hotel_id": "H00", "nights": 2}),
    ]
    steps[0].insert(0, Step(calls=broken))
    rollout = played(dialogue, steps)
    assert all(is_error(response) for response in rollout.dialogue.turns[0].steps[0].responses)
    assert outcome_of(rollout)["success"]


def test_a_row_of_another_source_or_version_is_refused_with_a_reason():
    dialogue = made("short", "hotel", 1)[0]
    other = copy.deepcopy(dialogue)
    other.meta["world"]["state"] = "0" * 12
    with pytest.raises(DataError, match="another world from its seed"):
        world_of(Task(other))
    other.meta = {}
    with pytest.raises(DataError, match=r"meta\.world"):
        outcome_of(Rollout(other.id, other))
    dialogue.meta["goal"] = {"told": 3}
    with pytest.raises(DataError, match="goal does not read"):
        outcome_of(Rollout(dialogue.id, dialogue))


def test_doing_it_without_a_reply_leaves_the_user_untold():
    dialogue = next(d for d in made("short", "hotel", 20) if len(d.turns[0].steps) == 3)
    rollout = Rollout(dialogue.id, copy.deepcopy(dialogue))
    rollout.dialogue.turns = [Turn(dialogue.turns[0].user, dialogue.turns[0].steps[:-1])]
    outcome = outcome_of(rollout)
    assert outcome["state"] and not outcome["success"] and outcome["told"] == 0


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_any_arguments_that_fit_a_schema_are_answered_and_never_break_the_world(profile, name):
    rng = random.Random(name)
    dialogue = made(profile, name, 1)[0]
    world = world_of(Task(dialogue))
    known = sorted({id for records in world.backend.tables().values() for id in records})

    def value(schema):
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if schema["type"] == "integer":
            return rng.choice((1, 2.0, 7, 1_000_000))
        return rng.choice((rng.choice(known), rng.choice(known), "", "É\u2019 \n", "2025-02-30", "x" * 300))

    answered = 0
    session = world.session()
    for _ in range(30):
        for tool in dialogue.tools:
            required = tool.parameters["required"]
            chosen = {k: v for k, v in tool.parameters["properties"].items() if k in required or rng.random() < 0.5}
            response = session.respond(ToolCall(tool.name, {key: value(schema) for key, schema in chosen.items()}))
            assert isinstance(response.value, (dict, list)) and response.origin == "simulated", response
            answered += not is_error(response)
    assert answered > 5


def test_a_whole_number_written_as_a_decimal_is_the_same_booking():
    dialogue = next(d for d in made("short", "hotel", 20) if len(writes(d)) == 1)
    steps = reference_steps(dialogue)
    call = steps[0][1].calls[0]
    steps[0][1] = Step(calls=[ToolCall(call.name, {**call.arguments, "nights": float(call.arguments["nights"])})])
    assert outcome_of(played(dialogue, steps))["success"]
