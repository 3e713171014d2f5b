"""Section: the part `cm2:` of verl's configuration, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cm2.rollout.limits import Limits
from cm2.train.rl_config import RlConfig
from cm2.verl.setting import Setting

SHOWN = ("judging", "simulator", "limits", "max_step_tokens", "max_tokens", "seed", "workers", "credit")
"""What is written even where it is the default."""


def section(recipe: RlConfig, folder: Path, workers: int) -> dict[str, Any]:
    """The section: only what differs from the defaults, and what a reader looks for.

    Args:
        recipe: what is trained.
        folder: of the run.
        workers: processes that play sessions.
    """
    setting = Setting(
        credit=recipe.credit,
        judging=recipe.judging,
        simulator=recipe.simulator,
        models=None if recipe.models is None else str(Path(recipe.models).resolve()),
        limits=Limits(turns=recipe.max_turns, steps=recipe.max_steps),
        max_step_tokens=recipe.max_step_tokens,
        max_tokens=recipe.max_tokens,
        seed=recipe.seed,
        workers=workers,
        rollouts=str(folder / "rollouts"),
        cache=str(folder / "llm.sqlite"),
    )
    found: dict[str, Any] = msgspec.to_builtins(setting)
    default = msgspec.to_builtins(Setting())
    kept = {}
    for name, one in found.items():
        if one == default.get(name) and name not in SHOWN:
            continue
        if isinstance(one, dict) and name in ("judging", "simulator"):
            one = {key: part for key, part in one.items() if part != default[name][key] or key == "kind"}
        kept[name] = one
    return kept
