"""Shape: the form of a tool's answers, inferred from recorded ones as a JSON Schema.

Types, keys, which keys are always there, and what lists hold, at any depth; no value, no choice of values, no length.
An object is closed: an answer with a key that no recorded one has is not an answer of this tool (that is how a helpful
"note" gets in). Objects whose keys are data (ids, dates, names) are open, and say only what their values look like.

Answers that share no key are alternatives; others are one form, in which keys that some lack are optional.

A form becomes part of a prompt, outside of what is fenced, because it says what to answer. So it holds nothing that
somebody else wrote but keys, and of those only names: a key that is more than a name is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
Private = Callable[[str], bool]
_DEEPEST = 24
_ALTERNATIVES = 6
_DATA_KEY = re.compile(r"\d")
_NAME = re.compile(r"[A-Za-z_$@][A-Za-z0-9_$@.:\-]{0,47}")
_TYPES = frozenset(("string", "integer", "number", "boolean", "null", "array", "object"))


def shape_of(values: list[Any], private: Private = lambda key: False) -> Schema | None:
    """The JSON Schema that these values have in common; None where there is no value.

    Args:
        values: recorded answers.
        private: whether an object key may not be told (see `cm2.simulate.horizon`); it is left out, and its object is
            open.
    """
    forms = [_shape(alike, private, _DEEPEST) for alike in _alternatives(values)]
    return _one_of(forms) if forms else None


def structure_of(schema: Any, left: int = _DEEPEST) -> Schema:
    """What a declared JSON Schema says about the form, as `shape_of` would say it: no description, no choice of values,
    no key that is more than a name."""
    if not isinstance(schema, dict) or not left:
        return {}
    found: Schema = {}
    kinds = schema.get("type")
    several = kinds if isinstance(kinds, list) else [kinds]
    if several and all(isinstance(kind, str) and kind in _TYPES for kind in several):
        found["type"] = kinds
    properties = schema.get("properties")
    if isinstance(properties, dict):
        named = {key: inner for key, inner in properties.items() if is_name(key)}
        found["properties"] = {key: structure_of(inner, left - 1) for key, inner in named.items()}
        required = schema.get("required")
        found["required"] = [key for key in required if key in named] if isinstance(required, list) else []
        closed = schema.get("additionalProperties") is not True and len(named) == len(properties)
        found["additionalProperties"] = False if closed else {}
    if isinstance(schema.get("items"), dict):
        found["items"] = structure_of(schema["items"], left - 1)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            found["anyOf"] = [structure_of(one, left - 1) for one in schema[name]]
    return found


def is_name(key: str) -> bool:
    """Whether an object key is a name and no text."""
    return _NAME.fullmatch(key) is not None


def _alternatives(values: list[Any]) -> list[list[Any]]:
    """Values in groups: objects with common keys, and the others by type. Many kinds of objects are one."""
    groups: list[tuple[set[str], list[Any]]] = []
    others: dict[str, list[Any]] = {}
    for value in values:
        if not isinstance(value, dict):
            others.setdefault(_type(value), []).append(value)
            continue
        joined = [group for group in groups if group[0] & value.keys() or (not group[0] and not value)]
        groups = [group for group in groups if group not in joined]
        keys = set(value).union(*(group[0] for group in joined))
        groups.append((keys, [one for group in joined for one in group[1]] + [value]))
    found = [members for _, members in groups]
    if len(found) > _ALTERNATIVES:
        found = [[value for members in found for value in members]]
    return found + list(others.values())


def _shape(values: list[Any], private: Private, left: int) -> Schema:
    if not left:
        return {}
    kinds: dict[str, list[Any]] = {}
    for value in values:
        kinds.setdefault(_type(value), []).append(value)
    if "integer" in kinds and "number" in kinds:
        kinds["number"] += kinds.pop("integer")
    if set(kinds) == {"null"}:
        return {}  # nobody knows what stands there otherwise
    forms = [_typed(kind, members, private, left - 1) for kind, members in sorted(kinds.items())]
    return _one_of(forms)


def _typed(kind: str, values: list[Any], private: Private, left: int) -> Schema:
    if kind == "array":
        items = [item for value in values for item in value]
        return {"type": "array", "items": _shape(items, private, left)} if items else {"type": "array"}
    if kind != "object":
        return {"type": kind}
    keys = list(dict.fromkeys(key for value in values for key in value))
    if _is_map(values, keys):
        held = [item for value in values for item in value.values()]
        return {"type": "object", "additionalProperties": _shape(held, private, left)}
    told = [key for key in keys if is_name(key) and not private(key)]
    hidden = [value[key] for key in keys if key not in told for value in values if key in value]
    properties = {key: _shape([value[key] for value in values if key in value], private, left) for key in told}
    required = [key for key in told if all(key in value for value in values)]
    rest: Any = _shape(hidden, private, left) if hidden else False
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": rest}


def _is_map(values: list[dict[str, Any]], keys: list[str]) -> bool:
    """Whether the keys are data: most hold digits, or no two of three and more objects have one in common."""
    if keys and sum(bool(_DATA_KEY.search(key)) for key in keys) * 2 > len(keys):
        return True
    filled = [value for value in values if value]
    return len(filled) > 2 and len(keys) == sum(map(len, filled))


def _one_of(forms: list[Schema]) -> Schema:
    if len(forms) == 1:
        return forms[0]
    if all(set(form) == {"type"} and isinstance(form["type"], str) for form in forms):
        return {"type": sorted({form["type"] for form in forms})}
    return {"anyOf": forms}


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
