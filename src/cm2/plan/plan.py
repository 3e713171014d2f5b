"""Plan: what a recipe needs and takes, before anything is started."""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.errors import ConfigError
from cm2.plan.constants import Constants
from cm2.plan.devices import device_of
from cm2.plan.events import MODES, Outcome, job_of, simulate
from cm2.plan.load import Calls, Load, asked, judge_calls, load, votes
from cm2.plan.memory import Memory, memory
from cm2.plan.models import dims_of
from cm2.plan.setup import Engine, Setup, fitted
from cm2.plan.shape import Shape
from cm2.plan.speed import Times, times
from cm2.train import settings
from cm2.train.rl_config import RlConfig

JUDGE = "Qwen3-30B-A3B"
"""The paper's judge and simulator."""
COMPARED = ("published", "item", "step", "turn")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's needs."""

    setup: Setup
    load: Load
    memory: Memory
    times: Times
    schedules: dict[str, Calls]
    """The judge's calls of a batch in every schedule, and in the paper's, which asks again what is satisfied."""
    notes: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def hours(self) -> float:
        """Wall time of the run, by `minutes` of the recipe where those end it."""
        hours = self.setup.batches * self.times.overlapped / 3600
        return min(hours, self.setup.recipe.minutes / 60) if self.setup.recipe.minutes else hours

    @property
    def gpu_hours(self) -> float:
        """Hours times devices; none on a processor."""
        return 0.0 if self.setup.device.cpu else self.hours * (self.setup.gpus + self.setup.judge_gpus)


def make_plan(
    recipe: RlConfig | str,
    *,
    gpus: int = 1,
    gpu: str = "h100",
    engine: Engine | None = None,
    model: str | None = None,
    judge_model: str = JUDGE,
    judge_gpus: int = 0,
    parallel: int | None = None,
    shape: Shape | None = None,
    constants: dict[str, float] | None = None,
    overrides: dict[str, Any] | None = None,
    inner: dict[str, dict[str, Any]] | None = None,
    simulation: bool = False,
    seed: int = 0,
) -> Plan:
    """Plan a recipe.

    Args:
        recipe: a recipe file or loaded settings.
        gpus: devices that train and generate.
        gpu: which; see `cm2.plan.devices`.
        engine: local or sharded; None takes local for one device, else sharded.
        model: in place of the recipe's.
        judge_model: the judge's and the simulator's.
        judge_gpus: devices for those; 0: an endpoint elsewhere, whose time is not planned.
        parallel: most calls to them at once.
        shape: the mean dialogue; None: the default one.
        constants: changes to the table.
        overrides: changes to the recipe's settings.
        inner: changes to its groups of settings (judging, simulator).
        simulation: also simulate the update (needs simpy).
        seed: of the simulation.

    Raises:
        ConfigError: something is unknown or out of range.
    """
    if isinstance(recipe, str):
        given = {"input": "tasks", "output": "run"} | (overrides or {})
        recipe = settings.load(RlConfig, recipe, given, inner)
    device = device_of(gpu)
    if device.cpu and engine == "sharded":
        raise ConfigError("a processor does not shard", fix="take --engine local, or a GPU")
    cut, note = fitted(shape or Shape(), recipe)
    setup = Setup(
        recipe=recipe,
        model=dims_of(model or recipe.model),
        device=device,
        gpus=gpus,
        engine=engine or ("local" if gpus == 1 or device.cpu else "sharded"),
        judge=dims_of(judge_model),
        judge_gpus=judge_gpus,
        parallel=parallel,
        shape=cut,
        constants=Constants(constants),
    )
    found = load(setup)
    needed = memory(setup)
    took = times(setup, found, needed)
    notes = [note] if note else []
    if (found.judge.calls or found.simulator.calls) and (not judge_gpus or device.cpu):
        notes.append("judge and simulator are an endpoint elsewhere: their calls are counted, their time is not")
    if setup.recipe.algorithm == "ppo" and setup.engine == "sharded":
        notes.append("sharded PPO is verl's, whose critic is a network of its own; the local engine's is a head")
    if setup.further:
        notes.append(
            f"resample: {setup.further:.1f} further groups a batch are expected, of {setup.recipe.resample} that may be"
            "; how many groups are silent is the constant `silent`"
        )
    if not device.cpu and setup.engine == "local":
        notes.append("the local engine was never measured on a GPU: its times are those of a serving engine, a floor")
    outcomes: tuple[Outcome, ...] = ()
    if simulation:
        job = job_of(setup, found, needed, took, seed)
        outcomes = tuple(simulate(job, mode) for mode in MODES)
        if job.scale < 1:
            notes.append(f"simulated at {job.scale:.1%} of its size: {job.rollouts} rollouts, slots likewise")
    return Plan(
        setup=setup,
        load=found,
        memory=needed,
        times=took,
        schedules=_schedules(setup),
        notes=tuple(notes),
        outcomes=outcomes,
    )


def _schedules(setup: Setup) -> dict[str, Calls]:
    items = asked(setup)
    if not items:
        return {}
    group, constants, factor = setup.recipe.group, setup.constants, votes(setup) * setup.rollouts
    found = {"as in the paper": judge_calls(setup.shape, "published", items, group, constants, every=True)}
    found |= {name: judge_calls(setup.shape, name, items, group, constants) for name in COMPARED}
    return {name: calls.times(factor) for name, calls in found.items()}
