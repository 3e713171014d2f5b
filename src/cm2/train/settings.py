"""Settings: a Struct filled from a YAML file and from flags, checked before anything starts.

A field's type carries its range (`Annotated[float, msgspec.Meta(gt=0)]`). Flags win over the file, the file over the
defaults; a name that the Struct does not know is an error that lists those it knows.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from cm2.errors import ConfigError, Where
from cm2.textfile import read_yaml

S = TypeVar("S", bound=msgspec.Struct)


def load(kind: type[S], file: str | None, flags: dict[str, Any], inner: dict[str, dict[str, Any]] | None = None) -> S:
    """Settings of `kind` from an optional YAML file and from those flags that were given (are not None).

    `inner` holds flags of settings that are groups of settings themselves, by the group's name.

    Raises:
        ConfigError: the file is absent or no mapping; a setting is unknown, missing or out of range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        found = read_yaml(file, "pass settings as YAML", "check --config")
        if not isinstance(found, dict):
            raise ConfigError("is not a mapping of settings", where=Where(file=file), fix="write lines like `lr: 1e-5`")
        values = {str(name).replace("-", "_"): _number(value) for name, value in found.items()}
    known = kind.__struct_fields__
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}", where=Where(file=file), fix=f"known ones: {', '.join(known)}"
        )
    values |= {name: value for name, value in flags.items() if value is not None}
    for name, group in (inner or {}).items():
        given = {key: value for key, value in group.items() if value is not None}
        if given:
            values[name] = (values.get(name) or {}) | given
    return check(kind, values, file)


def check(kind: type[S], values: dict[str, Any] | S, file: str | None = None) -> S:
    """The values as `kind`, every field within its range.

    Raises:
        ConfigError: one is not.
    """
    raw = values if isinstance(values, dict) else msgspec.to_builtins(values)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        told = f"setting {name}: {message} (it is {raw.get(name)!r})" if name else message
        raise ConfigError(told, where=Where(file=file) if file else None, fix="correct it and run again") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text; a text that is a number becomes one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
