"""JSON text of others: strictly read, whatever it holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def loads(text: str) -> Any:
    """Strict JSON: no NaN, no white space but JSON's, integers of any size that Python reads.

    Raises:
        ValueError: it is not JSON. RecursionError: it nests too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except UnicodeEncodeError:  # lone surrogates: only Python's own reader takes them
        return json.loads(text, parse_constant=_no_constant)
    except msgspec.DecodeError:
        if "\\u" not in text:
            raise
        return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
