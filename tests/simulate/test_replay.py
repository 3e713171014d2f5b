"""Recorded answers, filed by call and by the writes before it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.simulate import World
from cm2.simulate.replay import Recordings, State, call_key, canonical
from rollout.coffee_task import made

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_a_key_survives_another_writing_of_the_same_json(arguments):
    shuffled = dict(reversed(json.loads(json.dumps(arguments)).items()))
    assert call_key(ToolCall("f", arguments)) == call_key(ToolCall("f", shuffled, "another id"))


@settings(max_examples=40, deadline=None)
@given(json_values, json_values)
def test_equal_keys_mean_equal_values(left, right):
    same = call_key(ToolCall("f", {"a": left})) == call_key(ToolCall("f", {"a": right}))
    if same:
        assert canonical(left) == canonical(right)


def test_what_is_different_json_has_different_keys():
    different = [1, 2, "1", True, None, [1], {"a": 1}, 1.5, "", [], {}, "true", 0, False]
    assert len({call_key(ToolCall("f", {"a": value})) for value in different}) == len(different)
    assert call_key(ToolCall("f", {"a": 1.0})) == call_key(ToolCall("f", {"a": 1}))
    assert call_key(ToolCall("f", {})) != call_key(ToolCall("f", {"a": None}))
    assert call_key(ToolCall("f", {})) != call_key(ToolCall("g", {}))


def test_malformed_calls_are_equal_by_text_only():
    def bad(raw):
        return ToolCall("f", None, raw=raw, error="not JSON")

    assert call_key(bad("{")) == call_key(bad("{")) != call_key(bad("{ "))
    assert call_key(bad("{}")) != call_key(ToolCall("f", {}))


def test_a_state_depends_on_the_order_of_its_writes():
    one, two = State().after("a", "f").after("b", "g"), State().after("b", "g").after("a", "f")
    assert one != two and one == State().after("a", "f").after("b", "g") and one.tools == ("f", "g")


def look(answer) -> Step:
    return made("get_cart", {}, answer)


def write(tool: str, **arguments) -> Step:
    return made(tool, arguments, {"ok": True})


def recordings(*steps: Step) -> Recordings:
    def changed(call, response):
        return call.name.startswith("set_")

    return Recordings(Dialogue("d", [Turn("u", list(steps))]), changed)


LOOK = call_key(ToolCall("get_cart", {}))


def key(tool: str, **arguments) -> str:
    return call_key(ToolCall(tool, arguments))


def test_the_answer_of_the_state_is_found():
    found = recordings(look("0"), write("set_a", x=1), look("1"), write("set_b", x=1), look("2"))
    one = State().after(key("set_a", x=1), "set_a")
    assert found.find(LOOK, State()) == "0" and found.find(LOOK, one) == "1"
    assert found.find(LOOK, one.after(key("set_b", x=1), "set_b")) == "2"


def test_a_state_that_was_never_recorded_gets_the_answer_of_the_most_similar_one():
    found = recordings(look("0"), write("set_a", x=1), look("1"), write("set_b", x=1), look("2"))
    other_values = State().after(key("set_a", x=9), "set_a")
    assert found.find(LOOK, other_values) == "1"
    other_order = State().after(key("set_b", x=1), "set_b").after(key("set_a", x=1), "set_a")
    assert found.find(LOOK, other_order) == "2"  # the same tools have written
    more = other_order.after(key("set_c", x=1), "set_c")
    assert found.find(LOOK, more) == "2"  # the most writes that were recorded
    assert found.find(LOOK, State().after(key("set_c", x=1), "set_c")) == "1"  # one other write: the state after one


def test_what_was_not_recorded_is_not_found():
    found = recordings(look("0"))
    assert found.find(key("get_cart", x=1), State()) is None
    assert LOOK in found and key("get_cart", x=1) not in found


def test_polling_goes_through_the_recordings_of_a_state_and_stays_at_the_last():
    found = recordings(look("a"), look("b"), write("set_a"), look("c"))
    assert [found.find(LOOK, State(), nth) for nth in range(4)] == ["a", "b", "b", "b"]
    assert found.find(LOOK, State().after(key("set_a"), "set_a"), 5) == "c"


def test_a_call_without_a_response_is_no_recording():
    unanswered = Step(calls=[ToolCall("get_cart", {}), ToolCall("get_cart", {"x": 1})], responses=[ToolResponse("1")])
    found = recordings(unanswered)
    assert LOOK in found and key("get_cart", x=1) not in found


def test_parallel_calls_of_one_step_are_answered_each_by_its_own():
    both = Step(
        calls=[ToolCall("get_a", {}, "1"), ToolCall("get_b", {}, "2")],
        responses=[ToolResponse("B", "2"), ToolResponse("A", "1")],
    )
    world = World(Dialogue("d", [Turn("u", [both])], [Tool("get_a"), Tool("get_b")]))
    session = world.session()
    assert [session.respond(ToolCall(name, {})).content for name in ("get_b", "get_a")] == ["B", "A"]
