"""A file that a person wrote (settings, rules, a policy): its text, or its YAML, or what is wrong with it and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cm2.errors import CM2Error, ConfigError, Where


def read_text(
    path: str | Path, expected: str, missing: str = "check the path", kind: type[CM2Error] = ConfigError
) -> str:
    """The text of a file.

    Args:
        path: of the file.
        expected: what to pass instead of what is no text: "pass a suite as YAML".
        missing: what to do where there is no such file: "check --rules".
        kind: the error that is raised.

    Raises:
        CM2Error: of that kind, where there is no such file or it is no text.
    """
    where = Where(file=str(path))
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise kind("there is no such file", where=where, fix=missing) from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise kind("is no text file", where=where, fix=expected) from error


def read_yaml(
    path: str | Path, expected: str, missing: str = "check the path", kind: type[CM2Error] = ConfigError
) -> Any:
    """The value of a YAML (or JSON) file.

    Args:
        path, expected, missing, kind: see `read_text`.

    Raises:
        CM2Error: of that kind, where there is no such file, it is no text, or a line is no YAML.
    """
    text = read_text(path, expected, missing, kind)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = Where(file=str(path), line=None if mark is None else mark.line + 1)
        problem = getattr(error, "problem", None) or "not valid"
        raise kind(f"is no YAML: {problem}", where=where, fix="mend that line") from error
