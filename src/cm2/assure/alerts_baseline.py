"""Baselines from a file: the rates that were fine, by duty, so that a monitor need not measure them first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cm2.assure.alerts import Baseline
from cm2.assure.monitor_state import Known
from cm2.errors import ConfigError, Where
from cm2.textfile import read_yaml

_FIX = "write lines like `confirm-before-write: 0.97`, or `{passed: 194, scored: 200}`; or name a monitor's folder"


def load_baselines(path: str) -> dict[str, Baseline]:
    """The rates in a YAML or JSON file (duty: rate, or duty: {passed, scored}), or those of a monitor by its folder.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    where = Where(file=path)
    if Path(path).is_dir():
        return _of_monitor(Path(path) / "state.json")
    value = read_yaml(path, _FIX, "check --baseline")
    if not isinstance(value, dict) or not value:
        raise ConfigError("holds no rates", where=where, fix=_FIX)
    return {str(name): _baseline(one, Where(file=path, item=str(name))) for name, one in value.items()}


def _baseline(value: Any, where: Where) -> Baseline:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return Baseline(float(value))
    if isinstance(value, dict):
        passed, scored = value.get("passed"), value.get("scored")
        if isinstance(passed, int) and isinstance(scored, int) and 0 <= passed <= scored and scored:
            return Baseline(passed / scored, scored)
    raise ConfigError("is no rate", where=where, fix=_FIX)


def _of_monitor(path: Path) -> dict[str, Baseline]:
    where = Where(file=str(path))
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Known)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=where, fix="name a folder of cm2 monitor") from error
    except msgspec.DecodeError as error:
        raise ConfigError("is no snapshot of a monitor", where=where, fix="name a folder of cm2 monitor") from error
    found = {}
    for name, duty in known.duties.items():
        passed = duty.counts.get("pass", 0)
        if scored := passed + duty.counts.get("fail", 0):
            found[name] = Baseline(passed / scored, scored)
    return found
