"""Refusals: what a recipe asks for and verl cannot do.

It is refused where a number would silently be another one, and told where only time or comfort is lost.
"""

from __future__ import annotations

import msgspec

from cm2.errors import ConfigError
from cm2.train.embedded import NAME as EMBEDDED
from cm2.train.rl_config import RlConfig
from cm2.verl.cluster import Cluster

CRITIC_LR = 1e-5
"""Of verl's critic, which is a network of its own."""
READ = {
    *(
        "input",
        "output",
        "format",
        "model",
        "updates",
        "minutes",
        "prompts",
        "group",
        "probe",
        "algorithm",
        "ppo",
        "lr",
    ),
    *("level", "normalise", "reading", "turn_baseline", "turn_credit", "backfill", "judge_flip", "gate", "warmup"),
    *("beta", "kl_gradient", "clip_low", "clip_high", "clip", "weight_decay", "loss", "importance", "importance_max"),
    *("epochs", "mini_batches", "layers", "lora", "temperature", "max_step_tokens", "max_tokens", "max_turns"),
    *("max_steps", "micro_tokens", "judging", "simulator", "models", "generation", "probing", "gold", "resample"),
    *("heldout", "evaluate_every", "heldout_tasks", "heldout_temperature", "seed"),
    *("batch", "save_every", "threads"),  # of the local engine's own work, which verl does in another way
}
"""Settings of a recipe that are passed on, refused or told of here; any other is noted where it was changed."""


def refused(recipe: RlConfig) -> None:
    """Fail where verl would train another thing than the recipe says.

    Raises:
        ConfigError: it would.
    """
    if recipe.model == EMBEDDED:
        raise ConfigError("the embedded model is the local engine's", fix="give --model FOLDER or a Hugging Face name")
    if recipe.layers:
        raise ConfigError("verl trains all layers or adapters", fix="set layers to 0, or use lora")
    if recipe.prompts % recipe.mini_batches:
        raise ConfigError(
            f"verl counts mini-batches in prompts, and {recipe.mini_batches} mini-batches do not divide "
            f"{recipe.prompts} prompts",
            fix="choose mini_batches that divides prompts",
        )
    if recipe.gate != "ends":
        raise ConfigError(f"the gate {recipe.gate!r} is the local engine's", fix="set gate to ends")
    if not recipe.backfill and recipe.level != "step":
        raise ConfigError("backfill is of the level step", fix="leave it out")
    if recipe.probing.on or recipe.gold is not None:
        raise ConfigError("probes of the judge run in the local engine only", fix="leave probing and gold out")
    if recipe.generation != type(recipe.generation)():
        raise ConfigError("verl brings its own generation", fix="leave the settings of `generation` out")
    if recipe.algorithm == "ppo" and not recipe.ppo.whiten:
        raise ConfigError("verl's GAE always whitens advantages", fix="set ppo.whiten to true")


def divided(recipe: RlConfig, cluster: Cluster) -> None:
    """Fail where a mini-batch cannot be shared out evenly, which verl finds out after the first rollouts only."""

    def fits(mini_batches: int) -> bool:
        return recipe.prompts // mini_batches * recipe.group % cluster.gpus == 0

    if fits(recipe.mini_batches):
        return
    rows = recipe.prompts // recipe.mini_batches * recipe.group
    others = [str(n) for n in range(1, recipe.prompts + 1) if recipe.prompts % n == 0 and fits(n)]
    raise ConfigError(
        f"a mini-batch of {rows} rollouts does not divide over {cluster.gpus} devices",
        fix=f"set mini_batches to {' or '.join(others)}, or change --gpus"
        if others
        else "change --gpus, prompts or group",
    )


def notes_of(recipe: RlConfig) -> list[str]:
    """What of the recipe has no counterpart in verl, and costs no more than time."""
    notes = [f"{name} is left out: it is read by the local engine only" for name in _unread(recipe)]
    if recipe.probe is not None:
        notes.append("probe is left out: verl runs all members of a group")
    if recipe.minutes is not None:
        notes.append(
            "minutes is left out: give the job a time limit; the same command goes on from the last checkpoint"
        )
    if recipe.resample:
        notes.append("resample: verl replaces groups of equal reward until the batch is full, however many that takes")
    if recipe.algorithm == "ppo":
        notes.append(f"ppo: verl's critic is a network of its own (lr {CRITIC_LR:g}), not a head on the policy")
    return notes


def _unread(recipe: RlConfig) -> list[str]:
    """Settings that were changed and that nobody here reads, in the recipe's order."""
    found = []
    for field in msgspec.structs.fields(RlConfig):
        if field.name not in READ and not field.required:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            if getattr(recipe, field.name) != default:
                found.append(field.name)
    return found
