"""Paths: the record that is meant is found again in another response."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.judge.values import search
from cm2.label.paths import chosen, exact, finds, is_map_key, scalars, wide

HOTELS = {
    "hotels": [
        {"id": "H1", "name": "Ritz", "price": 120, "rating": 4.5, "pool": True},
        {"id": "H2", "name": "Sol", "price": 80, "rating": 3.9, "pool": False},
        {"id": "H3", "name": "Mar", "price": 95, "rating": 4.8, "pool": False},
    ]
}


def names(*named: Any):
    return lambda value, key: value in named or (value is True and key in named)


def path_to(keys: tuple, wish: str = "", *named: Any, root: Any = HOTELS) -> tuple[str, bool]:
    return chosen(root, keys, names(*named), wish)


@pytest.mark.parametrize(
    ("keys", "wish", "named", "path", "sure"),
    [
        (("hotels", 1, "id"), "", (), "hotels[*].id", False),
        (("hotels", 1, "id"), "", ("Sol",), 'hotels[?name==`"Sol"`].id', True),
        (("hotels", 0, "id"), "", ("pool",), "hotels[?pool==`true`].id", True),
        (("hotels", 1, "id"), "the cheapest one", (), "min_by(hotels, &price).id", True),
        (("hotels", 2, "id"), "the best one", (), "max_by(hotels, &rating).id", True),
        (("hotels", 0, "id"), "the most expensive", (), "max_by(hotels, &price).id", True),
        (("hotels", 1, "id"), "something under $90", (), "hotels[?price<=`90`].id", True),
        (("hotels", 0, "id"), "at least $100 a night", (), "hotels[?price>=`100`].id", True),
        (("hotels", 2, "id"), "the cheapest", (), "hotels[*].id", False),
        (("hotels", 1, "id"), "not over 100, the cheapest", (), "min_by(hotels[?price<=`100`], &price).id", True),
    ],
)
def test_the_record_is_chosen_by_what_the_user_asked_for(keys, wish, named, path, sure):
    assert path_to(keys, wish, *named) == (path, sure)


def test_a_path_finds_its_value_in_another_world():
    path, _ = path_to(("hotels", 1, "id"), "the cheapest one")
    other = {"hotels": [{"id": "X9", "price": 310}, {"id": "X8", "price": 299}]}
    assert search(path, other) == "X8" and finds(path, other, "X8") and not finds(path, other, "X9")


def test_a_limit_reads_numbers_that_the_tool_wrote_as_text():
    root = {"rows": [{"id": "a", "price": "40"}, {"id": "b", "price": "69"}]}
    path, sure = path_to(("rows", 0, "id"), "below 50", root=root)
    assert sure and search(path, root) == ["a"] and search(path, {"rows": [{"id": "c", "price": "49.5"}]}) == ["c"]


def test_a_list_of_one_record_needs_no_choice():
    assert path_to(("rows", 0, "id"), root={"rows": [{"id": 7}]}) == ("rows[*].id", True)


def test_an_id_used_as_a_key_is_data_and_not_a_name():
    root = {"cards": {"card_4421": {"brand": "visa"}, "card_9912": {"brand": "amex"}}}
    assert is_map_key("card_4421") and not is_map_key("address1")
    assert wide(("cards", "card_4421", "brand")) == "cards.*.brand"
    assert search(wide(("cards", "card_4421", "brand")), root) == ["visa", "amex"]


def test_a_key_that_is_no_identifier_is_quoted():
    root = {"check in": {"a-b": 3}}
    assert search(exact(("check in", "a-b")), root) == 3


def test_lists_in_lists_give_one_flat_list():
    root = [[{"n": 1}, {"n": 2}], [{"n": 3}]]
    assert search(wide((0, 1, "n")), root) == [1, 2, 3]


KEY = st.text("abcdefgh_-0123456789 ", min_size=1, max_size=6)
JSON = st.recursive(
    st.booleans() | st.integers(-99, 99) | st.text("abc1 ", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_scalar_is_found_by_its_exact_its_wide_and_its_chosen_path(root):
    for leaf in scalars(root):
        if not leaf.keys:
            continue
        path, _ = chosen(root, leaf.keys, lambda value, key: False, "")
        assert finds(wide(leaf.keys), root, leaf.value)
        assert finds(path, root, leaf.value)
        if not any(isinstance(key, str) and is_map_key(key) for key in leaf.keys):
            assert finds(exact(leaf.keys), root, leaf.value)
