"""Wire: what an outside format wrote, kept only where our canonical form would differ from it.

A wire is used only while it still says what the noun says, so an edited dialogue is never overwritten by its past. The
rows of both formats share one way of keeping: `rest` holds the values that our form has no place for or would write
otherwise, `absent` the keys that our form has and the row had not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode

CHECKLISTS = "checklists"
"""The key of a row's checklists; they belong to the task, not to the dialogue."""


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values or nouns are the same: 1, 1.0 and true are three values, the order of keys is none."""
    pending = [(a, b)]
    while pending:
        a, b = pending.pop()
        if a is b:
            continue
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            if a.keys() != b.keys():
                return False
            pending += [(value, b[key]) for key, value in a.items()]
        elif isinstance(a, list):
            if len(a) != len(b):
                return False
            pending += zip(a, b, strict=True)
        elif isinstance(a, msgspec.Struct):
            pending += [(getattr(a, name), getattr(b, name)) for name in a.__struct_fields__]
        elif a != b and (a == a or b == b):  # NaN is the same as NaN here
            return False
    return True


def read_id(value: Any, row: dict[str, Any], where: Where) -> tuple[str, str | None]:
    """A dialogue's id as text, and the same again where it had to be made from the content because there is none.

    Raises:
        DataError: the id is neither text nor a number.
    """
    if isinstance(value, str) and value:
        return value, None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), None
    if value is None or value == "":
        made = f"made-{hashlib.blake2b(encode(row.get('messages')), digest_size=8).hexdigest()}"
        return made, made
    fix = "give every dialogue an id of its own"
    raise DataError(f"the id is {named(value)}; expected text or a number", where=where, fix=fix)


def keep(row: dict[str, Any], canonical: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """The wire of a row: `rest` and `absent`, each only where there is something. `known` keys are kept elsewhere."""
    known = known | {"messages", CHECKLISTS}
    rest = {
        key: value
        for key, value in row.items()
        if key not in known and not (key in canonical and same(value, canonical[key]))
    }
    absent = [key for key in canonical if key not in row]
    return {name: value for name, value in (("rest", rest), ("absent", absent)) if value}


def restore(row: dict[str, Any], wire: dict[str, Any], fields: dict[str, Callable[[Any], bool]]) -> None:
    """Put back into a canonical row what its wire kept. `fields` tells of a key's old value (None where it was absent)
    whether it still says what the dialogue says."""
    for key, value in wire.get("rest", {}).items():
        if key not in row or (key in fields and fields[key](value)):
            row[key] = value
    for key in wire.get("absent", []):
        if key in row and key in fields and fields[key](None):
            del row[key]


def named(value: Any) -> str:
    """What kind of JSON value it is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
