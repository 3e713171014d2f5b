"""JSON Schema: what an answer must look like, checked here whatever the server promises.

Validators are those of `cm2.formats.schema`; what is wrong is told in a few short sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from cm2.errors import CM2Error
from cm2.formats.jsonlines import encode
from cm2.formats.schema import BROKEN, compile_schema

MOST, LENGTH = 5, 200
"""How many violations are told, and characters of each."""
_STRICT = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$defs", "$ref"),
        *("description", "title", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("pattern", "format", "minItems", "maxItems"),
    }
)


def violations(schema: dict[str, Any], value: Any) -> str:
    """What is wrong with a value, in a few sentences; "" where it fits.

    Raises:
        CM2Error: the schema itself is broken, which is a bug of who asks.
    """
    try:
        validator = _validator(encode(schema))
    except BROKEN as error:
        raise CM2Error(f"the schema of an answer is broken: {str(error)[:LENGTH]}") from error
    try:
        found = list(_some(validator, value))
    except (ValueError, OverflowError, RecursionError) as error:
        return f"the answer cannot be checked: {str(error)[:LENGTH]}"
    return "; ".join(found)


def _some(validator: Any, value: Any) -> Iterator[str]:
    for number, error in enumerate(validator.iter_errors(value)):
        if number == MOST:
            yield "and more"
            return
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        message = error.message if len(error.message) <= LENGTH else f"{error.message[: LENGTH - 1]}…"
        yield f"at {text.removeprefix('.')[:LENGTH]}: {message}" if text else message


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    return compile_schema(orjson.loads(schema))


def kind_of(schema: dict[str, Any]) -> str:
    """The type of the whole answer: object, where the schema does not say otherwise."""
    kind = schema.get("type", "object")
    return kind if isinstance(kind, str) else "any"


def is_strict(schema: Any) -> bool:
    """Whether the schema is of the kind that strict modes ask for: objects closed, all their properties required."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if not set(schema) <= _STRICT:
        return False
    if schema.get("type") == "object" or "properties" in schema:
        names = schema.get("properties")
        closed = schema.get("additionalProperties") is False and isinstance(names, dict)
        if not closed or set(schema.get("required", ())) != set(names or ()):
            return False
    named = [*(schema.get("properties") or {}).values(), *(schema.get("$defs") or {}).values()]
    return is_strict([*named, schema.get("items"), *schema.get("anyOf", ())])


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The field of a request body that asks a server for JSON of this schema."""
    asked: dict[str, Any] = {"name": "answer", "schema": msgspec.to_builtins(schema)}
    if is_strict(schema):
        asked["strict"] = True
    return {"type": "json_schema", "json_schema": asked}
