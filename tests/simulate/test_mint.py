"""Made-up ids that their world recognises and no other."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.simulate.mint import Mint, is_id_name


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "ids",
        "order_id",
        "order_ids",
        "orderId",
        "userID",
        "uuid",
        "trace-id",
        "reference",
        "session_token",
        "sku",
        "pnr",
        "bookingReference",
    ],
)
def test_names_of_ids(name):
    assert is_id_name(name)


@pytest.mark.parametrize(
    "name", ["idea", "valid", "paid", "video", "candid", "name", "identity", "amount", "grid", "", "covid", "ID2"]
)
def test_names_of_other_things(name):
    assert not is_id_name(name)


@given(
    st.integers(0, 50), st.sampled_from(["mocha-7835", "A1", "ord_000123", "x", "", "9f2-44", 51313, 7, "2024-01-05"])
)
def test_a_minted_id_is_recognised_in_its_own_form(seed, like):
    mint = Mint(seed)
    made = mint.make(like, random.Random(seed))
    assert mint.made(made) and type(made) is type(like)
    if isinstance(like, str) and sum(char.isdigit() for char in like) >= 4:
        assert re.sub(r"\d", "0", made) == re.sub(r"\d", "0", like)


def test_minted_ids_of_one_example_differ():
    mint = Mint(0)
    assert len({mint.make("ORD-123456", random.Random(n)) for n in range(200)}) > 180


def test_an_id_that_somebody_invents_is_recognised_once_in_a_hundred_times():
    mint, rng = Mint(1), random.Random(0)
    hits = sum(mint.made(f"ord-{rng.randint(100000, 999999)}") for _ in range(20_000))
    assert 120 < hits < 290  # 200 expected


def test_another_worlds_ids_are_strangers():
    ours, theirs = Mint(1), Mint(2)
    made = [ours.make("ord-123456", random.Random(n)) for n in range(500)]
    assert all(ours.made(id) for id in made) and sum(theirs.made(id) for id in made) < 25


@pytest.mark.parametrize("value", [None, True, 3.5, [], {}, "", "abc", "12", 7])
def test_what_is_no_id_was_not_minted(value):
    assert not Mint(0).made(value)
