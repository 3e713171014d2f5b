"""Halves: a dialogue without half surrogate pairs, which JSON can carry but UTF-8, and so a checklist, cannot.

The labeller reads a copy in which each of them is the replacement character. An item that holds that mark in its words,
check or evidence is about text that nobody can write down, and is left out.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.checklist import Item
from cm2.dialogue import Dialogue

MARK = "\ufffd"
_HALF = re.compile("[\ud800-\udfff]")


def readable(dialogue: Dialogue) -> Dialogue:
    """The dialogue with every half surrogate pair marked; the same object where there is none."""
    try:
        msgspec.json.encode(dialogue)
    except UnicodeEncodeError:
        copy: Dialogue = _marked(replace(dialogue, wire=None))
        return copy
    except (TypeError, ValueError, RecursionError):
        pass  # what cannot be encoded for another reason is not for here to judge
    return dialogue


def marked(item: Item) -> bool:
    """Whether an item holds on to text that was half a surrogate pair."""
    return MARK in msgspec.json.encode(item).decode()


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub(MARK, value)
    if isinstance(value, list):
        return [_marked(each) for each in value]
    if isinstance(value, dict):
        return {_marked(key): _marked(each) for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        return replace(value, **{name: _marked(getattr(value, name)) for name in value.__struct_fields__})
    return value
