"""When two JSON values are the same."""

from __future__ import annotations

import math

import pytest

from cm2.dialogue import ToolCall
from cm2.formats.wire import same


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 1), ({"a": [1, None]}, {"a": [1, None]}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (math.nan, math.nan)],
)
def test_equal_values_are_the_same_whatever_the_order_of_keys(a, b):
    assert same(a, b) and same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (0, None),
        ("1", 1),
        ([1], [1, 2]),
        ([1, 2], [2, 1]),
        ({}, []),
        ({"a": 1}, {"b": 1}),
    ],
)
def test_values_that_python_calls_equal_may_differ(a, b):
    assert not same(a, b) and not same([{"x": a}], [{"x": b}])


def test_nouns_are_compared_field_by_field():
    assert same(ToolCall("f", {"a": 1}), ToolCall("f", {"a": 1}))
    assert not same(ToolCall("f", {"a": 1}), ToolCall("f", {"a": True}))


def test_depth_is_no_limit():
    def nested() -> list:
        value: list = []
        for _ in range(900):
            value = [value]
        return value

    assert same(nested(), nested())
