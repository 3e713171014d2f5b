"""Setup: a recipe, the machine that it is to run on and the dialogues that it is to learn from."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from cm2.errors import ConfigError
from cm2.plan.constants import Constants
from cm2.plan.devices import Device
from cm2.plan.models import Dims
from cm2.plan.shape import Shape
from cm2.train.rl_config import RlConfig

Engine = Literal["local", "sharded"]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a plan is computed from."""

    recipe: RlConfig
    model: Dims
    device: Device
    gpus: int = 1
    """Devices that train and generate."""
    engine: Engine = "local"
    """local: one process a device, the whole model in each in 32 bits, generation by the same weights, prefixes shared.
    sharded: FSDP with checkpointing, and a serving engine with a 16-bit copy of the weights on the same devices."""
    judge: Dims
    """Model of the judge and the simulator."""
    judge_gpus: int = 0
    """Devices of the judge and the simulator beside the others; 0: an endpoint whose time is not planned."""
    parallel: int | None = None
    """Most calls to judge and simulator at once."""
    shape: Shape
    constants: Constants

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.judge_gpus < 0:
            raise ConfigError(
                f"{self.gpus} + {self.judge_gpus} devices", fix="give --gpus 1 or more, --judge-gpus 0 or more"
            )
        if self.recipe.lora and self.recipe.layers:
            raise ConfigError("the recipe has both lora and layers", fix="take one of them")
        if self.recipe.layers > self.model.layers:
            fix = "lower layers, or 0 for all"
            raise ConfigError(f"layers is {self.recipe.layers}, but {self.model.name} has {self.model.layers}", fix=fix)

    @property
    def rollouts(self) -> int:
        """Rollouts of a batch."""
        return self.recipe.prompts * self.recipe.group

    @property
    def further(self) -> float:
        """Groups that are rolled out in the place of those without signal (`resample`), as many as are to be expected:
        where q of all groups are silent, p places need p·q / (1 − q)."""
        silent = min(self.constants["silent"], 0.99)
        return min(float(self.recipe.resample), self.recipe.prompts * silent / (1 - silent))

    @property
    def rolled(self) -> float:
        """Rollouts of a batch and of those further groups."""
        return self.rollouts + self.further * self.recipe.group

    @property
    def critic(self) -> int:
        """Parameters of PPO's critic: a head on the policy's last hidden state (local), or a whole network that ends in
        one number in place of the vocabulary (sharded, which is verl's)."""
        if self.recipe.algorithm != "ppo":
            return 0
        network = self.model.parameters - (0 if self.model.tied else self.model.head)
        return self.model.hidden + 1 + (0 if self.engine == "local" else network)

    @property
    def batches(self) -> int:
        """Batches of rollouts of the whole run: the recipe counts optimizer steps."""
        return math.ceil(self.recipe.updates / (self.recipe.epochs * self.recipe.mini_batches))

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        if self.recipe.lora:
            return lora_parameters(self.model, self.recipe.lora)
        if self.recipe.layers:
            return self.recipe.layers * (self.model.parameters - self.embeddings) // self.model.layers
        return self.model.parameters

    @property
    def embeddings(self) -> int:
        """Parameters of embedding and head."""
        return self.model.head * (1 if self.model.tied else 2)

    @property
    def wide(self) -> bool:
        """Whether products are of 16 bits."""
        return not self.device.cpu

    @property
    def together(self) -> int:
        """Rollouts that one device has under way at once, before its memory is asked."""
        each = math.ceil(self.rollouts / self.gpus)
        return min(each, self.recipe.batch) if self.engine == "local" else each


def lora_parameters(model: Dims, rank: int) -> int:
    """Parameters of adapters on all linear layers but the head: rank times the two sides of each product."""
    wide, narrow = model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = 2 * (model.hidden + wide) + 2 * (model.hidden + narrow)
    return model.layers * rank * (attention + model.experts * 3 * (model.hidden + model.mlp))


def fitted(shape: Shape, recipe: RlConfig) -> tuple[Shape, str | None]:
    """The shape within the recipe's limits, and what had to be changed: longer rollouts are cut off."""
    limits = {"turns": recipe.max_turns, "steps": recipe.max_steps, "action": recipe.max_step_tokens}
    changes = {name: float(most) for name, most in limits.items() if most is not None and getattr(shape, name) > most}
    within = msgspec.structs.replace(shape, **changes)
    if within.total > recipe.max_tokens:
        factor = recipe.max_tokens / within.total
        names = ("prompt", "user", "action", "response")
        changes |= {name: round(getattr(within, name) * factor, 1) for name in names}
        within = msgspec.structs.replace(within, **{name: changes[name] for name in names})
    if not changes:
        return shape, None
    told = ", ".join(f"{name} {getattr(shape, name):g} → {getattr(within, name):g}" for name in changes)
    return within, f"the dialogues are longer than the recipe allows, cut to fit: {told}"
