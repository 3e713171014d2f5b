"""Plugin: what verl's processes import so that the names `cm2` are known to them.

verl loads it through the entry point `verl.plugins` when it is imported, and logs a failure at DEBUG only: a run would
go on without its plug-in. So a written configuration also names this module in VERL_USE_EXTERNAL_MODULES, whose
failures are raised in every process, and asks for a trainer that does not exist where the plug-in is not loaded.

Registered are names and places; what they stand for is imported when verl asks for it.
"""

from __future__ import annotations

import torch
from verl.experimental.agent_loop import agent_loop
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from cm2.errors import ConfigError
from cm2.verl import NAME

LOOP = "cm2.verl.loop.ChecklistLoop"
agent_loop._agent_loop_registry[NAME] = {"_target_": LOOP}
_owned: list[bool] = []


def own() -> None:
    """Say that the trainer `cm2` runs in this process, and will put its own advantages in the estimator's place."""
    _owned.append(True)


@register_adv_est(NAME)
def estimate(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, **_: object) -> tuple[torch.Tensor, ...]:
    """What verl calls for `algorithm.adv_estimator=cm2`: zeros, for the trainer to fill.

    Raises:
        ConfigError: another trainer runs, which would train on zeros.
    """
    if not _owned:
        raise ConfigError(
            "algorithm.adv_estimator is cm2, but the trainer is not", fix="set trainer.v1.trainer_mode=cm2 as well"
        )
    zeros = torch.zeros_like(token_level_rewards)
    return zeros, zeros.clone()


if NAME not in TRAINER_REGISTRY:
    import cm2.verl.trainer  # noqa: F401
