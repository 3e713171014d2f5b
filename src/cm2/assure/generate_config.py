"""What rejection sampling draws and keeps, and the summary of what came of it."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from cm2.errors import ConfigError, Where
from cm2.rollout.collect import RolloutConfig

Keep = Literal["strict", "reward"]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class GenerateConfig(msgspec.Struct, kw_only=True):
    """What is sampled, and what of it is kept."""

    rollouts: RolloutConfig
    """Which agent plays which tasks; `group` is how often each."""
    output: str
    """The folder."""
    keep: Keep = "strict"
    """strict: every item holds, and none is unscored. reward: the checklist reward is at least `threshold`."""
    threshold: Share = 1.0
    """For `reward`."""
    best: Count = 1
    """Rollouts of a task that are kept at most: those of the highest reward, then the shortest."""
    near: Share | None = 0.95
    """Rollouts of a task that resemble a kept one so much are not kept beside it; None: only equal ones."""
    tokens: Count | None = None
    """A budget: no round begins when so many tokens (prompts and answers) were spent."""


class Summary(msgspec.Struct, kw_only=True):
    """What was sampled and kept."""

    tasks: int = 0
    rollouts: int = 0
    rounds: int = 0
    failed: dict[str, int] = {}
    """Rollouts that say nothing about the agent, by whose failure it was."""
    passed: int = 0
    """Rollouts that could be kept."""
    kept: int = 0
    kept_tasks: int = 0
    """Tasks of which one was kept."""
    left_out: dict[str, int] = {}
    """The others, by reason."""
    pairs: int = 0
    reward: float | None = None
    """Mean of all valid rollouts …"""
    kept_reward: float | None = None
    """… and of those that were kept."""
    successes: float | None = None
    """Share of the valid ones with a true outcome, where the tasks' worlds can tell …"""
    kept_successes: float | None = None
    """… and of those that were kept: how far the checklist can be trusted as a filter."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    budget_reached: bool = False
    files: dict[str, str] = {}

    def leave(self, reason: str) -> None:
        """Count one that is not kept."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def check(config: GenerateConfig) -> None:
    """Make sure that the settings go together.

    Raises:
        ConfigError: they do not.
    """
    if config.keep not in ("strict", "reward"):
        raise ConfigError(f"there is no way to keep {config.keep!r}", fix="use strict or reward")
    if os.path.isfile(config.output):
        raise ConfigError("the output is a file", where=Where(file=config.output), fix="name a folder")
