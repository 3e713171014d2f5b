"""Fields: the names that `fields.yaml` lists, so that lists of names stand in one place and not in the code."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml


@cache
def _listed() -> dict[str, dict[str, str]]:
    text = files("cm2.imports").joinpath("fields.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = yaml.safe_load(text)
    return found


def names(format: str, kind: str) -> frozenset[str]:
    """The names of one list of `fields.yaml`."""
    return frozenset(_listed()[format][kind].split())
