"""Merging summaries: what the shards counted, as if one run had counted it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def merged(first: S, other: S) -> S:
    """The summary of both, `first` standing before `other`: numbers add up, of what is told once the first stays."""
    return msgspec.structs.replace(
        first, **{name: _both(getattr(first, name), getattr(other, name)) for name in first.__struct_fields__}
    )


def _both(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, msgspec.Struct):
        return merged(a, b)
    if isinstance(a, dict):
        return {key: _both(a.get(key), b.get(key)) for key in [*a, *(key for key in b if key not in a)]}
    if isinstance(a, list):
        if a and len(a) == len(b) and all(isinstance(each, msgspec.Struct) for each in a):
            return [merged(one, two) for one, two in zip(a, b, strict=True)]
        return [*a, *b]
    if isinstance(a, bool):
        return a or b
    return a + b if isinstance(a, int | float) else a or b
