"""Instance: a value that fits a JSON Schema, drawn by a seed.

It serves where something must be called or answered and nobody recorded how: trying out tools, and answers of tools
that only declare what they return. Values are plain and short; optional properties are left out but now and then. What
was drawn is validated, and drawn again where the parts do not go together (`not`, `if`, `contains`).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any, TypeGuard

from cm2.dialogue import Tool
from cm2.simulate.schema import ArgumentSchema

_ATTEMPTS = 24
_DEEPEST = 12
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper")
_FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date": lambda rng: f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
    "time": lambda rng: f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:00Z",
    "date-time": lambda rng: f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T{rng.randint(0, 23):02d}:00:00Z",
    "email": lambda rng: f"{rng.choice(_WORDS)}@example.com",
    "uri": lambda rng: f"https://example.com/{rng.choice(_WORDS)}",
    "url": lambda rng: f"https://example.com/{rng.choice(_WORDS)}",
    "hostname": lambda rng: f"{rng.choice(_WORDS)}.example.com",
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9999):x}",
    "uuid": lambda rng: f"{rng.getrandbits(32):08x}-0000-4000-8000-{rng.getrandbits(48):012x}",
}


def instance(schema: Any, rng: random.Random) -> Any:
    """A value that fits the schema.

    Raises:
        ValueError: none was found; where the schema itself is broken, anything fits.
    """
    schema = schema if isinstance(schema, dict) else {}
    check = ArgumentSchema(Tool("", parameters=schema))
    for attempt in range(_ATTEMPTS):
        # A sparse value first, then one with more of the optional parts.
        value = _Draw(schema, rng, optional=0.15 * (attempt % 6)).value(schema, _DEEPEST)
        if not check.violation(value):
            return value
    raise ValueError(f"no value was found that fits {str(schema)[:200]}")


class _Draw:
    """Draws once. `optional` is the share of optional properties that are filled in."""

    def __init__(self, root: dict[str, Any], rng: random.Random, optional: float):
        self.root, self.rng, self.optional = root, rng, optional

    def value(self, schema: Any, left: int) -> Any:
        schema = self._whole(schema, left)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self.rng.choice(schema["enum"])
        kind = self._kind(schema)
        if kind == "object":
            return self._object(schema, left - 1)
        if kind == "array":
            return self._array(schema, left - 1)
        if kind in ("integer", "number"):
            return self._number(schema, kind)
        return self._text(schema) if kind == "string" else self.rng.random() < 0.5 if kind == "boolean" else None

    def _whole(self, given: Any, left: int) -> dict[str, Any]:
        """The schema with its references followed and one alternative chosen."""
        schema: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
        for _ in range(left):
            parts: list[Any] = []
            if isinstance(schema.get("$ref"), str):
                parts.append(self._at(schema.pop("$ref")))
            for name in ("anyOf", "oneOf"):
                choices = schema.pop(name, None)
                if isinstance(choices, list) and choices:
                    parts.append(choices[0] if left < _DEEPEST // 2 else self.rng.choice(choices))
            parts += [part for part in schema.pop("allOf", None) or [] if isinstance(part, dict)]
            if not parts:
                return schema
            for part in parts:
                schema = _merged(schema, part if isinstance(part, dict) else {})
        return schema

    def _at(self, pointer: str) -> Any:
        found: Any = self.root
        for part in pointer.removeprefix("#").strip("/").split("/") if pointer not in ("#", "") else ():
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found

    def _kind(self, schema: dict[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            kind = self.rng.choice(kind)
        if isinstance(kind, str):
            return kind
        for name, hint in (("properties", "object"), ("required", "object"), ("items", "array"), ("pattern", "string")):
            if name in schema:
                return hint
        return "integer" if {"minimum", "maximum", "multipleOf"} & schema.keys() else "string"

    def _object(self, schema: dict[str, Any], left: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        found = {name: self.value(properties.get(name, {}), left) for name in required}
        for name, inner in properties.items():
            if name not in found and left > 0 and self.rng.random() < self.optional:
                found[name] = self.value(inner, left)
        rest = schema.get("additionalProperties")
        given = schema.get("minProperties")
        least = given if isinstance(given, int) else 0
        names = [*properties, *(f"{word}{n}" for n in range(9) for word in _WORDS)]
        for name in names:
            if len(found) >= least:
                break
            if name not in found:
                found[name] = self.value(properties.get(name, rest), left)
        return found

    def _array(self, schema: dict[str, Any], left: int) -> list[Any]:
        least, most = schema.get("minItems"), schema.get("maxItems")
        least = least if isinstance(least, int) else 1 if left > 0 else 0
        count = min(least, most) if isinstance(most, int) else least
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        inner = [self.value(one, left) for one in first]
        items = schema.get("contains", schema.get("items"))
        tries = 0
        while len(inner) < count and tries < count + 40:
            tries += 1
            one = self.value(items[0] if isinstance(items, list) and items else items, left)
            if schema.get("uniqueItems") is not True or one not in inner:
                inner.append(one)
        return inner

    def _number(self, schema: dict[str, Any], kind: str) -> Any:
        step = 1.0 if kind == "integer" else 0.5
        low, high = _bound(schema, "inimum", step), _bound(schema, "aximum", -step)
        if low is None:
            low = 1.0 if high is None else min(1.0, high)
        if high is None:
            high = low + 9
        factor = schema.get("multipleOf")
        if _is_number(factor) and factor > 0:
            value = factor * math.ceil(low / factor)
            return int(value) if kind == "integer" else value
        if kind == "integer":
            return self.rng.randint(math.ceil(low), max(math.floor(high), math.ceil(low)))
        return low if high <= low else round(min(high, max(low, self.rng.uniform(low, high))), 2)

    def _text(self, schema: dict[str, Any]) -> str:
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            return _matching(pattern, self.rng, schema.get("minLength"))
        make = _FORMATS.get(schema.get("format") or "")
        text = make(self.rng) if make else self.rng.choice(_WORDS)
        least, most = schema.get("minLength"), schema.get("maxLength")
        while isinstance(least, int) and len(text) < min(least, 100_000):
            text += f" {self.rng.choice(_WORDS)}"
        return text[:most] if isinstance(most, int) else text


def _merged(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Both schemas at once, as far as they are about different things."""
    found = schema | part
    for name in ("properties", "required"):
        old, new = schema.get(name), part.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found[name] = {
                key: _merged(old[key], new[key])
                if isinstance(old.get(key), dict) and isinstance(new.get(key), dict)
                else new.get(key, old.get(key))
                for key in [*old, *(key for key in new if key not in old)]
            }
        elif isinstance(old, list) and isinstance(new, list):
            found[name] = [*old, *(key for key in new if key not in old)]
    return found


def _bound(schema: dict[str, Any], name: str, step: float) -> float | None:
    """The lowest or highest number allowed: of `minimum` and `exclusiveMinimum`, a number or (draft 4) a flag."""
    inner, outer = schema.get(f"m{name}"), schema.get(f"exclusiveM{name}")
    if _is_number(outer):
        return float(outer) + step
    if not _is_number(inner):
        return None
    return float(inner) + (step if outer is True else 0)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _matching(pattern: str, rng: random.Random, least: Any = None) -> str:
    """A text that matches a pattern of the plain kind that schemas have; the pattern's own text where it is another."""
    try:
        from re import _parser  # type: ignore[attr-defined]  # the only parser of Python's patterns that there is

        length = rng.choice((None, min(least, 1000))) if isinstance(least, int) else None
        return _written(_parser.parse(pattern), rng, length)
    except (ImportError, re.error, KeyError, ValueError, OverflowError):
        return pattern


def _written(parts: Any, rng: random.Random, length: int | None) -> str:
    """One text for the parts of a parsed pattern; repetitions are short, or `length` where they may."""
    text = ""
    for op, value in parts:
        name = str(op)
        if name == "LITERAL":
            text += chr(value)
        elif name == "NOT_LITERAL":
            text += "a" if value != ord("a") else "b"
        elif name == "ANY":
            text += rng.choice("abcxyz")
        elif name == "IN":
            text += _member(value, rng)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, inner = value
            high = min(int(high), low + 3 if length is None else max(low, length))
            for _ in range(rng.randint(low, high) if length is None else high):
                text += _written(inner, rng, length)
        elif name == "SUBPATTERN":
            text += _written(value[3], rng, length)
        elif name == "BRANCH":
            text += _written(rng.choice(value[1]), rng, length)
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            raise ValueError(name)
    return text


def _member(parts: Any, rng: random.Random) -> str:
    if str(parts[0][0]) == "NEGATE":
        held = [chr(code) for code in range(33, 127) if not any(_holds(part, code) for part in parts[1:])]
        return rng.choice(held)
    op, value = rng.choice(parts)
    if str(op) == "RANGE":
        return chr(rng.randint(*value))
    return chr(value) if str(op) == "LITERAL" else _CATEGORIES[str(value)]


_CATEGORIES = {
    "CATEGORY_DIGIT": "7",
    "CATEGORY_WORD": "a",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_NOT_SPACE": "a",
    "CATEGORY_NOT_WORD": "-",
}


def _holds(part: Any, code: int) -> bool:
    op, value = str(part[0]), part[1]
    if op == "RANGE":
        return bool(value[0] <= code <= value[1])
    if op == "CATEGORY":
        kind = {"DIGIT": r"\d", "WORD": r"\w", "SPACE": r"\s"}[str(value).rpartition("_")[2]]
        return bool(re.match(kind, chr(code))) is not str(value).startswith("CATEGORY_NOT")
    return bool(code == value)
