"""Sampling: how the next token is drawn, and with which randomness.

Randomness belongs to the rollout, not to the batch: the number behind a token is a hash of (seed, rollout, position),
so a rollout draws the same numbers whatever stands beside it, in whatever order rollouts finish. (Logits themselves may
differ in the last bits when the shape of a matrix product changes, so equal tokens are likely, not certain.)

The recorded log-probability is that of the sampled token under softmax(logits / temperature) over the whole vocabulary,
which is what a trainer computes again; top-k and top-p only restrict what is drawn. Greedy decoding records
temperature 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cm2.errors import ConfigError
from cm2.rollout import kernels

if TYPE_CHECKING:
    import torch

_TOP_P_CANDIDATES = 512
"""How many of the likeliest tokens are looked at before the whole vocabulary is sorted for top-p."""


class Sampling(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How tokens are drawn and how many."""

    temperature: float = 1.0
    """Lower is safer and less varied: a group whose rollouts agree teaches nothing. 0 is greedy."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0 draws from all. Truncation makes training slightly off-policy."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens with this much mass; 1 draws from all."""
    max_step_tokens: int = 256
    """A single action longer than this is cut off and flagged."""
    max_tokens: int = 2048
    """A whole rollout, prompt included, is ended at this length."""
    seed: int = 0
    """The same seed, rollouts and weights give the same numbers."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0, 10),
            ("top_k", 0, 2**31),
            ("top_p", 1e-6, 1),
            ("max_step_tokens", 1, 2**31),
            ("max_tokens", 1, 2**31),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)}; it must be between {low} and {high}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def uniforms(seed: int, rollouts: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one per (rollout, position), by two rounds of splitmix64; shape (n,), float64."""
    with np.errstate(over="ignore"):
        x = _mix(
            np.uint64(seed & (2**64 - 1)) + np.uint64(0x9E3779B97F4A7C15) * (rollouts.astype(np.uint64) + np.uint64(1))
        )
        x = _mix(x + np.uint64(0xD1B54A32D192ED03) * (positions.astype(np.uint64) + np.uint64(1)))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(logits: torch.Tensor, numbers: np.ndarray, sampling: Sampling) -> tuple[list[int], list[float]]:
    """Sample one token per row.

    Args:
        logits: (rows, vocabulary), any float type.
        numbers: (rows,) uniform numbers in [0, 1).

    Returns:
        (ids, log-probabilities in nats), one per row.
    """
    import torch

    library = None
    if logits.device.type == "cpu" and logits.dtype in (torch.bfloat16, torch.float32) and logits.is_contiguous():
        library = kernels.load(logits.dtype == torch.bfloat16)
    if library is not None and not sampling.top_k and sampling.top_p == 1:
        return _draw_compiled(library, logits, numbers, sampling)
    logits = logits.float()
    if not sampling.greedy and sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    norm = torch.logsumexp(logits, -1)
    if sampling.greedy:
        ids = logits.argmax(-1)
    else:
        u = torch.from_numpy(numbers).to(logits.device)
        ids = _inverse_cdf((logits - norm[:, None]).exp_(), u, sampling)
    picked = logits.gather(-1, ids[:, None])[:, 0] - norm
    return ids.tolist(), picked.tolist()


def _draw_compiled(
    library: Any, logits: torch.Tensor, numbers: np.ndarray, sampling: Sampling
) -> tuple[list[int], list[float]]:
    rows, vocabulary = logits.shape
    numbers = np.ascontiguousarray(numbers, dtype=np.float64)
    ids, logprobs = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.float32)
    inverse = 1.0 if sampling.greedy else 1.0 / sampling.temperature
    pointers = [array.ctypes.data for array in (numbers, ids, logprobs)]
    library.cm2_draw(rows, vocabulary, logits.data_ptr(), inverse, sampling.greedy, *pointers)
    return ids.tolist(), logprobs.tolist()


def _inverse_cdf(p: torch.Tensor, u: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    import torch

    names = None
    if sampling.top_k or sampling.top_p < 1:
        p, names = _truncate(p, sampling)
    mass = p.cumsum(-1)
    target = (u * mass[:, -1]).to(mass.dtype)[:, None]
    index = torch.searchsorted(mass, target, right=True).clamp_(max=p.shape[-1] - 1)
    index = torch.where(p.gather(-1, index) > 0, index, p.argmax(-1, keepdim=True))[:, 0]
    return index if names is None else names.gather(-1, index[:, None])[:, 0]


def _truncate(p: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    vocabulary = p.shape[-1]
    count = min(sampling.top_k or _TOP_P_CANDIDATES, vocabulary)
    top, names = p.topk(count, -1)
    if sampling.top_p < 1:
        if not sampling.top_k and count < vocabulary and bool((top.sum(-1) < sampling.top_p).any()):
            top, names = p.sort(-1, descending=True)
        whole = top.sum(-1, keepdim=True) if sampling.top_k else 1.0
        before = top.cumsum(-1) - top
        top = top.masked_fill(before >= sampling.top_p * whole, 0.0)  # the first token always stays
    return top, names
