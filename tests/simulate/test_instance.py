"""Values that fit a schema: for whatever schema there is, checked by another validator."""

from __future__ import annotations

import random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.simulate.instance import instance

NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}
SCHEMAS = [
    {"properties": {"a": {"$ref": "#/$defs/x"}}, "required": ["a"], "$defs": {"x": {"enum": [3, "y"]}}},
    {"oneOf": [{"type": "string", "minLength": 30}, {"type": "integer", "minimum": 5, "maximum": 5}]},
    {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 4, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "minItems": 2},
    {"type": "array", "contains": {"const": "x"}},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "integer", "multipleOf": 7, "minimum": 10},
    {"type": "integer", "maximum": -3},
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "boolean"}},
    {"type": ["string", "null"], "not": {"type": "null"}},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "string"}}, "required": ["a"],
     "if": {"properties": {"a": {"const": True}}}, "then": {"required": ["b"]}},
    {"type": "string", "pattern": "^\\d{4}-\\d{2}$"},
    {"type": "string", "pattern": "^0x[a-fA-F0-9]{40}$"},
    {"type": "string", "pattern": "^\\d+$", "minLength": 8, "maxLength": 8},
    {"type": "string", "pattern": "^([01]\\d|2[0-3]):([0-5]\\d)$"},
    {"type": "string", "pattern": "^[^0-9\\s]+(abc|de?f)*.$"},
    {"properties": {"a": {"minimum": 3}}, "required": ["a"]},
    {"const": {"deep": [1]}},
    NODE,
    {},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_value_fits_its_schema(schema):
    for seed in range(20):
        value = instance(schema, random.Random(seed))
        assert jsonschema.Draft202012Validator(schema).is_valid(value), value


def test_the_same_seed_draws_the_same_value():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    }
    assert instance(schema, random.Random(3)) == instance(schema, random.Random(3))
    assert len({str(instance(schema, random.Random(seed))) for seed in range(20)}) > 5


@pytest.mark.parametrize("name", ["date", "date-time", "email", "uri", "ipv4", "ipv6", "uuid"])
def test_formats_are_kept(name):
    schema = {"type": "string", "format": name}
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    assert all(checker.is_valid(instance(schema, random.Random(seed))) for seed in range(20))


def test_what_nothing_can_fit_is_said():
    with pytest.raises(ValueError, match="no value"):
        instance({"type": "integer", "minimum": 3, "maximum": 1}, random.Random(0))


kinds = st.sampled_from(["string", "integer", "number", "boolean", "null"])
scalars = st.fixed_dictionaries(
    {"type": kinds},
    optional={"minimum": st.integers(-5, 5), "minLength": st.integers(0, 12), "enum": st.just([1, "a", None])},
)
schemas = st.recursive(
    scalars,
    lambda inner: (
        st.builds(lambda i, n: {"type": "array", "items": i, "minItems": n}, inner, st.integers(0, 3))
        | st.builds(
            lambda p: {"type": "object", "properties": p, "required": sorted(p)[:2], "additionalProperties": False},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        )
        | st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(schemas, st.integers(0, 5))
def test_any_schema_that_can_be_met_is_met(schema, seed):
    validator = jsonschema.Draft202012Validator(schema)
    try:
        value = instance(schema, random.Random(seed))
    except ValueError:
        return  # an enum whose values its type refuses
    assert validator.is_valid(value)
