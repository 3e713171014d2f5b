"""What of the reference is open at which turn, and in which state."""

from __future__ import annotations

from cm2.dialogue import ToolCall
from cm2.simulate.effects import Effects
from cm2.simulate.horizon import Horizon, keys_of
from rollout.coffee_task import dialogue

ADD = ToolCall("add_item", {"item_id": "mocha-7835", "quantity": 1})


def horizon() -> Horizon:
    of = dialogue()
    return Horizon(of, Effects(of))


def names(records) -> list[str]:
    return [f"{one.turn} {one.call.name}" for one in records]


def test_of_the_turn_that_is_played_what_was_recorded_before_any_write_is_open():
    assert names(horizon().open(0, keys_of([]))) == ["0 find_items", "0 get_order", "0 add_item"]


def test_what_was_recorded_after_a_write_is_open_to_who_wrote_the_same():
    same = horizon().open(0, keys_of([(ADD, "{}")]))
    other = horizon().open(0, keys_of([(ToolCall("add_item", {"item_id": "x", "quantity": 1}), "{}")]))
    assert names(same) == ["0 find_items", "0 get_order", "0 add_item", "0 get_order"]
    assert names(other) == ["0 find_items", "0 get_order", "0 add_item"]
    assert [one.name for one in same[-1].after] == ["add_item"] and same[0].after == []


def test_earlier_turns_are_open_whatever_was_written():
    assert len(horizon().open(1, keys_of([]))) == 5  # the write of turn 0 does not close what turn 1 looked up
    assert len(horizon().open(2, keys_of([]))) == 5  # beyond the reference's end


def test_messages_are_open_up_to_the_turn():
    assert horizon().users(0) == ["A mocha on order 51313 please."] and len(horizon().users(1)) == 2


def test_hidden_is_what_only_later_records_and_messages_hold():
    one = horizon()
    hidden = one.hidden(one.open(0, keys_of([])), 0)
    assert {"Monday", "8", "open on Monday"} <= hidden
    assert not {"51313", "mocha", "Mocha", "coffee"} & hidden
    assert "Monday" not in one.hidden(one.open(1, keys_of([])), 1)
