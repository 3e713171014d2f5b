"""What `cm2 plan` prints: the tables of a plan, and the same as one JSON object."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from rich.table import Table

from cm2.errors import ConfigError
from cm2.plan.checks import checks
from cm2.plan.constants import TABLE
from cm2.plan.like import measured, model_of
from cm2.plan.load import Calls
from cm2.plan.plan import Plan, make_plan
from cm2.plan.setup import Engine
from cm2.plan.shape import Shape, of_tasks
from cm2.train import settings

Shown = tuple[dict[str, Any], list[Any]]


def planned(
    recipe: str, *, tasks: str | None, dialogue: list[str], like: str | None, constants: dict[str, float], **given: Any
) -> Plan:
    """A plan from what a command line gives.

    Raises:
        ConfigError: something is unknown or out of range.
    """
    if given["engine"] is not None and given["engine"] not in get_args(Engine):
        raise ConfigError(f"there is no engine {given['engine']!r}", fix=f"use {' or '.join(get_args(Engine))}")
    shape = of_tasks(tasks) if tasks else None
    if like is not None:
        run = measured(like)
        shape = shape or run.shape
        constants = run.constants(model_of(like)) | constants
    if dialogue:
        shape = _changed(shape or Shape(), dialogue)
    return make_plan(recipe, shape=shape, constants=constants, **given)


def _changed(shape: Shape, texts: list[str]) -> Shape:
    values: dict[str, Any] = msgspec.to_builtins(shape)
    for text in ",".join(texts).split(","):
        name, _, value = text.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError as error:
            raise ConfigError(f"--dialogue {text!r} says no number", fix="write turns=3,steps=4") from error
    if unknown := sorted(set(values) - set(Shape.__struct_fields__)):
        known = ", ".join(Shape.__struct_fields__)
        raise ConfigError(f"a dialogue has no {', '.join(unknown)}", fix=f"known ones: {known}")
    return settings.check(Shape, values)


def summary(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object: seconds, bytes, tokens."""
    setup, took = plan.setup, plan.times
    parts = {name: getattr(took, name) for name in took.__struct_fields__}
    totals = {name: getattr(took, name) for name in ("training", "lockstep", "overlapped", "ahead")}
    generation = plan.memory.generation
    return {
        "model": setup.model.name,
        "parameters": setup.model.parameters,
        "trained_parameters": setup.trained,
        "engine": setup.engine,
        "gpu": setup.device.name,
        "gpus": setup.gpus,
        "judge_model": setup.judge.name,
        "judge_gpus": setup.judge_gpus,
        "dialogue": msgspec.to_builtins(setup.shape) | {"total": setup.shape.total},
        "memory": {
            "training": msgspec.to_builtins(plan.memory.training) | {"total": plan.memory.training.total},
            "generation": msgspec.to_builtins(generation) | {"total": generation.total},
            "budget": plan.memory.budget,
            "fits": plan.memory.fits,
        },
        "load": msgspec.to_builtins(plan.load),
        "schedules": msgspec.to_builtins(plan.schedules),
        "seconds": parts | totals,
        "batches": setup.batches,
        "hours": plan.hours,
        "gpu_hours": plan.gpu_hours,
        "constants_changed": setup.constants.changed,
        "simulation": msgspec.to_builtins(plan.outcomes),
        "notes": list(plan.notes),
    }


def tables(plan: Plan) -> list[Any]:
    """The plan for a reader."""
    setup = plan.setup
    where = f"{setup.gpus} x {setup.device.name}" + (f" + {setup.judge_gpus} for the judge" if setup.judge_gpus else "")
    title = f"{setup.model.name}, {setup.recipe.prompts} prompts x {setup.recipe.group} rollouts on {where}"
    parts: list[Any] = [title, _memory(plan), _load(plan)]
    if plan.schedules:
        parts.append(_schedules(plan))
    parts.append(_times(plan))
    parts += [_outcome(plan)] if plan.outcomes else []
    if not plan.memory.fits:
        parts.append("does not fit: " + _advice(plan))
    return [*parts, *(f"note: {note}" for note in plan.notes)]


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left")
    return table


def _memory(plan: Plan) -> Table:
    table = _grid(f"memory of a device, {plan.setup.engine} engine", "GB", "training", "generation")
    training, generation = plan.memory.training, plan.memory.generation
    copy = "serving weights" + (f" (over {generation.width})" if generation.width > 1 else "")
    table.add_row("weights", _gb(training.weights), _gb(training.weights))
    table.add_row("gradients", _gb(training.gradients), "")
    table.add_row("optimizer", _gb(training.optimizer), _gb(training.optimizer))
    table.add_row("reference", _gb(training.reference), _gb(training.reference))
    if training.critic:
        table.add_row("critic", _gb(training.critic), _gb(training.critic))
    table.add_row("16-bit weights at work", _gb(training.working), "")
    table.add_row(f"activations of {training.micro_tokens:,} tokens", _gb(training.activations), "")
    table.add_row("their logits", _gb(training.logits), "")
    table.add_row(copy, "", _gb(generation.weights))
    table.add_row(f"cache of {generation.at_once:,} rollouts", "", _gb(min(generation.cache, generation.room)))
    table.add_row("total", _gb(training.total), _gb(generation.total))
    if plan.memory.budget:
        table.add_row("may be used", _gb(plan.memory.budget), _gb(plan.memory.budget))
    return table


def _load(plan: Plan) -> Table:
    found = plan.load
    table = _grid("load of a batch", "", "calls", "tokens read", "read anew", "tokens written")
    table.add_row(f"policy, {found.rolled:,.0f} rollouts", "", _n(found.shown), "", _n(found.generated))
    table.add_row("training computes", "", _n(found.computed), "", "")
    table.add_row("judge", *_row(found.judge))
    table.add_row("simulator", *_row(found.simulator))
    return table


def _schedules(plan: Plan) -> Table:
    table = _grid("the judge's schedules", "", "calls", "tokens read", "read anew", "tokens written")
    for name, calls in plan.schedules.items():
        mark = " (this recipe)" if name == plan.setup.recipe.judging.schedule else ""
        table.add_row(name + mark, *_row(calls))
    return table


def _times(plan: Plan) -> Table:
    took = plan.times
    hours = f"{plan.hours:,.1f} h for {plan.setup.batches:,} batches"
    hours += "" if plan.setup.device.cpu else f", {plan.gpu_hours:,.0f} GPU hours"
    table = _grid(f"an update: {hours}", "", "seconds")
    names = ("generation", "judge", "simulator", "old", "reference", "forward", "backward", "critic", "refit")
    for name in names:
        if getattr(took, name):
            table.add_row(name, f"{getattr(took, name):,.1f}")
    table.add_row("in lockstep", f"{took.lockstep:,.1f}")
    table.add_row("overlapped (planned)", f"{took.overlapped:,.1f}")
    table.add_row("one update ahead", f"{took.ahead:,.1f}")
    return table


def _outcome(plan: Plan) -> Table:
    table = _grid(
        "simulated", "", "update, s", "rollouts, s", "last tenth, s", "at work, % (mean wait, s)", "bottleneck"
    )
    for one in plan.outcomes:
        used = ", ".join(f"{s.name} {100 * s.utilisation:.0f} ({s.wait:.1f})" for s in one.stations)
        table.add_row(one.mode, f"{one.update:,.1f}", f"{one.rollout:,.1f}", f"{one.last:,.1f}", used, one.bottleneck)
    return table


def _advice(plan: Plan) -> str:
    recipe = plan.setup.recipe
    if plan.memory.training.total > plan.memory.budget:
        if not recipe.lora and not recipe.layers:
            return "train adapters (lora: 32), or on more GPUs"
        return "lower micro_tokens (local) or max_tokens (sharded), or take more GPUs"
    return "the cache has no room for one rollout: lower max_tokens, or take more GPUs"


def constants() -> Shown:
    """The table of constants."""
    table = _grid("constants", "name", "value", "unit", "kind", "source")
    table.columns[4].justify = "left"
    for row in TABLE:
        table.add_row(row.name, f"{row.value:g}", row.unit, row.kind, row.source)
    return {"constants": msgspec.to_builtins(TABLE)}, [table]


def checked() -> Shown:
    """What the plan says of runs that were made."""
    found = checks()
    table = _grid("predicted and measured", "run", "predicted", "measured", "unit", "predicted / measured")
    for one in found:
        table.add_row(one.what, f"{one.predicted:,.1f}", f"{one.measured:,.1f}", one.unit, f"{one.factor:.2f}")
    return {"checks": [msgspec.to_builtins(one) | {"factor": one.factor} for one in found]}, [table]


def _gb(value: float) -> str:
    return f"{value / 1e9:.2f}" if value else "–"


def _n(value: float) -> str:
    return f"{value:,.0f}" if value else "–"


def _row(calls: Calls) -> tuple[str, str, str, str]:
    return _n(calls.calls), _n(calls.prompt), _n(calls.prefilled), _n(calls.answers)
