"""Compiling a model's proposal: what becomes a check, and every reason why one does not."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_builders import call, say, talk, tool

from cm2 import check as forms
from cm2.check import Called, CameFrom, Check, Equals, Expression, Fact, Matcher, Reply, Response
from cm2.label.compile import DEEPEST, MOST_LEAVES, MOST_TIMES, Compiler
from cm2.label.draft import Fault
from cm2.label.question import prompts

CALLS, THINKING, REPLY, ANSWER = (
    "assistant.tool_calls",
    "assistant.content.thinking",
    "assistant.content.user_visible_reply",
    "tool.content",
)
DIALOGUE = talk(
    (
        "Book a room in Cairo for my trip 77X.",
        [
            call("search", {"hotels": [{"id": "H62", "price": 90}], "class": "A320"}, city="Cairo"),
            call("book", {"code": "N5D"}, **{"hotel": "H62", "trip": "77X", "class": "A320", "guest-name": "Kim"}),
            say("I have booked a nice room for you in the middle of Cairo, the code is N5D."),
        ],
    ),
    tools=[
        tool("search", (), city="string"),
        tool("book", (), hotel="string", trip="string", **{"class": {"type": "string", "enum": ["A320", "B737"]}}),
        tool("cancel", (), code="string"),
    ],
)


def compiled(given, focus=CALLS):
    return Compiler(DIALOGUE).compile(given, 0, focus)


def reason(given, focus=CALLS) -> str:
    found = compiled(given, focus)
    assert isinstance(found, Fault) and found.message
    return found.reason


def called(tool="book", **arguments):
    return {"type": "called", "tool": tool, "arguments": arguments}


def equals(value):
    return {"op": "equals", "value": value}


GOOD = [
    (Called("book", {"hotel": CameFrom("search", "hotels[*].id"), "trip": Equals("77X")}, answered=True), CALLS),
    (Called("book", {"class": Equals("A320")}), CALLS),  # a choice of the schema, though a tool returned it too
    (Called("book", {"guest-name": Equals("Kim")}), CALLS),  # a name that is no path
    (Response("search", "hotels[0].price", forms.Number(90)), ANSWER),
    (Response("search", "[@][?id=='H62'].price | [0]"), ANSWER),
    (Called("search"), ANSWER),
    (forms.All([forms.NotCalled(["cancel"]), Reply(states=[Fact(["N5D"], "text", "book", "code")])]), REPLY),
    (Reply(pattern="(?i)\\b(?:i have|booked|a nice|room|for you|in the|middle of)\\b"), REPLY),
    (forms.Before(Called("search"), Called("book")), CALLS),
    (forms.All([Called("book"), forms.Not(Called("cancel"))]), CALLS),
]


@pytest.mark.parametrize(("check", "focus"), GOOD)
def test_a_sound_proposal_becomes_the_check_it_says(check, focus):
    value = msgspec.to_builtins(check)
    assert compiled(value, focus) == check
    assert compiled(msgspec.json.encode(value).decode(), focus) == check, "as text it is the same"


@pytest.mark.parametrize("nothing", [None, {}, "", "  ", "null"])
def test_no_proposal_is_no_check_and_no_fault(nothing):
    assert compiled(nothing) is None


DEEP: dict = {"type": "called", "tool": "book"}
for _ in range(DEEPEST):
    DEEP = {"type": "not", "check": DEEP}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{", "form"),
        (7, "form"),
        ([], "form"),
        ({"type": "rings"}, "form"),
        ({"type": "called"}, "form"),
        ({"type": "called", "tool": "book", "at_least": "two"}, "form"),
        ({"type": "called", "tool": "book", "args": {}}, "form"),  # a misspelt key would make it wider
        ({"type": "called", "tool": "book", "arguments": {"hotel": {"op": "equals", "value": 1, "folded": 1}}}, "form"),
        ({"type": "all", "checks": [{"type": "called", "tool": "book", "argument": {}}]}, "form"),
        ({"type": "reply", "states": [{"any_of": ["N5D"], "kinds": "text"}]}, "form"),
        (called(hotel="H62"), "form"),
        (DEEP, "bounds"),
        ("[" * 100_000, "form"),
        ({"type": "called", "tool": "book", "at_least": 10**9}, "bounds"),
        ({"type": "called", "tool": "book", "at_most": 10**9}, "bounds"),
        ({"type": "called", "tool": "book", "at_least": -1}, "bounds"),
        ({"type": "called", "tool": "book", "at_least": 3, "at_most": 1}, "bounds"),
        ({"type": "all", "checks": [called()] * (MOST_LEAVES + 1)}, "bounds"),
        ({"type": "not_called", "tools": ["book"] * (MOST_TIMES + 1)}, "bounds"),
        (called(hotel={"op": "number", "value": float("nan")}), "bounds"),
        (called(hotel={"op": "number", "value": 1, "tolerance": float("inf")}), "bounds"),
        (called(hotel={"op": "number", "value": 1, "tolerance": -1}), "bounds"),
        (called(hotel={"op": "pattern", "pattern": "("}), "bounds"),
        (called(hotel={"op": "pattern", "pattern": "x" * 9999}), "bounds"),
        (called(hotel={"op": "came_from", "tool": "search", "path": "hotels["}), "bounds"),
        (called(hotel={"op": "came_from", "tool": "search", "path": "[@,@]|[@,@]"}), "bounds"),
        (called(hotel={"op": "came_from", "tool": "search", "path": "{a:@,b:@}"}), "bounds"),
        (called(hotel={"op": "came_from", "tool": "search", "path": "a" * 999}), "bounds"),
        (called("fly"), "tool"),
        ({"type": "not_called", "tools": ["book", "fly"]}, "tool"),
        (called(hotel={"op": "came_from", "tool": "fly"}), "tool"),
        (called(hotel=equals("H62")), "hard_coded"),
        ({"type": "response", "tool": "book", "arguments": {"hotel": equals("H62")}}, "hard_coded"),
        (called(hotel={"op": "one_of", "values": ["X", "H62"]}), "hard_coded"),
        ({"type": "reply", "states": [{"any_of": ["N5D"]}]}, "focus"),
        ({"type": "response", "tool": "search", "path": "[@,@]"}, "bounds"),
    ],
)
def test_what_cannot_be_a_check_says_why(given, why):
    assert reason(given) == why


@pytest.mark.parametrize(
    ("given", "focus", "why"),
    [
        (called(), THINKING, "focus"),
        (called(), REPLY, "focus"),
        ({"type": "reply", "pattern": "booked a nice room for you in the middle"}, REPLY, "wording"),
        ({"type": "reply", "states": [{"any_of": ["a nice room for you"]}]}, REPLY, "wording"),
        ({"type": "reply", "pattern": "(?i)code|room for you in the middle"}, REPLY, "wording"),
        ({"type": "reply", "states": [{"any_of": ["x"], "tool": "fly"}]}, REPLY, "tool"),
        ({"type": "reply", "states": [{"any_of": ["N5D"]}]}, REPLY, "hard_coded"),
        ({"type": "reply", "states": [{"any_of": [90], "kind": "number"}]}, REPLY, "hard_coded"),
        ({"type": "reply", "states": [{"any_of": [n]} for n in range(MOST_TIMES + 1)]}, REPLY, "bounds"),
    ],
)
def test_what_a_check_looks_at_is_what_the_item_is_about(given, focus, why):
    assert reason(given, focus) == why


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["book", "search"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "op", "tool", "tools", "arguments", "checks", "check", "value", "path", "states", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
TYPED = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    st.sampled_from(["called", "not_called", "response", "reply", "before", "all", "any", "not"]),
    st.dictionaries(st.sampled_from(["tool", "tools", "arguments", "checks", "check", "match", "states"]), JSON),
)


@settings(max_examples=300)
@given(JSON | TYPED, st.sampled_from([CALLS, THINKING, REPLY, ANSWER]))
def test_whatever_is_proposed_is_a_check_a_fault_or_nothing(value, focus):
    found = compiled(value, focus)
    assert found is None or isinstance(found, (Fault, *get_args(Check)))


def test_an_expression_is_not_taken_from_a_model_wherever_it_stands():
    inside = {"type": "all", "checks": [{"type": "not", "check": {"type": "expression", "cel": "true"}}]}
    for value in ({"type": "expression", "cel": "true"}, inside):
        found = compiled(value, CALLS)
        assert isinstance(found, Fault) and "an expression is a policy's" in found.message


def test_the_prompt_names_every_form_and_every_field_of_a_check():
    text = prompts("turn")[0].text
    offered = [form for form in get_args(Check) if form is not Expression]
    for form in [*offered, *get_args(Matcher), Fact]:
        tag = form.__struct_config__.tag
        assert tag is None or f'"{tag}"' in text, form
        assert all(f'"{field}"' in text for field in form.__struct_fields__), form
