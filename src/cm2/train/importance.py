"""Truncated importance sampling: rollouts were drawn by μ, the sampler; the gradient wants π, the policy as trained.

The two are the same weights and yet not the same distribution where the sampler computes otherwise (bfloat16 or
quantised decoding, another engine's kernels, weights that arrived an update late). An unbiased gradient weighs by π/μ;
cut off at C its variance is bounded, at the price of some bias (`truncated`):

    token:     w_i = min(π(a_i)/μ(a_i), C)             a token's own ratio
    sequence:  w   = min(Π_i π(a_i)/μ(a_i), C)         the whole rollout's, for each of its tokens

w is constant for the gradient and above 0, so it may be folded into the advantages of the clipped objective, exactly:
min(r·A, clip(r)·A)·w = min(r·(w·A), clip(r)·(w·A)). There r is the ratio to π at sampling time, not to μ.
"""

from __future__ import annotations

from typing import Literal

import torch

Mode = Literal["none", "token", "sequence"]


def truncated(policy: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor, mode: Mode, most: float) -> torch.Tensor:
    """w (B, T), 1 where nothing was sampled.

    Args:
        policy, sampler: log π and log μ of the sampled tokens, (B, T).
        mask: 1 where a token was sampled.
        most: C.
    """
    if mode == "none":
        return torch.ones_like(policy)
    log_ratio = (policy - sampler).detach() * mask
    if mode == "sequence":
        log_ratio = log_ratio.sum(1, keepdim=True).expand_as(log_ratio)
    found = log_ratio.clamp(max=_log(most)).exp()
    return torch.where(mask.bool(), found, torch.ones_like(found))


def cut(weights: torch.Tensor, mask: torch.Tensor, most: float) -> float:
    """The share of sampled tokens whose weight was cut off."""
    sampled = mask.bool()
    return float((weights[sampled] >= most * (1 - 1e-6)).float().mean()) if bool(sampled.any()) else 0.0


def _log(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).log())
