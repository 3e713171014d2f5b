"""Writes: which calls change the world, by what a tool is called and says of itself."""

from __future__ import annotations

import pytest

from cm2.dialogue import Tool
from cm2.writes import Mode, changes_state, mode, verb_kind, words


@pytest.mark.parametrize(
    "name",
    [
        *("book_hotel", "cancelReservation", "AddAlarm", "Hotels_1_ReserveHotel", "send_email", "finish_order"),
        *("update_order_item", "TransferMoney", "set_thermostat", "createInvoice", "AppointmentRegistration"),
        *("room_booking", "unsubscribe", "mv", "rmdir", "touch", "fillFuelTank", "press_key", "unfollow_user"),
    ],
)
def test_a_verb_of_doing_changes_state(name):
    assert changes_state(None, name)


@pytest.mark.parametrize(
    "name",
    [
        *("get_order", "search_books", "list_bookings", "GetAlarms", "find_flights", "check_availability"),
        *("get_order_details", "QueryRegistration", "show_menu", "weather", "book_search", "order_status"),
        *("email_get_details", "comment_list", "get_touch_points", "pin_status"),
    ],
)
def test_a_verb_of_looking_does_not_even_beside_a_noun_that_looks_like_doing(name):
    assert not changes_state(None, name)


def test_a_name_without_a_verb_is_judged_by_the_opening_of_its_description():
    assert changes_state(Tool("alarm", "Sets a new alarm. Finds nothing."), "alarm") is False, "only whole verbs count"
    assert changes_state(Tool("alarm", "Set a new alarm."), "alarm")
    assert not changes_state(Tool("alarm", "Get the alarms that the user may delete."), "alarm")


def test_an_argument_may_choose_between_looking_and_doing():
    kind = {"type": "string", "enum": ["Check", "Book"]}
    tool = Tool("hotel_book", parameters={"type": "object", "properties": {"RequestType": kind}})
    assert mode(tool) == Mode("RequestType", ["Book"], ["Check"])
    assert changes_state(tool, "hotel_book", {"RequestType": "Book"})
    assert not changes_state(tool, "hotel_book", {"RequestType": "Check"})
    assert changes_state(tool, "hotel_book"), "some call of it can"


def test_an_enumeration_of_things_is_no_mode():
    colours = {"type": "string", "enum": ["red", "green"]}
    assert mode(Tool("paint", parameters={"type": "object", "properties": {"colour": colours}})) is None
    assert mode(Tool("paint")) is None and mode(None) is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Alarm_1_GetAlarms", ["alarm", "get", "alarms"]),
        ("get_URL", ["get", "url"]),
        ("bookHotel2", ["book", "hotel"]),
        ("", []),
    ],
)
def test_identifiers_fall_into_words(name, parts):
    assert words(name) == parts


def test_the_first_verb_decides():
    assert verb_kind("check_and_book") == "looking" and verb_kind("cancel_if_found") == "doing" and verb_kind("x") == ""
