"""What a service never says: advice, other tools' names, Markdown, and words that show the stage."""

from __future__ import annotations

import pytest

from cm2.simulate.hints import Hints

TOOLS = ["get_order", "find_items", "addItem", "search"]


def found(answer, recorded=(), error=False) -> str:
    return Hints("get_order", TOOLS, recorded).found(answer, error)


@pytest.mark.parametrize(
    "answer, error",
    [
        ({"error": "order 7 not found, please check the id"}, True),
        ({"error": "not found. Try again with another id"}, True),
        ({"error": "You should look up the id first"}, True),
        ({"error": {"text": "make sure that the id is right"}}, True),
        ({"id": "7", "message": "Next, call find_items."}, False),
        ({"id": "7", "note": "use the search tool"}, False),
        ({"id": "7", "hint": "x"}, False),
        ({"rows": [{"id": "7", "suggestions": []}]}, False),
        ("Hint: the order is under your other name", False),
        ("**Order 7**\n- paid", False),
        ("```json\n{}\n```", False),
        ("# Order 7", False),
        ("As an AI language model I have no access", False),
        ("Sure, here is the order", False),
        ({"message": "The user asked for order 7"}, False),
        ({"message": "Simulated response"}, False),
        ({"message": "placeholder"}, False),
        ({"status": "see find_items"}, False),
        ({"title": "made by addItem"}, False),
    ],
)
def test_hints_are_refused(answer, error):
    assert found(answer, error=error)


@pytest.mark.parametrize(
    "answer, error",
    [
        ({"error": "order 7 not found"}, True),
        ({"error": "get_order: no such id"}, True),
        ({"id": "7", "film": "I'm Not There", "book": "You Should Have Left"}, False),
        ({"mails": [{"body": "Please call me. Try the new place!", "subject": "# 1 fan"}]}, False),
        ({"id": "7", "message": "Order updated."}, False),
        ({"search": "a search for items", "items": ["find items"]}, False),
        ("Order 7: two lines, paid.", False),
        ({"n": 1, "ok": True, "none": None}, False),
        ([], False),
    ],
)
def test_data_are_not(answer, error):
    assert found(answer, error=error) == ""


def test_what_the_recorded_service_does_itself_is_its_style():
    told = {"error": "not found, please check the id"}
    assert found(told, ['{"error": "bad date, please use ISO"}'], error=True) == ""
    assert found({"error": "not found, see **help**"}, ['{"error": "bad date, please use ISO"}'], error=True)
    assert found({"by": "find_items"}, ['{"by": "find_items"}']) == ""
    assert found({"hint": "none"}, ['{"hint": "blue"}']) == ""


def test_the_reason_quotes_what_is_wrong():
    assert "'find_items'" in found({"x": "see find_items"}) and "no names of tools" in found({"x": "see find_items"})
