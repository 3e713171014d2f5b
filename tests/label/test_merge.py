"""Merging: paraphrases of one duty become one item, different duties stay apart."""

from __future__ import annotations

import msgspec
import pytest
from label_builders import call, say, talk, tool

from cm2.check import Called, Equals, Response
from cm2.checklist import Evidence, Item
from cm2.label.draft import Draft
from cm2.label.merge import ALIKE, merged, similarity
from cm2.label.reference import ReferenceLabeler
from cm2.worlds import MakeConfig, make

CALLS, REPLY, ANSWER = "assistant.tool_calls", "assistant.content.user_visible_reply", "tool.content"
DIALOGUE = talk(
    ("Book it.", [call("book", {"code": "B-9", "total": 360}, hotel="H-7"), say("Booked. Code B-9, total 360.")]),
    tools=[tool("book", ("hotel",), hotel="string")],
)
PARAPHRASES = [
    ("Does the reply state the total price (360)?", "Did the assistant tell the user the total price of 360?"),
    ("Did the assistant call `search_hotels` with city “Cairo”?", "Was `search_hotels` called for the city “Cairo”?"),
    ("Did `book_hotel` return a confirmation code?", "Does `book_hotel` return the confirmation code?"),
    ("Does the reply give the departure time “16:05” of the flight?", "Is the flight's departure time “16:05” stated?"),
    ("Did the assistant ask for the user's date of birth?", "Did the assistant request the user's date of birth?"),
    ("Does the reply warn about the cancellation fee?", "Does the reply warn the user about cancellation fees?"),
    ("Did the assistant confirm the booking of the room?", "Did the assistant confirm that the room is booked?"),
    ("Does the reply mention no fee?", "Is a fee not mentioned by the reply?"),
    ("Does the reply state the total price of the stay (360)?", "Does the reply state the total price (360)?"),
]
DIFFERENT = [
    ("Does the reply state the total price (360)?", "Does the reply state the total price (380)?"),
    ("Does the reply state the departure time of “16:05”?", "Does the reply state the arrival time of “16:05”?"),
    ("Did the assistant call `search_hotels` with “Cairo”?", "Did the assistant call `book_hotel` with “Cairo”?"),
    ("Does the reply state the confirmation code?", "Does the reply state the booking code?"),
    ("Did the assistant ask for the date of birth?", "Did the assistant ask for the date of departure?"),
    ("Does the reply state the price of the room?", "Does the reply state the price of the room per night in euros?"),
    ("Does the reply say that a room is free?", "Does the reply say that no room is free?"),
    ("Does the reply say that it is refundable?", "Does the reply say that it isn't refundable?"),
    ("Was `look` called before `book`?", "Was `book` called before `look`?"),
    ("Does the reply name the hotel “Park Inn”?", "Does the reply name the manager of the hotel “Park Inn”?"),
    ("Did the assistant call `find` with city “Rome” and stars 4?", "Did the assistant call `find` with city “Rome”?"),
]


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_paraphrases_are_alike(one, other):
    assert similarity(one, other) == similarity(other, one) >= 0.66 > ALIKE


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_duties_are_not(one, other):
    assert similarity(one, other) == similarity(other, one) <= 0.5 < ALIKE


def draft(id, question, weight=0.25, focus=REPLY, check=None, evidence="total 360", code=False, **more) -> Draft:
    step = 0 if focus != REPLY else 1
    return Draft(
        id,
        given={},
        code=code,
        item=Item(
            id, focus, question, "passes", weight, [Evidence(0, step, focus, evidence)] if evidence else [],
            check=check, **more,
        ),
    )  # fmt: skip


TOTAL, AGAIN = "Does the reply state the total price?", "Is the total price told to the user?"


def test_of_two_paraphrases_one_stays_with_all_that_both_had():
    one = draft("C0", TOTAL, 0.25, failure_examples=["a"])
    two = draft("C1", AGAIN, 0.5, evidence="Code B-9, total", required_for_next_turn=True, failure_examples=["a", "b"])
    kept, count = merged([one, two], DIALOGUE)
    assert count == 1 and [each.id for each in kept] == ["C0"]
    item = kept[0].item
    assert item.question == TOTAL and item.weight == 0.75 and item.required_for_next_turn
    assert [each.snippet for each in item.evidence] == ["total 360", "Code B-9, total"]
    assert item.failure_examples == ["a", "b"]


def test_the_one_with_a_check_stays():
    kept, count = merged([draft("C0", TOTAL), draft("C1", AGAIN, check=Called("book"))], DIALOGUE)
    assert count == 1 and kept[0].id == "C1" and kept[0].item.weight == 0.5


def test_the_same_check_is_the_same_duty_whatever_the_words():
    check = Called("book", {"hotel": Equals("H-7")})
    one = draft("C0", "Was the Park Inn booked?", focus=CALLS, check=check, evidence="H-7")
    two = draft("C1", "Is there a reservation?", focus=CALLS, check=check, evidence="book(")
    assert merged([one, two], DIALOGUE)[1] == 1


@pytest.mark.parametrize(
    "other",
    [
        draft("C1", AGAIN, evidence="Code B-9"),  # rests on other words
        draft("C1", AGAIN, evidence=""),  # rests on nothing
        draft("C1", AGAIN, focus=ANSWER, evidence='"total": 360'),  # looks elsewhere
        draft("C1", "Is the code told to the user?"),  # asks something else
    ],
)
def test_what_differs_in_anything_but_words_stays(other):
    assert merged([draft("C0", TOTAL), other], DIALOGUE)[1] == 0


def test_two_different_checks_are_two_duties():
    one, two = draft("C0", TOTAL, check=Called("book")), draft("C1", AGAIN, check=Called("book", answered=True))
    assert merged([one, two], DIALOGUE)[1] == 0


def test_who_depended_on_the_other_depends_on_the_one_that_stays():
    answer = Response("book", "total")
    drafts = [
        draft("C0", "Did `book` return a total?", focus=ANSWER, check=answer, evidence="360"),
        draft("C1", "Is there a total in the answer?", focus=ANSWER, check=answer, evidence="total"),
        draft("C2", TOTAL, depends_on=["C0", "C1"]),
        draft("C3", "Is the code told?", depends_on=["C1"], evidence="B-9"),
    ]
    kept, count = merged(drafts, DIALOGUE)
    assert count == 1 and {each.id: each.item.depends_on for each in kept} == {"C0": [], "C2": ["C0"], "C3": ["C0"]}


def test_dependencies_are_joined_where_the_checks_are_the_same():
    a = draft("C0", "Did `book` return a total?", focus=ANSWER, check=Response("book", "total"), evidence="360")
    b = draft("C1", "Did `book` return a code?", focus=ANSWER, check=Response("book", "code"), evidence="B-9")
    one, two = draft("C2", TOTAL, depends_on=["C0"]), draft("C3", AGAIN, depends_on=["C1"])
    kept, _ = merged([a, b, one, two], DIALOGUE)
    assert kept[2].item.depends_on == ["C0", "C1"]
    one.item.check = Called("book")
    kept, _ = merged([a, b, one, two], DIALOGUE)
    assert kept[2].item.depends_on == ["C0"], "lint has not seen the check after what the other depends on"


def test_no_merge_makes_a_circle():
    one = draft("C0", "Did `book` return the total?", focus=ANSWER, evidence="360")
    middle = draft("C1", "Did `book` return the code?", focus=ANSWER, evidence="B-9", depends_on=["C0"])
    two = draft("C2", "Does `book` return a total?", focus=ANSWER, evidence="total", depends_on=["C1"])
    kept, count = merged([one, middle, two], DIALOGUE)
    assert count == 0 and len(kept) == 3


def test_an_item_of_the_code_stays_as_it_is():
    code = draft("C0", TOTAL, 0.25, code=True)
    before = code.item
    kept, count = merged([code, draft("C1", AGAIN, 9.0, required_for_next_turn=True)], DIALOGUE)
    assert count == 1 and kept == [code] and kept[0].item == before


def test_items_of_the_code_are_never_merged_with_each_other():
    assert merged([draft("C0", TOTAL, code=True), draft("C1", AGAIN, code=True)], DIALOGUE)[1] == 0


def test_merging_many_of_one_keeps_the_sum_of_their_weights():
    drafts = [draft(f"C{n}", (TOTAL, AGAIN)[n % 2], 1 / 16) for n in range(16)]
    kept, count = merged(drafts, DIALOGUE)
    assert count == 15 and kept[0].item.weight == 1.0


def test_no_two_duties_that_code_tells_apart_are_merged_by_their_words():
    """The reference labeller's items are distinct by their checks; without these, words and evidence must do."""
    count = 0
    for dialogue in make(MakeConfig(count=24, seed=7)):
        for checklist in ReferenceLabeler().label(dialogue).task.checklists:
            plain = [msgspec.structs.replace(item, check=None, depends_on=[]) for item in checklist.items]
            drafts = [Draft(item.id, item=item) for item in plain]
            assert merged(drafts, dialogue) == (drafts, 0)
            count += len(drafts)
    assert count > 200
