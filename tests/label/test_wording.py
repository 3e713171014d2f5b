"""Wording of questions: what a judge can answer passes, what it cannot is named."""

from __future__ import annotations

import pytest

from cm2.check import Called
from cm2.checklist import Item
from cm2.label.wording import compound, faults, trivial

REPLY, THINKING = "assistant.content.user_visible_reply", "assistant.content.thinking"


def wrong(question: str, passes: str = "It is said.", focus=REPLY, check=None) -> set[str]:
    return {reason for reason, _ in faults(Item("C0", focus, question, passes, 1.0, check=check))}


@pytest.mark.parametrize(
    "question",
    [
        "Does the reply state the total price of “360”?",
        "Did the assistant call `book_hotel` with the hotel id from `search_hotels` and nights 4?",
        "Did the assistant ask for the user's date of birth before calling `refill`?",
        "Does the reply warn that the ticket is not refundable?",
        "Did `search_hotels` return at least one hotel in Cairo?",
        "Does the reply name the author and the book title?",
        "Does the reply give the check-in and check-out times?",
        "Did the assistant ask whether the user wants travel insurance?",
        "Does the reply mention the song “If I Were a Boy, When You Smile”?",
        "Does the reply recommend the room with a clear view of the sea?",
        "Did the assistant clear the cart?",
        "Did the assistant call `unlock_step 2` for “Turn 3 Fitness”?",
        "Does the reply explain what happens next with the refund?",
        "Was the flight from Oslo to Rome cancelled?",
        "Does the reply say that the natural gas meter was read?",
    ],
)
def test_a_question_that_a_judge_can_answer_has_no_fault(question):
    assert wrong(question) == set()


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        ("If the room is taken, did the assistant offer another one?", "conditional"),
        ("Did the assistant offer another room when needed?", "conditional"),
        ("Does the reply list the fees if any?", "conditional"),
        ("Did the assistant refuse the refund unless the ticket was flexible?", "conditional"),
        ("Should the assistant ask for the date?", "conditional"),
        ("Did the assistant call `find` in step 2?", "turn_number"),
        ("Was the booking made in the 2nd turn?", "turn_number"),
        ("Does the reply repeat the price from the previous turn?", "turn_number"),
        ("Did the assistant call `find` in the first step?", "turn_number"),
        ("Did the assistant call `find` and tell the user the price?", "atomic"),
        ("Did the assistant look up the order and cancel it?", "atomic"),
        ("Does the reply state the price, and does it name the hotel?", "atomic"),
        ("Was the room booked? Was the price told?", "atomic"),
        ("Did the assistant find the order and book the slot?", "atomic"),
        ("Does the reply state the price; the currency; the date of the trip?", "atomic"),
        ("Did the assistant understand that the user wants two rooms?", "observable"),
        ("Did the assistant carefully consider the budget of the user?", "observable"),
        ("Was the user satisfied with the refund?", "observable"),
        ("Did the assistant politely decline the refund?", "style"),
        ("Does the reply give a concise summary of the fees?", "style"),
        ("Did the assistant handle the refund appropriately?", "style"),
        ("Was the refund explained in a friendly way?", "style"),
        ("Did the assistant reply to the user?", "trivial"),
        ("Did the assistant call a tool?", "trivial"),
        ("Does the final reply answer the user's question correctly?", "trivial"),
        ("Did the assistant complete the task?", "trivial"),
    ],
)
def test_a_question_that_a_judge_cannot_answer_is_named(question, fault):
    assert fault in wrong(question)


def test_a_pass_condition_names_no_step_either():
    assert wrong("Does the reply state the price?", "The price of step 3 is said.") == {"turn_number"}


def test_thinking_may_be_asked_what_it_considers():
    question = "Did the assistant consider the user's budget?"
    assert wrong(question, focus=THINKING) == set() and wrong(question) == {"observable"}


def test_a_check_decides_a_compound_exactly():
    question = "Did the assistant look up the order and cancel it?"
    assert compound(question) and wrong(question, check=Called("cancel")) == set()


def test_a_name_in_backticks_is_a_subject():
    assert not trivial("Did the assistant call `search`?") and trivial("Did the assistant call it?")
