"""Prices: what a million tokens of a model cost, by its name.

The package ships `prices.yaml`; a file of the user's comes before it. A model that neither knows has no price, which is
said: it is not free.
"""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
import yaml

from cm2.errors import ConfigError, Where
from cm2.llm.config import Price, RoleModel

_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8})$")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, Price]
    as_of: str | None = None


class Prices:
    """The prices of a user's file and of the package.

    Args:
        path: the user's file.

    Raises:
        ConfigError: the file is absent, or not of the form of `prices.yaml`.
    """

    def __init__(self, path: str | None = None):
        self._tables = [_own(path)] if path else []
        self._tables.append(_shipped())

    def of(self, model: RoleModel) -> Price | None:
        """The price of a role's model: its own, else that of its name; None where nobody knows."""
        if model.price is not None:
            return model.price
        for table in self._tables:
            found = _find(table, model.model)
            if found is not None:
                return found
        return None


def _find(table: dict[str, Price], model: str) -> Price | None:
    for name in (model, _DATE.sub("", model)):
        fitting = [pattern for pattern in table if fnmatch.fnmatchcase(name, pattern)]
        if fitting:
            return table[max(fitting, key=len)]
    return None


@cache
def _shipped() -> dict[str, Price]:
    return _read(resources.files("cm2.llm").joinpath("prices.yaml").read_text(encoding="utf-8"), "prices.yaml")


def _own(path: str) -> dict[str, Price]:
    try:
        return _read(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot be read", where=Where(file=path), fix="check `prices` of the models file") from error


def _read(text: str, path: str) -> dict[str, Price]:
    fix = "write `models:` and below it lines like `my-model: {input: 0.5, output: 1.5}` (US$ per million tokens)"
    try:
        found = yaml.safe_load(text)
        if isinstance(found, dict) and "as_of" in found:
            found["as_of"] = str(found["as_of"])
        return msgspec.convert(found, _File, strict=False).models
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"is no file of prices: {error}", where=Where(file=path), fix=fix) from error
