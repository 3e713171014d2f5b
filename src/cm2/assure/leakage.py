"""Leakage: what a gate or a benchmark is measured on must not be trained on, nor anything nearly the same.

Excluded is a dialogue that shares its id with one of the others, or that resembles one: what its user says and which
calls are made, as sets of runs of words (`cm2.curate.minhash`). The resemblance is estimated, so a pair counts from
three standard errors below the threshold on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from cm2.curate.features import near_signature
from cm2.curate.minhash import resemblance, spread
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, Where
from cm2.formats import read_rows, read_tasks
from cm2.rollout.trace import Rollout

NEAR = 0.7
"""The Jaccard resemblance from which two dialogues count as one. Lower than where duplicates are dropped (0.8): a
training row too few costs little, a leaked test costs the test."""


class Exclusion:
    """Dialogues that may not be trained on.

    Args:
        dialogues: all of them.
        near: from which resemblance on others are like them; None: only the same ids.
    """

    def __init__(self, dialogues: Iterable[Dialogue] = (), near: float | None = NEAR):
        if near is not None and not 0 < near <= 1:
            raise ConfigError(f"a resemblance of {near:g}", fix="give a number above 0, at most 1")
        self._near = near
        self._ids: set[str] = set()
        signatures = []
        for dialogue in dialogues:
            self._ids.add(dialogue.id)
            if near is not None:
                signatures.append(near_signature(dialogue))
        self._signatures = np.array(signatures) if signatures else None
        self.count = len(self._ids)

    def reason(self, dialogue: Dialogue, *ids: str) -> str:
        """Why a dialogue is excluded, "" where it is not. `ids` are others that it goes by: the task that it runs."""
        if dialogue.id in self._ids or any(id in self._ids for id in ids):
            return "excluded: the same id"
        if self._signatures is not None and self._near is not None:
            found = resemblance(self._signatures, near_signature(dialogue))
            if found.max() >= self._near - 3 * spread(self._near):
                return "excluded: nearly the same"
        return ""


def read_exclusion(paths: Iterable[str], near: float | None = NEAR, format: str = "auto") -> Exclusion:
    """The dialogues of some files: dialogues, tasks, stores of rollouts, or suites of a gate (YAML), which name theirs.

    Raises:
        ConfigError: a suite names no dialogues, or the resemblance is none.
        DataError: a file is missing or of another kind.
    """
    return Exclusion((dialogue for path in paths for dialogue in _dialogues(path, format)), near)


def _dialogues(path: str, format: str) -> Iterator[Dialogue]:
    if path.endswith((".yaml", ".yml")):
        from cm2.assure.suite import load_suite

        suite = load_suite(path)
        files = [file for file in (suite.dialogues, suite.tasks) if file is not None]
        if not files:
            raise ConfigError("the suite names no dialogues and no tasks", where=Where(file=path), fix="name its files")
        for file in files:
            yield from _dialogues(file, suite.format)
        return
    if is_rollouts(path):
        for row in read_rows(path):
            if row.value is not None:
                rollout = msgspec.convert(row.value, Rollout)
                yield msgspec.structs.replace(rollout.dialogue, id=rollout.task)
        return
    yield from (task.dialogue for _, task in read_tasks(path, format, on_error=lambda row: None))


def is_rollouts(path: str) -> bool:
    """Whether a file is a store of `cm2 rollout`."""
    first: Any = next((row.value for row in read_rows(path) if row.value is not None), None)
    return isinstance(first, dict) and "task" in first and "dialogue" in first and "messages" not in first
