"""ValueHead: the critic, one linear layer over the policy's last hidden state.

It predicts what a rollout is still to earn from where it stands. The hidden state is the one that the policy computed
anyway (`last_hidden` listens to the decoder), so a critic costs no second network and no second forward pass.

It is no part of the model: what is saved for others stays a plain causal language model, and the decoder never sees
it. Checkpoints hold it beside the optimizer's state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cm2.errors import DataError, Where
from cm2.rollout.decode import unwrap

FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """V(h) = w·h + b, in float32 whatever the policy computes in.

    It starts at zero: the first update then has no critic's guess in its advantages, and there is nothing to draw.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, width) to (…)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ self.weight + self.bias

    def save(self, folder: str) -> None:
        """Write it into a checkpoint's folder."""
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, _file(folder))

    def load(self, folder: str) -> None:
        """Read it from a checkpoint's folder.

        Raises:
            DataError: there is none.
        """
        if not _file(folder).exists():
            raise DataError(
                "the checkpoint has no value head", where=Where(file=folder), fix="begin again in another folder"
            )
        self.load_state_dict(load_file(_file(folder)))


def value_loss(
    values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """½·(V − return)² of each token, and where its clipped form cut the gradient.

    Clipped: ½·max((V − return)², (V_clip − return)²), V_clip = V_old + clamp(V − V_old, ±clip): a value that has gone
    further than `clip` from where it was gains nothing by going on.
    """
    plain = (values - returns) ** 2
    if clip is None:
        return 0.5 * plain, torch.zeros_like(plain, dtype=torch.bool)
    held = (old + (values - old).clamp(-clip, clip) - returns) ** 2
    return 0.5 * torch.maximum(plain, held), held > plain


def explained(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 − Var(return − V) / Var(return): 1 is a perfect critic, 0 one that knows the mean only, below 0 a harmful one.

    0 where all returns are alike: there is nothing to explain.
    """
    spread = float(returns.var(unbiased=False)) if returns.numel() else 0.0
    return 1.0 - float((returns - values).var(unbiased=False)) / spread if spread > 1e-12 else 0.0


@contextlib.contextmanager
def last_hidden(model: Any) -> Iterator[list[torch.Tensor]]:
    """The last hidden states (B, N, width), after the final norm, of each forward pass while the context lasts."""
    seen: list[torch.Tensor] = []

    def listen(module: nn.Module, given: Any, found: Any) -> None:
        seen.append(found[0])

    handle = unwrap(model).get_decoder().register_forward_hook(listen)
    try:
        yield seen
    finally:
        handle.remove()


def width_of(model: Any) -> int:
    """The width of the hidden state that the model's head reads."""
    return int(unwrap(model).get_output_embeddings().weight.shape[1])


def _file(folder: str) -> Path:
    return Path(folder) / FILE
