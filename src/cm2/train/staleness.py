"""Staleness: how old the rollouts of an update are, and how far the policy has gone since they were drawn.

`staleness` counts optimizer steps between the weights that sampled and the weights that are trained: 0 for the first
step of a batch of rollouts, then 1, 2 … while it is used again (`epochs`, `mini_batches`). The log-ratio log π − log μ
of the sampled tokens tells how much that matters, and at staleness 0 how well sampler and trainer agree at all: there
it should be rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _alone(sums: Any) -> list[Any]:
    return [sums]


class Staleness:
    """Call `sampled` when rollouts are drawn, `begin` at each optimizer step and `see` for each of its parts."""

    def __init__(self) -> None:
        self.at = 0
        """The optimizer step whose weights sampled."""
        self.begin()

    def sampled(self, step: int) -> None:
        """Rollouts were drawn with the weights of this step."""
        self.at = step

    def begin(self) -> None:
        """A new optimizer step."""
        self._count, self._sum, self._away, self._most = 0, 0.0, 0.0, 0.0

    def see(self, policy: torch.Tensor, sampler: torch.Tensor | None, mask: torch.Tensor) -> None:
        """Take in the log-probabilities of sampled tokens; a sampler that gave none tells nothing."""
        if sampler is None:
            return
        ratio = (policy.detach() - sampler)[mask.bool()]
        if ratio.numel():
            self._count += ratio.numel()
            self._sum += float(ratio.sum())
            self._away += float(ratio.abs().sum())
            self._most = max(self._most, float(ratio.abs().max()))

    def numbers(self, step: int, every: Callable[[Any], list[Any]] = _alone) -> dict[str, float]:
        """`staleness`, and the mean, mean size and largest size of the log-ratio over what this step has trained.

        `every` gives what each of several processes gave to it (`Processes.every`).
        """
        found: dict[str, float] = {"staleness": step - self.at}
        counts, sums, aways, most = zip(*every((self._count, self._sum, self._away, self._most)), strict=True)
        if count := sum(counts):
            found |= {
                "log_ratio_mean": sum(sums) / count,
                "log_ratio_abs": sum(aways) / count,
                "log_ratio_max": max(most),
            }
        return found
