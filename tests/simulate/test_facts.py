"""The same fact is the same wherever it stands."""

from __future__ import annotations

from cm2.dialogue import ToolCall
from cm2.simulate.facts import facts_of, new_names, owners, renamed, told_by

SEARCH = ToolCall("search", {"city": "Rome"})


def test_a_row_and_the_details_say_the_same_of_a_thing():
    row = facts_of(SEARCH, {"hotels": [{"hotel_id": "H2", "price": 9}, {"hotel_id": "H1", "price": 7}]})
    details = facts_of(ToolCall("get_hotel", {"hotel_id": "H1"}), {"price": 7, "pool": {"open": True}})
    assert row["H1", "price"] == details["H1", "price"] == 7 and details["H1", "pool.open"] is True
    assert owners(row) == {"H1", "H2"}


def test_rows_without_ids_belong_to_the_call():
    facts = facts_of(SEARCH, [{"n": 1}, {"n": 2}])
    assert sorted(facts.values()) == [1, 2] and owners(facts) == {'search {"city":"Rome"}'}
    assert owners(facts_of(ToolCall("search", {"city": "Bonn"}), [{"n": 1}])) != owners(facts)


def test_a_write_tells_its_arguments_of_what_it_made_or_named():
    book = ToolCall("book", {"hotel_id": "H1", "nights": 2, "guests": ["Ann"]})
    assert told_by(book, {"booking_id": "B1", "total": 14}) == {("B1", "hotel_id"): "H1", ("B1", "nights"): 2}
    assert told_by(ToolCall("update", {"booking_id": "B1", "nights": 3}), {"ok": True})["B1", "nights"] == 3


def test_only_new_codes_get_another_name():
    names: dict[str, str] = {}
    true = {"booking_id": "B77", "hotel_id": "H1", "total": 9, "name": "Ann", "rows": [{"code": "X1"}]}
    told = {"booking_id": "Q12", "hotel_id": "H9", "total": 8, "name": "Bob", "rows": [{"code": "Y2"}]}
    new_names(true, told, lambda text: text != "H1", names)
    assert names == {"B77": "Q12", "X1": "Y2"}
    assert renamed({"booking_id": "B77", "note": "B77 is paid", "rows": ["X1", 3]}, names) == {
        "booking_id": "Q12",
        "note": "B77 is paid",
        "rows": ["Y2", 3],
    }
