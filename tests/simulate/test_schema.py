"""Arguments against a tool's JSON Schema: a sentence the agent can act on, and nobody blamed for a broken schema."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.dialogue import Tool
from cm2.simulate.schema import ArgumentSchema


def violation(parameters, arguments) -> str:
    return ArgumentSchema(Tool("f", parameters=parameters)).violation(arguments)


OBJECT = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome"]},
        "days": {"type": "integer", "minimum": 1},
        "who": {
            "type": "array",
            "items": {"type": "object", "properties": {"age": {"type": "number"}}, "required": ["age"]},
        },
        "when": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "arguments", [{"city": "Rome"}, {"city": "Paris", "days": 2, "who": [{"age": 3.5}], "when": None}]
)
def test_arguments_that_fit_are_no_violation(arguments):
    assert violation(OBJECT, arguments) == ""


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({}, "missing argument 'city'"),
        ({"city": "Rome", "dayz": 1}, "unexpected argument 'dayz'"),
        ({"city": "Berlin"}, "argument 'city'"),
        ({"city": "Rome", "days": 0}, "argument 'days'"),
        ({"city": "Rome", "days": "2"}, "argument 'days'"),
        ({"city": "Rome", "days": True}, "argument 'days'"),
        ({"city": "Rome", "who": [{"age": 1}, {}]}, "missing argument 'who[1].age'"),
        ({"city": "Rome", "who": [{"age": "x"}]}, "argument 'who[0].age'"),
        ({"city": "Rome", "when": 3}, "argument 'when'"),
    ],
)
def test_a_violation_names_the_argument(arguments, told):
    assert told in violation(OBJECT, arguments)


def test_several_violations_are_told_at_once_but_not_all_of_many():
    told = violation(OBJECT, {"days": 0, "x": 1})
    assert "missing argument 'city'" in told and "'days'" in told and "'x'" in told
    many = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(50)}}
    assert violation(many, {f"p{i}": i for i in range(50)}).count("argument") == 3


def test_a_long_value_does_not_fill_the_context():
    assert len(violation(OBJECT, {"city": "x" * 10_000})) < 300


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "nonsense"},
        {"type": "object", "properties": 3},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": {"$ref": "#/definitions/absent"}}},
        {"properties": {"a": {"pattern": "(["}}},
    ],
)
def test_a_schema_that_is_itself_broken_validates_nothing(parameters):
    schema = ArgumentSchema(Tool("f", parameters=parameters))
    assert schema.broken and schema.violation({"a": 1}) == ""


def test_references_inside_the_schema_are_followed():
    parameters = {"properties": {"a": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "string"}}}
    assert violation(parameters, {"a": "x"}) == "" and "argument 'a'" in violation(parameters, {"a": 1})


def test_a_schema_that_refers_to_itself_ends():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}, "id": {"type": "integer"}}}
    assert violation(node, {"next": {"next": {"id": 1}}}) == ""
    assert "next.next.id" in violation(node, {"next": {"next": {"id": "x"}}})


types = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=3)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("ab"), v), max_leaves=4
)
schemas = st.fixed_dictionaries(
    {"type": types | st.lists(types, min_size=1, max_size=2, unique=True)},
    optional={
        "enum": st.lists(values, min_size=1, max_size=3),
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 2),
    },
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), schemas), st.dictionaries(st.sampled_from("abcd"), values))
def test_the_answer_is_that_of_the_reference_implementation(properties, arguments):
    parameters = {"type": "object", "properties": properties, "required": ["a"], "additionalProperties": False}
    expected = jsonschema.Draft202012Validator(parameters).is_valid(arguments)
    assert (violation(parameters, arguments) == "") == expected
