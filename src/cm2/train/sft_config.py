"""Configuration of `cm2 sft`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cm2.train.embedded import NAME

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class SftConfig(msgspec.Struct, kw_only=True):
    """Everything that decides a run. The defaults are the published cold start's, at a batch that a laptop finishes."""

    input: str
    """Dialogues: an agent's good runs, or references."""
    output: str
    """The run folder. The same command goes on where a killed one stopped."""
    model: str = NAME
    """What to start from: "embedded", a Hugging Face folder (another run's model/ is one), or a Hugging Face name."""
    epochs: Positive = 2.0
    """Passes over the data; a fraction trains a part of it. More than three memorise small sets."""
    lr: Positive = 1e-5
    """Peak learning rate. An 8B model wants this one, the embedded 135M model 1e-4 to 3e-4, LoRA ten times full."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Share = 0.1
    """The share of all steps in which the learning rate rises; without it Adam's first steps are wild."""
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """AdamW's pull to zero; a short fine-tuning rarely needs any."""
    clip: Positive = 1.0
    """The largest gradient norm of a step; larger ones are scaled down, so that one odd dialogue cannot wreck it."""
    batch: Count = 16
    """Dialogues a step. The published run has 64; fewer give a small data set more steps."""
    micro_batch: Count = 4
    """Dialogues at once in memory, of each process; so many of all processes must divide `batch`. Lower it when memory
    runs out: the numbers stay the same."""
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 4096
    """The longest example. A longer dialogue is cut after the last step that fits, never inside one."""
    lora: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rank of LoRA adapters on all linear layers but the head; 0 trains every weight. For models that barely fit."""
    lora_alpha: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Scale of the adapters; 0 means twice the rank."""
    lora_dropout: Share = 0.0
    """Dropout before the adapters, for small data sets."""
    limit: Count | None = None
    """Only the first so many dialogues that can be trained."""
    seed: int = 0
    """Decides the order of the data and the adapters' start."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights and optimizer stay float32. auto: bfloat16 where the hardware multiplies it."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: a third slower, for when one dialogue does not fit in memory."""
    save_every: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """Seconds between checkpoints (three times the model's size on disk); 0 makes none but on Ctrl-C."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""


FREE = ("input", "output", "save_every", "format")
"""Settings on which no number depends (of the input, its content counts): they may change when a run is resumed."""
