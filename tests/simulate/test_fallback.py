"""Answers that nobody recorded: no more is made up than must be, and a wrong call does not learn the right answer."""

from __future__ import annotations

import json

import pytest

from cm2.dialogue import Dialogue, Tool, ToolCall, Turn
from cm2.judge.values import is_error
from cm2.simulate import World
from rollout.coffee_task import EMPTY, FULL, dialogue, made, schema

TEXT = {"type": "string"}


def world(*steps, user: str = "please", seed: int = 0, tools=()) -> World:
    names = dict.fromkeys(call.name for step in steps for call in step.calls)
    return World(Dialogue("d", [Turn(user, list(steps))], [*tools, *(Tool(name) for name in names)]), seed=seed)


def ask(session, name: str, **arguments):
    response = session.respond(ToolCall(name, arguments))
    assert response.origin == "simulated"
    try:
        return json.loads(response.content)
    except ValueError:
        return response.content


@pytest.mark.parametrize(
    "arguments",
    [{"query": "Coffee "}, {"query": "COFFEE!"}, {"query": "coffee", "limit": None}],
)
def test_a_call_that_differs_only_in_spelling_gets_the_recorded_answer(arguments):
    tool = Tool("find_items")
    recorded = made("find_items", {"query": "coffee"}, {"items": [{"item_id": "m-1234", "n": 3}]})
    session = World(Dialogue("d", [Turn("u", [recorded])], [tool])).session()
    assert ask(session, "find_items", **arguments) == {"items": [{"item_id": "m-1234", "n": 3}]}


def test_a_number_written_as_text_is_the_same_call():
    session = world(made("get_room", {"floor": 2}, {"room": "blue", "floor": 2})).session()
    assert ask(session, "get_room", floor="2") == {"room": "blue", "floor": 2}


def test_a_respelt_look_up_still_follows_the_writes():
    session = World(dialogue()).session()
    assert ask(session, "get_order", order_id=" 51313") == EMPTY
    session.respond(ToolCall("add_item", {"item_id": "mocha-7835", "quantity": 1}))
    assert ask(session, "get_order", order_id=" 51313") == FULL


def test_an_id_that_nobody_named_is_not_found():
    session = World(dialogue()).session()
    response = session.respond(ToolCall("get_order", {"order_id": "99999"}))
    assert is_error(response) and "order_id 99999 not found" in response.content
    response = session.respond(ToolCall("add_item", {"item_id": "made-up-1", "quantity": 1}))
    assert is_error(response) and session.writes == []  # and a failed write changes nothing


def test_an_id_that_a_person_or_a_tool_named_is_known():
    session = World(dialogue()).session()
    added = ask(session, "add_item", item_id="latte-2323", quantity=2)  # from the menu
    assert set(added) == {"order_id", "line_id"} and len(session.writes) == 1
    spoken = world(made("get_order", {"order_id": "A1"}, {"order_id": "A1", "sum": 5}), user="and what of B-2?")
    assert ask(spoken.session(), "get_order", order_id="b2")["order_id"] == "b2"


def test_an_id_inside_nested_arguments_is_looked_at_too():
    recorded = made("create_order", {"lines": [{"item_id": "a-1000"}]}, {"order_id": "5000"})
    session = world(recorded).session()
    assert is_error(session.respond(ToolCall("create_order", {"lines": [{"item_id": "zz-9"}]})))


def test_an_id_that_the_world_made_up_is_known_from_then_on():
    steps = (
        made("create_note", {"text": "a"}, {"note_id": "note-1234"}),
        made("get_note", {"note_id": "note-1234"}, {"note_id": "note-1234", "text": "a"}),
    )
    session = world(*steps).session()
    first = ask(session, "create_note", text="b")["note_id"]
    second = ask(session, "create_note", text="c")["note_id"]
    assert first == "note-1234" != second  # the recorded id is handed out once, then others are made up
    assert ask(session, "get_note", note_id=second)["note_id"] == second
    assert is_error(session.respond(ToolCall("get_note", {"note_id": "note-0000"})))


def test_a_search_gets_the_recorded_rows_that_fit():
    menu = {"items": [{"name": "Mocha", "milk": "whole"}, {"name": "Oat latte", "milk": "oat"}], "total": 2}
    session = world(made("find_items", {"query": "coffee"}, menu)).session()
    assert ask(session, "find_items", query="latte") == {"items": [menu["items"][1]], "total": 1}
    assert ask(session, "find_items", milk="whole") == {"items": [menu["items"][0]], "total": 1}
    assert ask(session, "find_items", query="beer") == {"items": [], "total": 0}


def test_a_write_keeps_the_shape_and_follows_the_call():
    recorded = made(
        "book_table", {"day": "Monday", "people": 2}, {"booking_id": "B-4821", "day": "Monday", "people": 2, "ok": True}
    )
    told = ask(world(recorded).session(), "book_table", day="Friday", people=5)
    assert told == {"booking_id": "B-4821", "day": "Friday", "people": 5, "ok": True}


def test_what_was_echoed_inside_a_sentence_follows_the_call():
    recorded = made("book_table", {"day": "Monday"}, {"text": "Booked for Monday. Monday it is."})
    assert ask(world(recorded).session(), "book_table", day="Friday") == {"text": "Booked for Friday. Friday it is."}


def test_a_look_up_whose_answer_does_not_repeat_the_argument_is_not_found():
    """Nothing shows how its answer depends on the argument, so the right call's answer is not given away."""
    session = world(made("get_price", {"item": "mocha"}, {"price": 4.5})).session()
    response = session.respond(ToolCall("get_price", {"item": "latte"}))
    assert is_error(response) and "4.5" not in response.content


def test_numbers_of_another_look_up_are_drawn():
    recorded = made("get_weather", {"city": "Oslo"}, {"city": "Oslo", "degrees": 21})
    drawn = {ask(world(recorded, seed=seed).session(), "get_weather", city="Rome")["degrees"] for seed in range(12)}
    assert len(drawn) > 4 and all(isinstance(value, int) for value in drawn)


def test_the_same_call_after_the_same_writes_gets_the_same_answer_in_every_session_and_run():
    recorded = made("get_weather", {"city": "Oslo"}, {"city": "Oslo", "degrees": 21.5})
    one = world(recorded, seed=3)
    answers = [ask(one.session(), "get_weather", city="Rome") for _ in range(3)]
    answers += [ask(world(recorded, seed=3).session(), "get_weather", city="Rome")]
    assert all(answer == answers[0] for answer in answers)
    assert ask(world(recorded, seed=4).session(), "get_weather", city="Rome") != answers[0]


def test_not_found_speaks_as_the_tool_does():
    plain = world(
        made("get_a", {"a_id": "1000"}, "Error: a not there"), made("get_a", {"a_id": "2000"}, {"a_id": "2000"})
    )
    assert ask(plain.session(), "get_a", a_id="3333").startswith("Error: ")
    nested = world(made("get_a", {"a_id": "1000"}, {"error": {"code": 404, "message": "no such a"}}))
    assert ask(nested.session(), "get_a", a_id="3333") == {"error": {"code": 404, "message": "a_id 3333 not found"}}
    empty = world(made("find_a", {"q": "x"}, {"rows": [], "total": 0}))
    assert ask(empty.session(), "find_a", q="y") == {"rows": [], "total": 0}
    rows = world(made("find_a", {"a_id": "1000"}, {"rows": [{"n": 1}], "total": 1}))
    assert ask(rows.session(), "find_a", a_id="9999") == {"rows": [], "total": 0}


def test_a_tool_that_was_never_called_finds_nothing():
    tool = Tool("get_menu", parameters=schema(["day"], day=TEXT))
    session = world(made("get_x", {}, {"x": 1}), tools=[tool]).session()
    response = session.respond(ToolCall("get_menu", {"day": "Monday"}))
    assert is_error(response) and response.origin == "simulated"


def test_an_argument_that_chooses_between_looking_and_doing_decides():
    kind = {"type": "string", "enum": ["Check", "Book"]}
    tool = Tool("ride", parameters=schema(["request"], request=kind, car={"type": "string"}))
    steps = (
        made("ride", {"request": "Check", "car": "van"}, {"car": "van", "price": 20}),
        made("ride", {"request": "Book", "car": "van"}, {"booking_id": "R-9000", "car": "van"}),
    )
    session = World(Dialogue("d", [Turn("u", list(steps))], [tool])).session()
    ask(session, "ride", request="Check", car="taxi")
    assert session.writes == []
    ask(session, "ride", request="Book", car="taxi")
    assert len(session.writes) == 1


@pytest.mark.parametrize(
    "arguments", [{"a": 10**30}, {"a": 1e300}, {"a": [[[[]]]]}, {"a": {"b": None}}, {"": ""}, {"a": "\u0000"}]
)
def test_any_json_is_answered(arguments):
    session = world(made("get_a", {"a": 1}, {"a": 1, "b": [1, 2.5, None, True, {"c": "x"}]})).session()
    assert session.respond(ToolCall("get_a", arguments)).origin == "simulated"
    assert "unknown tool" in session.respond(ToolCall("set_a", arguments)).content
