"""Lint: good items pass every test, and each kind of bad item fails the test that is meant for it."""

from __future__ import annotations

import json
from typing import Any as Json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.check import (
    All,
    Any,
    Anything,
    Before,
    Called,
    CameFrom,
    Contains,
    Equals,
    Fact,
    Not,
    NotCalled,
    Number,
    OneOf,
    Pattern,
    Reply,
    Response,
)
from cm2.checklist import Checklist, Evidence, Item, Task
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.judge import decide
from cm2.label.counterexample import counterexamples
from cm2.label.lint import lint_task
from cm2.label.lint_report import STOCK
from cm2.label.scramble import scramble


def call(name: str, response: Json, **arguments: Json) -> Step:
    text = response if isinstance(response, str) else json.dumps(response)
    return Step(calls=[ToolCall(name, arguments, id="c")], responses=[ToolResponse(text, call_id="c", name=name)])


TOOLS = [Tool(name) for name in ("search", "book", "pay", "cancel")]
FOUND = {"hotels": [{"id": "H-7", "price": 120, "free": True}], "note": "two rooms"}
STEPS = [
    call("search", FOUND, city="Paris", stars=4),
    call("book", {"booking": "B-9", "at": "16:00"}, hotel="H-7", guests=2),
    Step(reply="I booked H-7 for $120. Check-in is at 4 pm, your reference is B-9. Would you like a taxi?"),
]
OTHER = [call("cancel", {"ok": True}, booking="B-1"), Step(reply="Your booking B-1 was cancelled.")]
DIALOGUE = Dialogue("d", [Turn("Book me a hotel.", STEPS), Turn("Cancel the old one.", OTHER)], TOOLS)


def item(check, id="C0", weight=1.0, focus="assistant.tool_calls", **more) -> Item:
    return Item(id, focus, "Did the assistant do it?", "It is done.", weight, check=check, **more)


def lint(*items: Item, dialogue: Dialogue = DIALOGUE, neighbour: Task | None = None, turn: int = 0):
    return lint_task(Task(dialogue, [Checklist(turn, list(items)).normalised()]), neighbour)


def failed(check, **more) -> set[str]:
    (report,) = lint(item(check), **more)
    assert report.ok is (not report.failures)
    return {failure.test for failure in report.failures}


GOOD = [
    Called("search", {"city": Equals("Paris"), "stars": Number(4)}),
    Called("book", {"hotel": CameFrom("search", "hotels[*].id")}, answered=True),
    Called("book", {"guests": OneOf([2, 3])}, at_most=1),
    Response("search", "hotels[0].price", Equals(120)),
    Response("search", "length(hotels)", Number(1)),
    Response("search", "note", Contains("two rooms"), {"city": Equals("Paris")}),
    Response("book", "booking", Pattern(r"^B-\d$")),
    Response("book"),
    Reply(states=[Fact([120], "number", "search", "hotels[0].price"), Fact(["B-9"])]),
    Reply(states=[Fact(["16:00"], "time")]),
    Reply(pattern=r"booked H-\d+", asks=True),
    Reply(states=[Fact(["B-9"])], never=[Fact([99], "number")]),
    Before(Called("search"), Called("book")),
    All([NotCalled(["pay", "cancel"]), Reply(states=[Fact(["B-9"])])]),
    All([Not(Called("pay")), Reply(states=[Fact(["B-9"])])]),
    Any([Called("cancel"), Called("book", {"hotel": Equals("H-7")})]),
]


@pytest.mark.parametrize("check", GOOD, ids=lambda check: type(check).__name__)
def test_a_good_item_passes_every_test(check):
    # The second turn cancels; an alternative that cancels passes there, as it should, so it is judged without donors.
    dialogue = Dialogue("d", DIALOGUE.turns[:1], TOOLS) if isinstance(check, Any) else DIALOGUE
    (report,) = lint(item(check), dialogue=dialogue)
    assert report.ok, report.failures
    assert "indiscriminate" in report.tests


@pytest.mark.parametrize(
    ("check", "test"),
    [
        (Called("pay"), "reference"),
        (Called("book", {"guests": Equals(3)}), "reference"),
        (Reply(states=[Fact(["B-8"])]), "reference"),
        (Reply(), "vacuous"),
        (NotCalled(["pay"]), "vacuous"),
        (Not(Called("pay")), "vacuous"),
        (Any([Reply(), Called("book")]), "vacuous"),
        (Reply(pattern="(?i)booked|done|taken care"), "stock_answer"),
        (Reply(asks=True), "stock_answer"),
        (Reply(pattern="(?i)book"), "another_turn"),
        (Any([Called("book"), Called("cancel")]), "another_turn"),
        (Called("book", {"hotel": Pattern(".*")}), "indiscriminate"),
        (Response("search", "hotels[0].free", OneOf([True, False])), "indiscriminate"),
        (Reply(states=[Fact(["B-9", "reference"])]), "indiscriminate"),
        (Reply(states=[Fact(["B-9"])], pattern=".*"), "indiscriminate"),
        (Reply(pattern="("), "check"),
        (Response("search", "hotels[", Anything()), "check"),
    ],
)
def test_a_bad_item_fails_the_test_meant_for_it(check, test):
    assert test in failed(check)


def test_a_boolean_may_come_from_anywhere_so_its_origin_proves_nothing():
    found = {"a": True, "b": False}
    dialogue = Dialogue(
        "d", [Turn("u", [call("search", found), call("book", {"ok": 1}, flag=True), Step(reply="Ok.")])]
    )
    assert "came_from" in failed(Called("book", {"flag": CameFrom("search")}), dialogue=dialogue)


def test_the_reference_must_be_able_to_earn_an_item_after_its_dependencies():
    searched = item(Response("search"), "C0", 0.5, "tool.content")
    fine = lint(searched, item(Called("book"), "C1", 0.5, depends_on=["C0"]))
    assert all(report.ok for report in fine)
    booked = item(Response("book"), "C0", 0.5, "tool.content")
    reports = lint(booked, item(Response("search"), "C1", 0.5, "tool.content", depends_on=["C0"]))
    assert reports[1].ok, "it still holds at the next step, when the dependency does"
    early = Dialogue("d", [Turn("u", STEPS[:2])], TOOLS)
    reports = lint(booked, item(Called("book"), "C1", 0.5, depends_on=["C0"]), dialogue=early)
    assert [failure.test for failure in reports[1].failures] == ["reference"]
    never = lint(item(Response("pay"), "C0", 0.5, "tool.content"), item(Called("book"), "C1", 0.5, depends_on=["C0"]))
    assert "C0 is never satisfied" in never[1].failures[0].message


def test_a_circle_of_dependencies_is_reported_once_and_stops_nothing():
    a = item(Response("search"), "C0", 0.5, "tool.content", depends_on=["C1"])
    b = item(Response("book"), "C1", 0.5, "tool.content", depends_on=["C0"])
    reports = lint(a, b)
    assert [report.item for report in reports] == ["", "C0", "C1"]
    assert "cycle" in reports[0].failures[0].message
    assert all("circle" in report.failures[0].message for report in reports[1:])


def test_evidence_must_stand_where_it_points():
    right = Evidence(0, 1, "assistant.tool_calls", '"hotel":"H-7"')
    wrong = Evidence(0, 0, "assistant.tool_calls", '"hotel":"H-7"')
    assert failed_evidence(right) == set()
    assert failed_evidence(wrong) == {"evidence"}
    assert failed_evidence(Evidence(7, 0, "tool.content", "x")) == {"evidence"}


def failed_evidence(evidence: Evidence) -> set[str]:
    (report,) = lint(item(Called("book", {"hotel": Equals("H-7")}), evidence=[evidence]))
    assert "evidence" in report.tests
    return {failure.test for failure in report.failures}


def test_the_rules_of_a_checklist_are_part_of_lint():
    bad = Item("C0", "assistant.tool_calls", "If it rains, was it booked?", "", 0.3, check=Called("book"))
    reports = lint_task(Task(DIALOGUE, [Checklist(0, [bad])]))
    assert [report.item for report in reports] == ["", "C0"]
    assert "weight_sum" in reports[0].failures[0].message
    assert {failure.message.split(":")[0] for failure in reports[1].failures} == {"conditional", "pass_condition"}


def test_an_item_without_a_check_is_unscored_and_no_failure():
    (report,) = lint(item(None))
    assert report.ok and report.unscored and report.tests == ["rules"]


def test_a_turn_with_the_same_duty_or_the_same_answer_is_no_other_answer():
    check = Reply(states=[Fact(["B-9"])])
    again = Dialogue("d", [DIALOGUE.turns[0], Turn("again", [Step(reply="As said, B-9.")])], TOOLS)
    alone = lint_task(Task(again, [Checklist(0, [item(check)])]))
    assert [failure.test for failure in alone[0].failures] == ["another_turn"]
    both = lint_task(Task(again, [Checklist(0, [item(check)]), Checklist(1, [item(check)])]))
    assert all(report.ok and "another_turn" not in report.tests for report in both)


def test_a_dialogue_of_one_turn_borrows_an_answer_from_its_neighbour():
    alone = Dialogue("d", [DIALOGUE.turns[0]], TOOLS)
    neighbour = Task(Dialogue("n", [Turn("u", [Step(reply="Reference B-9, at your service.")])]))
    check = Reply(states=[Fact(["B-9"])])
    assert failed(check, dialogue=alone) == set()
    assert failed(check, dialogue=alone, neighbour=neighbour) == {"another_turn"}
    neighbour.checklists = [Checklist(0, [item(check)])]
    assert failed(check, dialogue=alone, neighbour=neighbour) == set(), "the neighbour has the same duty"


def test_a_turn_that_does_not_exist_is_a_violation_not_a_crash():
    reports = lint(item(Called("book")), turn=9)
    assert [failure.test for failure in reports[0].failures] == ["rules"]


@pytest.mark.parametrize("check", GOOD, ids=lambda check: type(check).__name__)
def test_counterexamples_leave_the_reference_as_it_was(check):
    before = json.dumps(repr(DIALOGUE))
    found = list(counterexamples(check, DIALOGUE, 0))
    assert found and all(example.caught for example in found), [e.change for e in found if not e.caught]
    assert json.dumps(repr(DIALOGUE)) == before
    assert decide(check, DIALOGUE, 0, 2).met


def test_stock_answers_are_what_their_names_say():
    said = [Dialogue("s", [Turn("u", [Step(reply=reply)])]) for reply in STOCK]
    assert [decide(Reply(asks=True), dialogue, 0, 0).met for dialogue in said] == [False, False, True, False, False]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_a_scrambled_value_is_another_value(value):
    dialogue = Dialogue("d", [Turn("u", [call("f", {}, x=scramble(value))])])
    assert not decide(Called("f", {"x": Equals(value, fold=True)}), dialogue, 0, 0).met
