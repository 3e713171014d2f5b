"""Cluster: the machines that a run of verl gets, and what follows from them for a recipe.

Sizes come from the plan (`cm2.plan`): how many devices a copy of the serving engine spans, what of a device it may have
while the trainer's state sleeps beside it, and whether that state must move to the processor's memory.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cm2.errors import ConfigError
from cm2.plan.devices import device_of
from cm2.plan.plan import make_plan
from cm2.train.rl_config import RlConfig

Count = Annotated[int, msgspec.Meta(ge=1)]
MOST = 64
"""Devices that configurations are written for."""
LEFT = 0.9
"""Of a device's memory, what may be used at all."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices that train and generate. Judge and simulator are endpoints elsewhere, named in the models' file."""

    gpus: Count = 8
    """In all, from 1 to 64."""
    nodes: Count = 1
    """Machines that they are in, the same number in each."""
    gpu: str = "h100"
    """Which; see `cm2.plan.devices`."""
    engine: Literal["vllm", "sglang"] = "vllm"
    """What generates."""
    template: Literal["model", "cm2"] = "model"
    """The chat template: the model's own, or this package's. A template that drops earlier thinking (Qwen3's own)
    cannot be used token by token; take cm2 there, unless the cold start was saved with a training template."""
    save_steps: Count = 20
    """Steps of verl between checkpoints: a recipe says seconds, which verl cannot."""

    def __post_init__(self) -> None:
        if self.gpus > MOST:
            raise ConfigError(f"{self.gpus} devices", fix=f"give --gpus 1 to {MOST}; beyond that, edit the file")
        if self.gpus % self.nodes:
            raise ConfigError(
                f"{self.gpus} devices do not divide over {self.nodes} nodes", fix="give each node the same number"
            )
        device_of(self.gpu)

    @property
    def each(self) -> int:
        """Devices of a node."""
        return self.gpus // self.nodes


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What the machines mean for one recipe."""

    width: int = 1
    """Devices that one copy of the serving engine spans."""
    share: float = 0.5
    """Of a device's memory, the serving engine's."""
    offload: bool = False
    """Whether weights and optimizer wait in the processor's memory while others work."""
    notes: tuple[str, ...] = ()


def sizes_of(recipe: RlConfig, cluster: Cluster) -> Sizes:
    """The sizes of a recipe on a cluster; careful defaults for a model that the plan does not know."""
    try:
        plan = make_plan(recipe, gpus=cluster.gpus, gpu=cluster.gpu, engine="sharded")
    except ConfigError as error:
        return Sizes(notes=(f"sizes are verl's defaults, not planned: {error.message}",))
    device = device_of(cluster.gpu)
    if device.cpu:
        raise ConfigError("verl trains on GPUs", fix="give --gpu h100, h200, a100, l40s or rtx4090")
    training, generation = plan.memory.training, plan.memory.generation
    offload = training.resident > 0.4 * device.memory or training.total > LEFT * device.memory
    left = LEFT - (0.0 if offload else training.resident / device.memory)
    width = 1
    while width < min(generation.width, cluster.each):
        width *= 2
    if cluster.each % width:
        raise ConfigError(
            f"a copy of {plan.setup.model.name} spans {width} devices, which do not divide {cluster.each} of a node",
            fix="change --gpus or --nodes",
        )
    notes = []
    if training.total - (training.resident if offload else 0) > LEFT * device.memory:
        notes.append(
            f"training needs about {training.total / 1e9:.0f} GB of a device with {device.memory / 1e9:.0f} GB: give "
            "more devices, adapters (lora), or a shorter max_tokens"
        )
    return Sizes(width=width, share=round(max(0.3, min(0.85, left)), 2), offload=offload, notes=tuple(notes))
