"""What bears on a call: what shares a value with it, or with a write that does."""

from __future__ import annotations

import json

from cm2.dialogue import Dialogue, Tool, ToolCall, Turn
from cm2.simulate.effects import Effects
from cm2.simulate.evidence import bearing, evidence, subjects
from cm2.simulate.horizon import Horizon
from cm2.simulate.replay import Context, Heard, State
from rollout.coffee_task import made


def of(call: ToolCall, steps=(), writes=(), heard=(), examples=6, others=6):
    reference = Dialogue("d", [Turn("u", list(steps))], [])
    records = Horizon(reference, Effects(reference)).records
    written = [(ToolCall(name, arguments), json.dumps(answer)) for name, arguments, answer in writes]
    told = [Heard(ToolCall(name, arguments), json.dumps(answer), n) for n, name, arguments, answer in heard]
    return evidence(
        call, Context(Tool(call.name), State(), written, 0, told), records, examples=examples, others=others
    )


def test_short_values_and_flags_say_what_nothing_is_about():
    assert subjects({"id": "H77", "nights": 3, "vip": True, "price": 120, "k": "NY"}) == {"H77", "120"}


def test_a_value_bears_as_a_whole_word():
    call = ToolCall("f", {"q": "Ann"})
    assert bearing({"Ann"}, call, "{}") == 1 and bearing({"Berlin"}, ToolCall("f"), '{"t": "a room in Berlin"}') == 1
    assert bearing({"Ann"}, ToolCall("f"), '{"t": "Annabel"}') == 0


def test_a_write_leads_to_what_it_is_about():
    booked = ("book", {"hotel_id": "H77", "guest": "Ann Lee"}, {"booking_id": "B12"})
    hotel = (0, "get_hotel", {"hotel_id": "H77"}, {"hotel_id": "H77", "price": 90})
    other = (0, "get_hotel", {"hotel_id": "H88"}, {"hotel_id": "H88", "price": 50})
    found = of(ToolCall("get_booking", {"booking_id": "B12"}), writes=[booked], heard=[other, hotel])
    assert [one.call.arguments for one in found.heard] == [{"hotel_id": "H77"}]
    assert of(ToolCall("get_booking", {"booking_id": "B99"}), writes=[booked], heard=[other, hotel]).heard == []


def test_of_too_much_the_most_telling_is_kept_in_its_order():
    heard = [(0, "find", {"city": "Rome", "n": 100 + n}, {"rows": [n]}) for n in range(8)]
    heard.append((0, "find", {"city": "Rome", "day": "Monday"}, {"rows": []}))
    found = of(ToolCall("find", {"city": "Rome", "day": "Monday"}), heard=heard, others=3)
    shown = [one.call.arguments for one in found.heard]
    assert len(shown) == 3 and {"city": "Rome", "day": "Monday"} in shown and shown == sorted(shown, key=json.dumps)


def test_what_is_on_record_is_not_shown_twice():
    step = made("find", {"city": "Rome"}, {"rows": ["x"]})
    told = (0, "find", {"city": "Rome"}, {"rows": ["x"]})
    found = of(ToolCall("get", {"city": "Rome"}), [step], heard=[told])
    assert len(found.others) == 1 and found.heard == []


def test_examples_are_the_nearest_with_a_failed_and_an_empty_one():
    steps = [made("find", {"city": f"c{n}", "n": n}, {"rows": [n]}) for n in range(9)]
    steps += [made("find", {"city": "nowhere"}, {"rows": []}), made("find", {"city": "!"}, {"error": "bad city"})]
    found = of(ToolCall("find", {"city": "c5", "n": 0}), steps, examples=4)
    assert [one.call.arguments.get("city") for one in found.own] == ["c0", "c5", "nowhere", "!"]
    assert of(ToolCall("find", {"city": "c5"}), steps, examples=0).own == []
