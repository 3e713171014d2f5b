"""Every form of check on hand-made states, and the traps that a judge must not fall into."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_builders import call, calls, say, talk

from cm2.check import (
    All,
    Any,
    Anything,
    Before,
    Called,
    CameFrom,
    Check,
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
from cm2.checklist import part_of
from cm2.dialogue import Step, Tool, ToolCall, ToolResponse
from cm2.errors import DataError
from cm2.judge import decide

SEARCH = call("search", {"results": [{"id": "AB-1", "price": 120.5}, {"id": "AB-2", "price": 99}]}, city="Paris")
BOOK = call("book", {"booking": "X9", "status": "ok"}, id="AB-2", guests=2)
ORDER = talk([SEARCH, BOOK, say("Booked AB-2 for $99.00, your reference is X9.")])


def met(check: Check, dialogue=ORDER, turn: int = 0, upto: int | None = None) -> bool:
    last = len(dialogue.turns[turn].steps) - 1
    return decide(check, dialogue, turn, last if upto is None else upto).met


def first_step(check: Check, dialogue=ORDER, turn: int = 0) -> int | None:
    steps = range(-1, len(dialogue.turns[turn].steps))
    return next((step for step in steps if decide(check, dialogue, turn, step).met), None)


# called


def test_a_call_counts_from_the_step_in_which_it_was_made():
    assert first_step(Called("search")) == 0
    assert first_step(Called("book", {"id": Equals("AB-2")})) == 1
    assert first_step(Called("cancel")) is None


def test_arguments_that_are_not_named_are_free_and_all_that_are_named_must_match():
    assert met(Called("book", {"id": Equals("AB-2"), "guests": Equals(2.0)}))
    assert not met(Called("book", {"id": Equals("AB-2"), "guests": Equals(3)}))
    assert not met(Called("book", {"absent": Anything()}))


def test_an_absent_argument_has_the_default_that_its_schema_declares():
    tool = Tool("book", parameters={"properties": {"guests": {"type": "integer", "default": 1}}})
    dialogue = talk([call("book", {}, id="AB-2"), say("Done.")], tools=[tool])
    assert met(Called("book", {"guests": Equals(1)}), dialogue)
    assert not met(Called("book", {"guests": Equals(2)}), dialogue)


def test_an_argument_may_be_named_by_a_path():
    dialogue = talk([call("add", {}, item={"attributes": [{"id": "milk", "option": "oat"}]})])
    assert met(Called("add", {"item.attributes[?id=='milk'] | [0].option": Equals("oat")}), dialogue)
    assert not met(Called("add", {"item.attributes[?id=='size'] | [0].option": Anything()}), dialogue)


def test_counts_have_a_lower_and_an_upper_bound_and_the_upper_one_is_settled_at_the_end():
    twice = talk([call("pay", {}, sum=5), call("pay", {}, sum=5), say("Paid.")])
    assert first_step(Called("pay", at_least=2), twice) == 1
    assert first_step(Called("pay", at_least=3), twice) is None
    assert first_step(Called("pay", at_least=1, at_most=1), twice) is None
    assert first_step(Called("pay", at_least=1, at_most=2), twice) == 2
    assert first_step(Called("refund", at_least=0, at_most=0), twice) == 2


def test_a_malformed_call_is_no_call_that_was_made():
    step = Step(calls=[ToolCall("pay", None, raw='{"sum": ', error="unexpected end")])
    dialogue = talk([step, say("Paid.")])
    assert not met(Called("pay"), dialogue)
    assert not met(NotCalled(), dialogue), "but the attempt is no restraint either"


def test_answered_asks_for_a_response_that_is_no_error():
    check = Called("book", answered=True)
    assert met(check, talk([call("book", {"ok": True})]))
    assert not met(check, talk([call("book", None)]))
    assert not met(check, talk([call("book", {"error": "sold out"})]))
    assert not met(check, talk([call("book", {"ok": True}, origin="error")]))


@pytest.mark.parametrize(
    "content",
    [
        {"results": [{"title": "error"}], "note": "the word error"},
        {"error": None, "result": 3},
        {"error": "2 rows skipped", "results": [1, 2]},
        {"message": {"error": "quoted"}},
        "The log says: Error: disk full",
        "Error: disk full\nline 2 of a log that was asked for",
        ["error"],
        {"errors": 0},
        {"error": 0.02, "slope": 1.3},
    ],
)
def test_a_result_that_merely_quotes_an_error_is_a_result(content):
    assert met(Called("read", answered=True), talk([call("read", content)]))


@pytest.mark.parametrize(
    "content",
    [
        {"error": "no"},
        {"status": "error", "message": "no"},
        {"success": False},
        {"exception": "no", "output": None},
        {"error": {"code": 404}, "results": []},
        "Error: user not found",
    ],
)
def test_a_response_that_is_an_error_is_one(content):
    assert not met(Called("read", answered=True), talk([call("read", content)]))


# not_called, not: what must not happen


@pytest.mark.parametrize("check", [NotCalled(), NotCalled(["pay"]), Not(Called("pay")), Called("pay", at_least=0)])
def test_what_must_not_happen_is_settled_only_by_the_final_reply(check):
    silent = talk([])
    assert not decide(check, silent, 0, -1).met
    for steps in ([Step()], [say("")], [say(" \u200b\u00a0")], [Step(thinking="hm")]):
        assert not met(check, talk(steps)), steps
    assert met(check, talk([say("I did nothing.")]))


def test_a_forbidden_call_breaks_it_whenever_it_comes():
    check = NotCalled(["pay", "refund"])
    assert met(check)
    assert not met(check, talk([call("refund", {}), say("Done.")]))
    assert met(NotCalled(["pay"], {"sum": Equals(5)}), talk([call("pay", {}, sum=4), say("Done.")]))
    assert not met(NotCalled(["pay"], {"sum": Equals(5)}), talk([call("pay", {}, sum=5), say("Done.")]))


def test_not_in_an_earlier_turn_does_not_count():
    dialogue = talk([call("pay", {}), say("Paid.")], [say("Anything else?")])
    assert met(NotCalled(["pay"]), dialogue, turn=1)


# response


def test_a_response_is_read_at_its_path():
    assert met(Response("search", "results[1].id", Equals("AB-2")))
    assert met(Response("search", "length(results)", Number(2)))
    assert not met(Response("search", "results[5].id", Anything()))
    assert not met(Response("book", "results[1].id", Equals("AB-2")))
    assert first_step(Response("book", "booking", Pattern(r"^[A-Z]\d$"))) == 1


def test_a_response_can_be_restricted_to_calls_with_arguments():
    check = Response("search", "n", Equals(2), {"city": Equals("Rome")})
    assert not met(check, talk([call("search", {"n": 2}, city="Paris")]))
    assert met(check, talk([call("search", {"n": 2}, city="Paris"), call("search", {"n": 2}, city="Rome")]))


def test_an_error_is_no_answer_unless_it_is_asked_for():
    dialogue = talk([call("search", {"error": "no such city"})])
    assert not met(Response("search"), dialogue)
    assert met(Response("search", "error", Contains("no such city"), allow_error=True), dialogue)


def test_parallel_calls_are_matched_to_their_own_responses():
    step = calls(("price", {"of": "a"}, {"p": 1}), ("price", {"of": "b"}, {"p": 2}))
    step.responses.reverse()
    assert met(Response("price", "p", Equals(2), {"of": Equals("b")}), talk([step]))
    assert not met(Response("price", "p", Equals(1), {"of": Equals("b")}), talk([step]))


# reply


def test_the_reply_is_the_one_that_ends_the_turn():
    assert first_step(Reply(states=[Fact(["X9"])])) == 2
    beside_a_call = call("book", {})
    beside_a_call.reply = "Your reference is X9."
    assert not met(Reply(states=[Fact(["X9"])]), talk([beside_a_call]))


def test_private_thinking_is_not_a_reply():
    step = Step(thinking="the reference is X9", reply="<think>X9</think>Done.")
    assert not met(Reply(states=[Fact(["X9"])]), talk([step]))
    assert not met(Reply(states=[Fact(["X9"])]), talk([Step(thinking="X9")]))
    assert not met(Reply(), talk([Step(reply="<think>never closed, X9")]))


def test_a_dialogue_without_thinking_can_pass_reply_items():
    assert met(Reply(states=[Fact(["None of it"])]), talk([say("None of it was lost.")]))
    assert not met(Reply(states=[Fact(["None"])]), talk([Step()]))


def test_every_fact_must_stand_and_no_forbidden_one():
    assert met(Reply(states=[Fact(["X9"]), Fact([99], "number")], never=[Fact([120.5], "number")]))
    assert not met(Reply(states=[Fact(["X9"]), Fact([100], "number")]))
    assert not met(Reply(never=[Fact([99], "number")]))


def test_a_grounded_fact_is_read_from_the_latest_answer_of_this_run():
    check = Reply(states=[Fact(["AB-2"], tool="search", path="best")])
    other_world = talk([call("search", {"best": "ZZ-7"}), say("Take ZZ-7.")])
    assert met(check, other_world)
    assert not met(check, talk([call("search", {"best": "ZZ-7"}), say("Take AB-2.")])), "the run's own answer counts"
    later = talk([call("search", {"best": "ZZ-7"}), call("search", {"best": "QQ-8"}), say("Take ZZ-7.")])
    assert not met(check, later), "the latest answer counts"
    assert met(check, talk([say("Take AB-2.")])), "the listed forms are the fallback"
    assert not met(check, talk([say("Take ZZ-7.")]))
    failed = talk([call("search", {"error": "down", "best": "ZZ-7"}), say("Take AB-2.")])
    assert met(check, failed), "an error is no answer"


def test_asking_is_a_question_and_no_courtesy():
    assert met(Reply(asks=True), talk([say("Sure. Which size would you like?")]))
    assert met(Reply(asks=True), talk([say("Please provide your name.")]))
    assert not met(Reply(asks=True), talk([say("Done! Is there anything else I can help you with?")]))
    assert met(Reply(asks=False), talk([say("Done! Is there anything else I can help you with?")]))
    assert not met(Reply(asks=False), talk([say("Which size?")]))


def test_a_reply_pattern_is_re2_and_sees_plain_spaces_and_quotes():
    assert met(Reply(pattern=r"(?i)can't (book|pay)"), talk([say("I can\u2019t\u00a0book that.")]))
    with pytest.raises(DataError, match="RE2"):
        met(Reply(pattern="(?<=a)b"), talk([say("ab")]))


# before, all, any


def test_before_looks_at_the_first_step_of_each():
    check = Before(Called("search"), Called("book"))
    assert first_step(check) == 0
    assert met(check, talk([SEARCH, say("Found.")])), "the second never happened"
    assert not met(check, talk([BOOK, SEARCH, say("Booked.")]))
    assert not met(check, talk([BOOK, say("Booked.")]))
    assert not met(check, talk([say("Hello.")]))
    assert not met(check, talk([calls(("search", {}, {}), ("book", {}, {}))])), "in one step is not before"


def test_all_and_any_combine_and_nothing_is_never_enough():
    yes, no = Called("search"), Called("cancel")
    assert met(All([yes, Called("book")])) and not met(All([yes, no])) and not met(All([]))
    assert met(Any([no, yes])) and not met(Any([no])) and not met(Any([]))
    assert met(Not(no)) and not met(Not(yes))


# matchers


@pytest.mark.parametrize(
    ("matcher", "value", "expected"),
    [
        (Equals(1), 1.0, True),
        (Equals(1), "1", False),
        (Equals(1), True, False),
        (Equals(0), False, False),
        (Equals("Paris"), "paris", False),
        (Equals("Paris", fold=True), " PARIS. ", True),
        (Equals({"a": [1, {"b": None}]}), {"a": [1.0, {"b": None}]}, True),
        (Equals([1, 2]), [2, 1], False),
        (Equals("?", fold=True), "!", False),
        (OneOf(["a", 2]), 2, True),
        (OneOf(["a", 2]), "A", False),
        (OneOf(["a"], fold=True), "A", True),
        (Contains("oat milk"), "with OAT  milk, please", True),
        (Contains("oat"), "oatmeal", False),
        (Contains("oat", fold=False), "oatmeal", True),
        (Contains("x"), ["y", "X"], True),
        (Contains({"id": "milk"}), [{"id": "milk", "option": "oat"}], True),
        (Contains({"id": "milk"}), {"id": "milk", "option": "oat"}, True),
        (Contains({"id": "milk"}), {"option": "oat"}, False),
        (Contains(""), "text", False),
        (Number(5), "5", True),
        (Number(5), "$5.00", True),
        (Number(5), "five", True),
        (Number(5, 0.5), 5.5, True),
        (Number(5, 0.5), 5.6, False),
        (Number(1), True, False),
        (Number(5), "15", False),
        (Pattern(r"^\d{4}$"), "2019", True),
        (Pattern(r"^\d{4}$"), 2019, True),
        (Pattern(r"^\d{4}$"), "20190", False),
        (Anything(), 0, True),
        (Anything(), "", True),
        (Anything(), None, False),
    ],
)
def test_matchers(matcher, value, expected):
    assert met(Called("f", {"x": matcher}), talk([call("f", {}, x=value)])) is expected


def test_moments_and_sets_are_compared_as_the_schema_says():
    schema = {"properties": {"on": {"format": "date"}, "tags": {"type": "array", "uniqueItems": True}, "text": {}}}
    tools = [Tool("f", parameters=schema)]
    dialogue = talk([call("f", {}, on="March 1st, 2019", tags=["b", "a"], text="2019-3-1")], tools=tools)
    assert met(Called("f", {"on": Equals("2019-03-01"), "tags": Equals(["a", "b"])}), dialogue)
    assert not met(Called("f", {"text": Equals("2019-03-01")}), dialogue)


def test_came_from_wants_an_earlier_answer():
    check = Called("book", {"id": CameFrom("search", "results[*].id")})
    assert met(check)
    assert met(Called("book", {"id": CameFrom()}))
    assert not met(Called("book", {"id": CameFrom("rooms")}))
    assert not met(Called("book", {"id": CameFrom("search", "results[*].price")}))
    invented = talk([SEARCH, call("book", {}, id="AB-3")])
    assert not met(check, invented)
    parallel = talk([calls(("search", {}, {"results": [{"id": "AB-2"}]}), ("book", {"id": "AB-2"}, {}))])
    assert not met(check, parallel), "an answer of the same step was not known yet"
    afterwards = talk([BOOK, SEARCH])
    assert not met(check, afterwards)
    last_turn = talk([SEARCH, say("AB-1 or AB-2?")], [BOOK, say("Booked.")])
    assert met(check, last_turn, turn=1)


def test_a_value_that_only_an_error_repeats_came_from_nowhere():
    dialogue = talk([call("get", {"error": "AB-2 is unknown"}, id="AB-2"), call("get", {"ok": 1}, id="AB-2")])
    assert not met(Called("get", {"id": CameFrom()}), dialogue)


def test_came_from_takes_ids_out_of_text_numbers_and_keys():
    for answer in ("Your order is AB-2, ready at 5.", {"message": "order AB-2 is ready now"}, {"orders": {"AB-2": {}}}):
        assert met(Called("get", {"id": CameFrom()}), talk([call("list", answer), call("get", {}, id="AB-2")])), answer
    numbers = talk([call("list", {"id": 77}), call("get", {}, id="77", both=[77, 77], other=[77, 78])])
    assert met(Called("get", {"id": CameFrom(), "both": CameFrom()}), numbers)
    assert not met(Called("get", {"other": CameFrom()}), numbers)


# the decision itself


def test_a_decision_points_to_where_it_rests():
    decision = decide(All([Called("book"), Response("search"), Reply(states=[Fact(["X9"])])]), ORDER, 0, 2)
    assert [(p.step, p.part) for p in decision.evidence] == [
        (1, "assistant.tool_calls"),
        (0, "tool.content"),
        (2, "assistant.content.user_visible_reply"),
    ]
    for pointer in decision.evidence:
        assert pointer.snippet and pointer.snippet in part_of(ORDER.turns[0].steps[pointer.step], pointer.part)


def test_a_refusal_says_what_differs():
    assert "guests" in decide(Called("book", {"guests": Equals(3)}), ORDER, 0, 2).reason
    assert "100" in decide(Reply(states=[Fact([100], "number")]), ORDER, 0, 2).reason


def test_a_state_that_does_not_exist_is_an_error_not_a_no():
    with pytest.raises(IndexError):
        decide(Called("book"), ORDER, 0, 3)
    with pytest.raises(IndexError):
        decide(Called("book"), ORDER, 1, 0)
    with pytest.raises(DataError, match="JMESPath"):
        decide(Response("search", "results["), ORDER, 0, 2)


def test_nothing_is_remembered_between_states():
    dialogue = talk([call("book", {"error": "no"})])
    check = Called("book", answered=True)
    assert not met(check, dialogue)
    dialogue.turns[0].steps[0].responses[0] = ToolResponse('{"ok": true}', call_id="c0")
    assert met(check, dialogue)


# properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value, random):
    if isinstance(value, dict):
        items = [(key, shuffled(each, random)) for key, each in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(each, random) for each in value] if isinstance(value, list) else value


@given(VALUES, st.randoms(), st.sampled_from([None, 2]))
def test_key_order_and_white_space_never_change_a_decision(value, random, indent):
    spaced = json.dumps(shuffled(value, random), indent=indent)
    step = calls(("get", {"x": shuffled(value, random)}, spaced))
    plain = calls(("get", {"x": value}, json.dumps(value)))
    for check in (Called("get", {"x": Equals(value)}), Response("get", match=Equals(value)), Response("get")):
        assert met(check, talk([step])) == met(check, talk([plain]))
    assert met(Called("get", {"x": Equals(value)}), talk([step]))


MATCHERS = st.one_of(
    st.builds(Equals, VALUES, st.booleans()),
    st.builds(OneOf, st.lists(VALUES, max_size=2), st.booleans()),
    st.builds(Contains, VALUES, st.booleans()),
    st.builds(Number, st.floats(-10, 10)),
    st.builds(CameFrom, st.sampled_from([None, "f"]), st.sampled_from([None, "a", "[0]", "a.b[*]"])),
    st.builds(Pattern, st.sampled_from(["", ".", r"\d+"])),
    st.just(Anything()),
)
NAMED = st.dictionaries(st.sampled_from(["x", "y", "x.a", "x[0]"]), MATCHERS, max_size=2)
FACTS = st.lists(
    st.builds(
        Fact,
        st.lists(VALUES, max_size=2),
        st.sampled_from(["text", "number", "date", "time"]),
        st.sampled_from([None, "f"]),
        st.sampled_from([None, "a"]),
    ),
    max_size=2,
)
CHECKS = st.recursive(
    st.builds(Called, st.sampled_from(["f", "g"]), NAMED, st.integers(0, 2), st.sampled_from([None, 1]), st.booleans())
    | st.builds(NotCalled, st.sampled_from([[], ["f"]]), NAMED)
    | st.builds(Response, st.just("f"), st.sampled_from([None, "a", "length(@)"]), MATCHERS, NAMED, st.booleans())
    | st.builds(Reply, FACTS, FACTS, st.sampled_from([None, True, False]), st.sampled_from([None, "a"])),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Before, inner, inner)
        | st.builds(All, st.lists(inner, max_size=2))
        | st.builds(Any, st.lists(inner, max_size=2))
    ),
    max_leaves=4,
)
STEPS = st.lists(
    st.builds(say, st.text(max_size=12))
    | st.builds(lambda x, y, answer: calls(("f", {"x": x}, answer), ("g", y, None)), VALUES, VALUES, VALUES),
    max_size=3,
)


@given(CHECKS, STEPS, STEPS)
def test_any_check_is_decided_in_any_state_and_never_met_by_silence(check, earlier, steps):
    dialogue = talk(earlier, steps)
    for upto in range(-1, len(steps)):
        decision = decide(check, dialogue, 1, upto)
        assert decision == decide(check, dialogue, 1, upto)
        assert decision.reason and (upto >= 0 or not decision.met)
        for pointer in decision.evidence:
            part = part_of(dialogue.turns[pointer.turn].steps[pointer.step], pointer.part)
            assert pointer.snippet in part
    assert not decide(check, talk(earlier, [Step()]), 1, 0).met


@given(st.permutations([Called("search"), Called("cancel"), Called("book"), NotCalled(["pay"])]))
def test_the_order_of_parts_never_changes_all_and_any(parts):
    for upto in range(-1, 3):
        assert decide(All(parts), ORDER, 0, upto).met is False
        assert decide(Any(parts), ORDER, 0, upto).met is (upto >= 0)


@given(st.sampled_from([Called("book"), Reply(states=[Fact(["X9"])]), Before(Called("search"), Called("book"))]))
def test_a_check_survives_being_stored(check):
    again = msgspec.json.decode(msgspec.json.encode(check), type=Check)
    assert again == check and met(again)
