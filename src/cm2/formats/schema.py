"""JSON Schemas of tools: compiled once, never fetched from anywhere, with bounded regular expressions.

Whoever asks whether arguments fit a tool (the rules, the simulated world) asks a validator made here, so that all of
them mean the same by it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

BROKEN = (ValueError, jsonschema_rs.ReferencingError)
"""What `compile_schema` raises for a schema that is none, or that points to another document."""
KEPT = 4096
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1_000_000)


def compile_schema(schema: Any) -> Any:
    """A validator (`is_valid`, `iter_errors`) of a schema: an object, or true or false.

    Raises:
        ValueError, jsonschema_rs.ReferencingError: see `BROKEN`.
    """
    return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)


def is_schema(value: Any) -> bool:
    """Whether a value is a schema as the meta-schema sees it: all but references, dialects and regular expressions."""
    return jsonschema_rs.meta.is_valid(value)


@lru_cache(maxsize=KEPT)
def validator_of(text: bytes) -> Any:
    """The validator of a schema given as JSON text, None where it does not compile. Kept by the text."""
    try:
        return compile_schema(orjson.loads(text))
    except BROKEN:
        return None
