"""Validators of tool schemas: shared, never fetching, bounded; broken schemas are told."""

from __future__ import annotations

import time

import pytest

from cm2.formats.schema import BROKEN, compile_schema, is_schema, validator_of


def test_a_schema_validates_arguments():
    validator = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    assert validator.is_valid({"n": 1}) and not validator.is_valid({"n": "1"}) and not validator.is_valid({})
    assert [error.kind.name for error in validator.iter_errors({})] == ["required"]


@pytest.mark.parametrize(
    "broken",
    [{"type": "nonsense"}, {"$ref": "https://example.org/other.json"}, {"$ref": "#/nowhere"}, {"pattern": "("}],
)
def test_a_broken_or_remote_schema_is_told_and_nothing_is_fetched(broken):
    start = time.monotonic()
    with pytest.raises(BROKEN):
        compile_schema(broken)
    assert time.monotonic() - start < 5


def test_a_pattern_cannot_run_away():
    validator = compile_schema({"type": "string", "pattern": "^(a+)+$"})
    start = time.monotonic()
    assert not validator.is_valid("a" * 40 + "!")
    assert time.monotonic() - start < 5


def test_validators_are_kept_by_the_text():
    assert validator_of(b'{"type":"object"}') is validator_of(b'{"type":"object"}')
    assert validator_of(b'{"type":"nonsense"}') is None and validator_of(b"{") is None
    assert is_schema({"type": "object"}) and is_schema(True) and not is_schema({"type": 3})
