"""The schema of an answer: checked here, without fetching anything, and told in few words."""

from __future__ import annotations

import time

import pytest

from cm2.errors import CM2Error
from cm2.llm.schema import is_strict, violations


def test_violations_are_few_and_short():
    schema = {"type": "array", "items": {"type": "integer"}}
    told = violations(schema, ["x" * 10_000] * 1000)
    assert told.count("at [") == 5 and told.endswith("and more") and len(told) < 1500
    assert violations(schema, [1, 2]) == ""


def test_a_reference_to_elsewhere_is_never_fetched():
    with pytest.raises(CM2Error, match="schema of an answer is broken"):
        violations({"$ref": "http://127.0.0.1:9/schema.json"}, 1)


def test_a_broken_schema_is_a_bug_that_is_told_and_no_failure_of_the_model():
    with pytest.raises(CM2Error, match="schema of an answer is broken"):
        violations({"type": "strnig"}, 1)


def test_a_hostile_pattern_takes_bounded_time():
    started = time.monotonic()
    assert violations({"type": "string", "pattern": "^(a|a)*(?=b)c$"}, "a" * 5000 + "!") != ""
    assert time.monotonic() - started < 10


def test_integers_beyond_64_bits_are_no_crash():
    assert isinstance(violations({"type": "integer", "maximum": 10}, 10**40), str)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
        ({"type": "object"}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"type": "array", "items": {"enum": ["a"]}}, True),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, False),
        ({"oneOf": [{"type": "null"}]}, False),
        ({"$defs": {"x": {"type": "object"}}, "type": "string"}, False),
    ],
)
def test_what_strict_modes_take(schema, strict):
    assert is_strict(schema) == strict
