"""PpoConfig: the settings of the critic and of the advantages that it gives."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PpoConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Read where `algorithm` is ppo; GRPO has no critic and needs none of it."""

    gamma: Unit = 1.0
    """What a reward counts one sampled token earlier. 1: the return is the checklist reward itself; anything less makes
    long answers pay less."""
    lam: Unit = 1.0
    """GAE's λ. 1: advantage = return − value, without bias whatever the critic says. Lower it (0.95 to 0.99) once
    `value_explained` is high: less variance, and credit stays near the step that earned it."""
    lr: Positive = 1e-3
    """Learning rate of the value head, an optimizer group of its own. It is one linear layer that starts at zero and
    has to keep up with the policy, so it bears far more than the policy's rate."""
    coef: Positive = 0.1
    """Factor of the value loss. Adam takes it out of the head's own steps; with `trunk` it says how much of the
    policy's gradient is the critic's."""
    clip: Positive | None = 0.2
    """How far a value may move from the one at sampling time before its gradient is cut; rewards are in [0, 1]. None
    does not clip. Matters where batches are reused."""
    trunk: bool = False
    """Whether the value loss also trains the policy's network. Off, the head reads the last hidden state as it is, and
    the policy's gradient is the policy loss's alone; turn it on where `value_explained` stays low."""
    whiten: bool = True
    """Bring advantages to mean 0 and deviation 1 over the sampled tokens of a batch: steps of the same size however
    small the rewards still are. Off keeps the scale of the rewards, as GRPO's default does."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the penalty to the cold start acts. loss: beta · KL is added to the loss, as in GRPO. reward: beta ·
    (log π − log π_start) is taken from each token's reward, so that the critic foresees it and a token answers for the
    drift it leads to (the classical form)."""
