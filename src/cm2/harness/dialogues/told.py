"""Told: what a harness says of its own tasks, which its outputs do not hold.

A transcript has what was said and called. The tools that were offered, the policy, and the answer that is right stand
in the harness's own data, and the answers of right calls only its own back ends can give. So its environment is asked,
by a runner of its own (`runners/tell_*.py`), without any model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cm2.harness.environments import Environment
from cm2.harness.process import run

FILE = "told.jsonl"
Key = tuple[str, str]
"""A category and a task of it."""


class ToldCall(msgspec.Struct, kw_only=True):
    """A call of the right answer, as the harness's own back ends ran it."""

    name: str
    arguments: dict[str, Any]
    answer: str = ""
    changed: bool = False
    """Whether it changed what the grader compares."""
    again: bool = True
    """Whether making it again would change more."""
    failed: bool = False
    by: str = "assistant"
    """Whose call it is: tau2-bench's user has tools of its own."""


class ToldTurn(msgspec.Struct, kw_only=True):
    """What the user says, and what is right to call then."""

    user: str
    calls: list[ToldCall] = []
    new: list[str] = []
    """Tools that are offered from this turn on."""


class Told(msgspec.Struct, kw_only=True):
    """One task, as its harness knows it."""

    category: str
    task: str
    tools: list[dict[str, Any]]
    system: str | None = None
    turns: list[ToldTurn] = []
    """Empty where the benchmark has no right answer that could be played (ToolSandbox)."""
    writes: list[str] = []
    """Tools that may change something, where the harness says so."""
    told: list[str] = []
    """What the user must have been told."""
    basis: list[str] = []
    """What the reward is made of, where the benchmark says so."""
    assertions: list[dict[str, Any]] = []
    """What must hold of the world in the end."""

    @property
    def key(self) -> Key:
        """Its category and name."""
        return self.category, self.task


def ask(benchmark: str, environment: Environment, tasks: dict[str, list[str]]) -> dict[Key, Told]:
    """Everything that a harness tells of some tasks.

    Args:
        benchmark: bfcl, tau2 or toolsandbox.
        environment: the harness.
        tasks: the names of tasks by category; all of a category where it has none.

    Raises:
        HarnessFailed: the runner ended with an error.
    """
    variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    with tempfile.TemporaryDirectory(prefix="cm2-told-") as name:
        folder = Path(name)
        settings = {"categories": list(tasks), "tasks": tasks}
        variables["BFCL_PROJECT_ROOT"] = str(folder)  # else results land in the environment's site-packages
        for _ in run(environment, f"tell_{benchmark}.py", settings, variables, folder):
            pass
        return {one.key: one for one in read(folder / FILE)}


def read(path: str | Path) -> Iterator[Told]:
    """The tasks of a file that a runner wrote."""
    with open(path, "rb") as file:
        for line in file:
            yield msgspec.json.decode(line, type=Told)
