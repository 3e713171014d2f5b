"""Memory of one device while it trains and while it generates.

Training, N devices, P parameters of which P' are trained:

    local    weights 4P, gradients 4P', AdamW 8P', reference 4P, 16-bit casts of what is trained 2P'
    sharded  all of it over N (frozen weights in 16 bits), two gathered layers and the head in 16 bits

PPO's critic of C parameters adds 12C (weights, AdamW), over N where it is a whole network; its gradients, 4C, are never
there together with the policy's, so the larger ones count. Then the activations of one pass of `micro_tokens`:
everything that the backward pass needs of the trained layers (local), or each layer's input and one layer's activations
(sharded, which checkpoints), and the logits of the sampled tokens.

Generation keeps the weights, the optimizer and the reference where they are; what is left over is for the cache. Where
the batch needs more, it is generated in rounds.
"""

from __future__ import annotations

import math

import msgspec

from cm2.plan.setup import Setup

Bytes = float
MOST_WEIGHTS = 0.5
"""Of the memory that training leaves, what a serving engine's weights may take before it spans more devices."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one device in the training phase."""

    weights: Bytes
    gradients: Bytes
    optimizer: Bytes
    reference: Bytes
    critic: Bytes
    """Weights and optimizer of PPO's critic."""
    working: Bytes
    """Weights gathered or cast for the products."""
    activations: Bytes
    logits: Bytes
    micro_tokens: int
    """Tokens of the pass that the last two are of."""

    @property
    def resident(self) -> Bytes:
        """What stays there while the device generates."""
        return self.weights + self.optimizer + self.reference + self.critic

    @property
    def total(self) -> Bytes:
        """All of it."""
        return self.resident + self.gradients + self.working + self.activations + self.logits


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one device in the generation phase."""

    width: int
    """Devices that one copy of the serving engine spans: as few as leave most of the memory to the cache."""
    weights: Bytes
    """The device's part of that copy; 0 where the trained model itself generates."""
    cache: Bytes
    """Keys and values of the rollouts under way, as long as the mean one gets, the prompt once a group."""
    room: Bytes
    """What is left for it; infinite where the memory of the device is not known."""
    rounds: int
    """How often the room must be filled."""
    at_once: int
    """Rollouts under way in a round, for each device; a copy of width W has W times as many."""
    resident: Bytes
    """What training leaves there."""

    @property
    def total(self) -> Bytes:
        """All of it, of one round."""
        return self.resident + self.weights + min(self.cache, self.room)


class Memory(msgspec.Struct, frozen=True):
    """Both phases, and whether they fit."""

    training: Training
    generation: Generation
    budget: Bytes
    """What may be used of the device; 0: not known."""
    fits: bool


def memory(setup: Setup) -> Memory:
    """Memory of one device."""
    training = _training(setup)
    budget = setup.device.memory * (1 - setup.constants["fragment"])
    generation = _generation(setup, training, budget)
    longest = setup.model.cache(_wide(setup)) * setup.recipe.max_tokens
    fits = not budget or (training.total <= budget and generation.room >= longest)
    return Memory(training, generation, budget, fits)


def _wide(setup: Setup) -> int:
    return 2 if setup.wide else 4


def _training(setup: Setup) -> Training:
    model, recipe, trained = setup.model, setup.recipe, setup.trained
    sharded = setup.engine == "sharded"
    over = setup.gpus if sharded else 1
    frozen = (
        0 if trained == model.parameters and not recipe.lora else model.parameters - (0 if recipe.lora else trained)
    )
    held = frozen * (2 if sharded else 4) + trained * 4
    reference = model.parameters * (2 if sharded else 4) if recipe.beta and not recipe.lora else 0
    longest = recipe.max_tokens if sharded else min(recipe.max_tokens, setup.shape.total * setup.constants["longest"])
    micro = max(recipe.micro_tokens, round(longest))  # a rollout is not divided
    each = model.activations(_wide(setup))
    if sharded:
        layer = (model.parameters - setup.embeddings) / model.layers
        working = 2 * 2 * layer + 2 * model.head
        activations = micro * (model.layers * model.hidden * 2 + each)
    else:
        working = 2 * trained if setup.wide else 0
        activations = micro * (recipe.layers or model.layers) * each
    logits = micro * _sampled(setup) * model.vocab * (4 + 4)  # 32-bit logits and their gradient
    return Training(
        weights=held / over,
        gradients=4 * max(trained, setup.critic) / over,
        optimizer=8 * trained / over,
        reference=reference / over,
        critic=12 * setup.critic / over,
        working=working,
        activations=activations,
        logits=logits,
        micro_tokens=micro,
    )


def computed(setup: Setup) -> float:
    """Tokens of a rollout that training computes: all, or the prompt once a group, or the measured share on a CPU."""
    shape = setup.shape
    if setup.engine == "sharded":
        return shape.total
    if setup.device.cpu:
        return shape.total * setup.constants["local_share"]
    return shape.prompt / setup.recipe.group + shape.total - shape.prompt


def _sampled(setup: Setup) -> float:
    return min(1.0, setup.shape.generated / computed(setup))


def _generation(setup: Setup, training: Training, budget: Bytes) -> Generation:
    model, shape = setup.model, setup.shape
    width, weights = 1, 0.0
    if setup.engine == "sharded":
        weights = 2.0 * model.parameters
        while budget and width < setup.gpus and weights / width > MOST_WEIGHTS * (budget - training.resident):
            width *= 2
        weights /= width
    token = model.cache(_wide(setup))
    together = setup.together
    each = token * (shape.prompt / setup.recipe.group + shape.total - shape.prompt)
    room = max(budget - training.resident - weights, 0.0) if budget else math.inf
    at_once = max(min(together, math.floor(room / each)) if math.isfinite(room) else together, 1)
    return Generation(
        width=width,
        weights=weights,
        cache=together * each,
        room=room,
        rounds=math.ceil(setup.rollouts / setup.gpus / at_once),
        at_once=at_once,
        resident=training.resident,
    )
