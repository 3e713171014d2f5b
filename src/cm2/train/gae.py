"""Generalised advantage estimation over the sampled tokens of rollouts.

An action is a sampled token; what tools and people say belongs to the environment, so the state after the last token of
a step is the one before the first token of the next step, however many shown tokens stand between. With V_i the value
of the state before token i, r_i its reward and V after the last token 0 (a rollout that has ended earns nothing more,
whatever ended it):

    δ_i = r_i + γ·V_{i+1} − V_i        A_i = δ_i + γλ·A_{i+1}        return_i = A_i + V_i
"""

from __future__ import annotations

from collections.abc import Callable

import torch

EPSILON = 1e-8


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns (B, T), 0 where nothing was sampled.

    Args:
        rewards, values: (B, T); read where `mask` is 1 only.
        mask: (B, T), 1 where a token was sampled.
    """
    sampled = mask.bool()
    found = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    ahead = torch.zeros_like(following)
    for t in reversed(range(values.shape[1])):
        here = sampled[:, t]
        advantage = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * ahead
        found[:, t] = torch.where(here, advantage, found[:, t])
        ahead = torch.where(here, advantage, ahead)
        following = torch.where(here, values[:, t], following)
    return found, torch.where(sampled, found + values, torch.zeros_like(values))


def whitened(
    advantages: torch.Tensor, mask: torch.Tensor, total: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums
) -> torch.Tensor:
    """The advantages with mean 0 and deviation 1 over the sampled tokens of all processes; 0 elsewhere.

    `total` adds a tensor up over the processes.
    """
    one = mask.to(advantages.dtype)
    count, mean = total(torch.stack([one.sum(), (advantages * one).sum()]))
    mean = mean / count.clamp(min=1.0)
    away = (advantages - mean) * one
    deviation = (total((away**2).sum()) / count.clamp(min=1.0)).sqrt()
    found: torch.Tensor = away / (deviation + EPSILON)
    return found
