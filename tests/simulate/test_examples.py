"""What recorded answers show about a tool: listings, empty answers, echoed arguments, rows that fit."""

from __future__ import annotations

import pytest

from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.simulate.examples import Example, examples_of, filtered, is_empty, is_listing
from rollout.coffee_task import dialogue, made

MOCHA, LATTE, TEA = (
    {"name": name, "milk": milk, "price": price}
    for name, milk, price in (("Mocha", "whole", 4), ("Oat latte", "oat", 5), ("Mint tea", None, 3))
)


@pytest.mark.parametrize(
    "value", [[], None, {"items": []}, {"item": None, "total": 0}, {"page": {"rows": []}, "ok": True}]
)
def test_nothing_was_found(value):
    assert is_empty(value)


@pytest.mark.parametrize(
    "value", [{}, "", "nothing", [{}], {"items": [1]}, {"total": 3}, {"ok": True}, {"note": "none", "items": []}, 0]
)
def test_something_was_said(value):
    assert not is_empty(value)


@pytest.mark.parametrize(
    "value", [[], [MOCHA], {"items": [MOCHA]}, {"items": [], "total": 0, "more": False, "next": None}]
)
def test_a_listing_is_rows_of_objects(value):
    assert is_listing(value)


@pytest.mark.parametrize("value", [MOCHA, {}, "x", 3, [1, 2], {"items": ["a"]}, {"items": [MOCHA], "store": "Central"}])
def test_other_answers_are_no_listing(value):
    assert not is_listing(value)


def rows(**arguments) -> list[str]:
    return [row["name"] for row in filtered([MOCHA, LATTE, TEA], [], arguments)]


def test_rows_must_agree_with_the_arguments_that_name_a_field():
    assert rows(milk="oat") == ["Oat latte"] and rows(price=3) == ["Mint tea"] and rows(milk="goat") == []
    assert rows(milk=["oat", "whole"]) == ["Mocha", "Oat latte"]
    assert rows(name="latte") == ["Oat latte"]  # words of the field


def test_of_a_free_text_one_word_must_stand_in_the_row():
    assert rows(query="a hot mocha") == ["Mocha"] and rows(query="teas") == ["Mint tea"] and rows(query="beer") == []
    assert rows(q="mocha or tea") == ["Mocha", "Mint tea"] and rows(query="") == rows()


def test_other_arguments_leave_the_rows_as_they_are():
    assert rows(limit=1) == rows(sort="price") == rows(milk=None) == ["Mocha", "Oat latte", "Mint tea"]


def test_rows_of_all_listings_are_looked_at_and_counts_follow():
    one, other = {"items": [MOCHA], "total": 1, "more": False}, {"items": [LATTE, MOCHA], "total": 2, "more": True}
    assert filtered(one, [other], {}) == {"items": [MOCHA, LATTE], "total": 2, "more": False}
    assert filtered(one, [other], {"milk": "oat"}) == {"items": [LATTE], "total": 1, "more": False}
    assert filtered(one, [other], {"milk": "soy"}) == {"items": [], "total": 0, "more": False}
    assert one["items"] == [MOCHA]  # the recording is untouched


def example(arguments: dict, value) -> Example:
    return Example("f", arguments, value, "", False)


def test_an_argument_is_echoed_where_the_answer_repeats_it():
    shown = example({"day": "Monday", "n": 2, "x": "", "tags": ["a"]}, {"note": "Open on monday.", "count": 2})
    assert shown.echoes("day") and shown.echoes("n")
    assert not shown.echoes("x") and not shown.echoes("tags") and not shown.echoes("absent")


def test_only_well_formed_answered_calls_are_examples():
    steps = [
        made("f", {"a": 1}, {"ok": 1}),
        Step(calls=[ToolCall("f", None, raw="{", error="not JSON")], responses=[ToolResponse("Error: bad")]),
        Step(calls=[ToolCall("f", {"a": 2})]),
        made("f", {"a": 3}, "Error: no such a"),
    ]
    found = examples_of(Dialogue("d", [Turn("u", steps)]))["f"]
    assert [(one.arguments["a"], one.error) for one in found] == [(1, False), (3, True)]
    assert set(examples_of(dialogue())) == {"find_items", "get_order", "add_item", "get_opening_hours"}
