"""SimulatorConfig: what answers the calls that an agent makes up, and the worlds that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Dialogue, ToolCall
from cm2.errors import ConfigError
from cm2.llm import Asker
from cm2.simulate.backend import Backend
from cm2.simulate.declared import Declared
from cm2.simulate.effects import Effects
from cm2.simulate.fallback import Fallback
from cm2.simulate.llm import LLMBackend, Shown
from cm2.simulate.replay import Context
from cm2.simulate.world import OnFailure, Replay, World

Kind = Literal["auto", "replay", "fallback", "schema", "llm"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which simulator, and how strict it is."""

    kind: Kind = "auto"
    """auto: a task's own executable world where it has one, else fallback. replay: recorded answers only, everything
    else is not found. fallback: recorded answers, turned into what a near call would get. schema: as fallback, and
    tools without any recorded answer get one of their declared form. llm: a language model."""
    replay: Replay = "always"
    """always: a recorded call gets its recorded answer whatever was written since (the published rule, and free).
    same_state: only after the writes it was recorded after; the rest is simulated, so that reads show other writes."""
    on_failure: OnFailure = "drop"
    """drop: a rollout ends where the simulator fails. error: the agent is told that the tool is unavailable and goes
    on, so that the transcript is whole. Either way the rollout counts as failed, by the simulator, in no mean."""
    per_group: bool = False
    """llm: ask anew for every group, which makes another world each time a task is rolled out. False shares answers
    between runs and updates through the cache: cheaper, and a task's world is always the same."""
    shown: Shown = msgspec.field(default_factory=Shown)
    """llm: how much the model is shown."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("replay", get_args(Replay)), ("on_failure", get_args(OnFailure))):
            if getattr(self, name) not in allowed:
                given, names = getattr(self, name), ", ".join(allowed)
                raise ConfigError(f"simulator {name} {given!r} is unknown", fix=f"use one of: {names}")


class ReplayOnly(Fallback):
    """Knows what was recorded and nothing else: every other call is told that nothing was found."""

    def session(self) -> ReplayOnly:
        """The same backend: it has no state."""
        return self

    def respond(self, call: ToolCall, context: Context) -> str:
        """The answer to a well-formed call of a known tool."""
        return self.not_found(call)


def simulated(config: SimulatorConfig, asker: Asker | None = None) -> Callable[[Task, int], World]:
    """What makes the world of a group, from its task and a seed.

    Args:
        config: which simulator. "auto" makes the fallback here: only who knows the sample worlds can make theirs.
        asker: who answers, for "llm".

    Raises:
        ConfigError: "llm" without an asker.
    """
    if config.kind == "llm" and asker is None:
        fix = "give --simulator-url and --simulator-model, or a file with --models"
        raise ConfigError("the simulator llm has no model to ask", fix=fix)

    def make(task: Task, seed: int) -> World:
        backend = _backend(config, task.dialogue, seed, asker)
        return World(task.dialogue, backend=backend, seed=seed, replay=config.replay, on_failure=config.on_failure)

    return make


def _backend(config: SimulatorConfig, dialogue: Dialogue, seed: int, asker: Asker | None) -> Backend | None:
    if config.kind == "llm" and asker is not None:
        return LLMBackend(dialogue, asker, config.shown, sample=seed if config.per_group else 0)
    kinds = {"replay": ReplayOnly, "schema": Declared}
    if config.kind not in kinds:
        return None
    return kinds[config.kind](dialogue, seed, Effects(dialogue).is_write)
