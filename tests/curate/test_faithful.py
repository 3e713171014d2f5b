"""Whether a shorter thinking section is faithful: what the step needs survives, nothing comes in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.curate.faithful import FAULTS, Known, fault
from cm2.curate.saying import capitals, figures, holds, identifiers, number, numbers, quotations, tokens
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse

TOOLS = [
    Tool("find_flights", "Finds flights between two cities", {"properties": {"cabin": {"enum": ["economy", "first"]}}}),
    Tool("book_flight", "Books a flight by its id"),
    Tool("cancel_booking", "Cancels a booking"),
    Tool("search", "Searches anything"),
]
ORIGINAL = (
    "Okay, so the user wants to fly from Rome to Oslo on 2025-03-14 and said that two adults will travel. Let me see. "
    'I have found flight AZ-418 for 1,240.50 euros and the cheaper flight "LH 77" which leaves at 06:45. Hmm, the user '
    "said nothing before 7 am, so LH 77 is out. I will use book_flight with the id AZ-418 for 2 passengers, and then "
    "tell them the price of 1,240.50 euros. I should not forget to mention the baggage, which is one bag of 23kg."
)
STEP = Step(
    thinking=ORIGINAL,
    calls=[ToolCall("book_flight", {"flight": "AZ-418", "passengers": 2, "date": "2025-03-14", "refundable": False})],
    responses=[ToolResponse('{"booking": "QX9Z1", "seat": "14C", "agent": "Lindqvist"}')],
)
REPLY = Step(thinking=ORIGINAL, reply="It costs 1,240.50 euros and you may take a bag of 23kg.")


def known(step: Step) -> Known:
    """What is known at the step: the opening of the dialogue, a search and its answer, and the step itself."""
    dialogue = Dialogue("d", tools=TOOLS, system="You are SkyDesk. Refund fee: 35.")
    found = Known(dialogue)
    found.user("I am Mia Berg, fly me to Oslo please, my card ends in 9911")
    search = Step(
        calls=[ToolCall("find_flights", {"from": "Rome"})],
        responses=[ToolResponse('{"carrier": "Norw\\u00e9gian", "gate": "B22"}')],
    )
    found.act(search)
    found.answer(search)
    found.act(step)
    return found


def say(text: str, step: Step = STEP) -> str:
    return fault(ORIGINAL, text, step, known(step))


GOOD = [
    "Rome to Oslo on 2025-03-14, two adults. LH 77 leaves at 06:45, too early. Use book_flight for AZ-418.",
    "LH 77 leaves before 7 am, so AZ-418 it is: book_flight, 2025-03-14, 2 passengers.",
    "Nothing before 7 am rules out “LH 77”; `book_flight` takes AZ-418, 2 people, 2025-03-14.",
    "book_flight: AZ-418, 2025-03-14, two. Price 1240.50. Mention one 23kg bag.",
    "1. LH 77 is out. 2. book_flight AZ-418 on 2025-03-14 for 2.",
    "Book AZ-418 with book_flight on 2025-03-14 for a 2-person party.",
    "Mia Berg travels with another adult, 2 in all: book_flight AZ-418 on 2025-03-14.",  # from the user's words
    "Booking AZ-418 by book_flight, date 2025-03-14, two adults; the refund fee is 35.",  # from the system prompt
    "After find_flights: book_flight AZ-418, 2025-03-14, two adults.",  # a tool that was called before
    "Not LH 77. Norwégian, gate B22, is no option. book_flight AZ-418, 2025-03-14, 2.",  # from an earlier answer
    "Economy will do: book_flight AZ-418, 2025-03-14, 2.",  # from the tool's schema
    "The user’s time limit leaves AZ-418: book_flight on 2025-03-14 for two.",
]
BAD = [
    ("", "empty"),
    ("  \n", "empty"),
    ("<think>book_flight AZ-418, 2025-03-14, 2</think>", "markup"),
    ("<|im_end|> book_flight AZ-418 2025-03-14 2", "markup"),
    ("| book_flight AZ-418, 2025-03-14, 2", "markup"),
    (ORIGINAL, "not_shorter"),
    (ORIGINAL + " Yes.", "not_shorter"),
    ("AZ-418 on 2025-03-14 for two adults.", "lost_tool"),
    ("Use book_flights for AZ-418 on 2025-03-14, two.", "lost_tool"),
    ("Use book_flight on 2025-03-14 for two adults.", "lost_value"),
    ("Use book_flight for AZ-4180 on 2025-03-14, two.", "lost_value"),
    ("Use book_flight for AZ-418 on 2025-03-1, two.", "lost_value"),
    ("Use book_flight for AZ-418 on 2025-03-14.", "lost_number"),
    ("Use book_flight for AZ-418 on 2025-03-14, two, then cancel_booking.", "new_tool"),
    ("Use book_flight, not `search`: AZ-418 on 2025-03-14, two.", "new_tool"),
    ("Use book_flight for AZ-418 on 2025-03-14, two, for 1,250 euros.", "new_number"),
    ("Use book_flight for AZ-418 on 2025-03-14, two adults, five bags.", "new_number"),
    ("Use book_flight for AZ-418 on 2025-03-14, two; back on 2025-03-15.", "new_id"),
    ("Use book_flight for AZ-418 on 2025-03-14, two; it leaves at 07:45.", "new_id"),
    ("Use book_flight for AZ-418 on 2025-03-14, two; the booking is QX9Z1.", "new_id"),  # from the future
    ("Use book_flight for AZ-418 on 2025-03-14, two, with seat_map.", "new_id"),
    ("Use book_flight for AZ-418 on 2025-03-14, two; write to mia@sky.example.", "new_id"),
    ("Use book_flight for AZ-418 on 2025-03-14, two: a bag of 30kg.", "new_id"),
    ('Use book_flight for AZ-418 on 2025-03-14, two: "the best fare".', "new_quote"),
    ("Use book_flight for AZ-418 on 2025-03-14, two, “window seat”.", "new_quote"),
    ("Use book_flight for AZ-418 on 2025-03-14, two, via Zürich.", "new_name"),
    ("Zürich is no way to go. Use book_flight for AZ-418 on 2025-03-14, two.", "new_name"),
    ("Use book_flight for AZ-418 on 2025-03-14, two; agent Lindqvist.", "new_name"),  # from the future
]


@pytest.mark.parametrize("text", GOOD)
def test_a_faithful_text_may_take_the_place(text):
    assert say(text) == ""


@pytest.mark.parametrize(("text", "why"), BAD)
def test_an_unfaithful_one_may_not(text, why):
    assert say(text) == why and why in FAULTS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Tell them: 1240.5 euros, one bag of 23kg.", ""),
        ("Tell them the price and the bag of 23kg.", "lost_number"),
        ("Tell them 1,240.50 euros and the bag.", "lost_value"),
        ("Tell them 1,240.50 euros and 23kg, not book_flight.", ""),  # the section itself names it
    ],
)
def test_what_a_reply_states_must_survive(text, why):
    assert say(text, REPLY) == why


def test_what_the_section_never_said_need_not_survive():
    step = Step(calls=[ToolCall("book_flight", {"flight": "ZZ-1", "passengers": 7, "note": "window seat please"})])
    assert fault("I shall do what I said I would do at once.", "As I said.", step, known(step)) == ""


def test_other_measures_of_length_are_obeyed():
    text = "Use book_flight for AZ-418 on 2025-03-14, two."
    assert fault(ORIGINAL, text, STEP, known(STEP), count=lambda each: 7) == "not_shorter"
    assert fault(ORIGINAL, text, STEP, known(STEP), count=lambda each: len(each.split())) == ""


def test_a_tool_whose_name_is_a_word_is_meant_only_where_it_is_marked_as_one():
    base = "Use book_flight for AZ-418 on 2025-03-14, two"
    assert say(f"{base}; no need to search on.") == ""
    for named in ("call search(x)", "use the search tool", "use 'search'"):
        assert say(f"{base}; {named}.") == "new_tool"


def test_answers_become_known_only_after_the_step():
    later = known(STEP)
    later.think(ORIGINAL)
    later.answer(STEP)
    text = "QX9Z1 is booked, seat 14C, by Lindqvist."
    reply = Step(reply="Done")
    assert fault("x" * 99, text, reply, known(STEP)) in ("new_id", "new_number")
    assert fault("x" * 99, text, reply, later) == ""


SENTENCES = [part for part in re.split(r"(?<=[.!?]) ", ORIGINAL) if part]


@given(st.lists(st.booleans(), min_size=len(SENTENCES), max_size=len(SENTENCES)))
def test_leaving_sentences_out_never_counts_as_bringing_something_in(chosen):
    text = " ".join(sentence for sentence, kept in zip(SENTENCES, chosen, strict=True) if kept)
    why = say(text)
    assert not why.startswith("new_")
    needed = ("book_flight", "AZ-418", "2025-03-14")
    if not why:
        assert all(value in text for value in needed) and len(text) < len(ORIGINAL)


@given(st.integers(3, 10**9).map(str), st.sampled_from(["{} euros", "for {}", "({})", "about {}.", "#{}"]))
def test_a_number_that_nobody_said_is_always_seen(figure, form):
    text = "Use book_flight for AZ-418 on 2025-03-14, two, " + form.format(figure)
    why = say(text)
    assert why == "" if figure in figures(ORIGINAL) | known(STEP).said.figures else why == "new_number"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1,240.50", "1240.5"),
        ("1240.5", "1240.5"),
        (1240.50, "1240.5"),
        (7, "7"),
        ("007", "7"),
        (-3, "3"),
        ("0", "0"),
        (1e21, "1000000000000000000000"),
        ("12a", None),
        ("1,24", None),
        ("", None),
        (True, None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_numbers_have_one_form(value, found):
    assert number(value) == found


def test_what_a_text_states_is_found():
    text = "1. Pay $1,200 by 5pm (see A-12), two of them; ask bob@x.org about `user_id` and 'big red' or getUser."
    assert numbers(text) == {"1200", "2"}
    assert figures(text) >= {"1200", "2", "5", "12"}
    assert set(identifiers(text)) == {"5pm", "A-12", "bob@x.org", "user_id", "getUser"}
    assert quotations(text) == ["user_id", "big red"]
    assert list(capitals("He met Ann. Bob's car; I saw it - The end")) == [
        ("He", True),
        ("Ann", False),
        ("Bob", True),
        ("The", True),
    ]
    assert tokens("don't 3.5, 1,000 a/b") == ["don't", "3.5", "1,000", "a/b"]
    assert holds("The  RED Car", "red car") and not holds("scarred cars", "red car") and not holds("a10", "1")
