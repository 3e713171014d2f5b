"""Order: which tasks come when. Every pass over the tasks has an order of its own, however often a run is resumed.

TRL's sampler draws one permutation after another from one generator; a resumed run would begin with the first again,
whatever pass it was in. Here the number of the pass decides: the e-th pass has the e-th permutation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from trl.trainer.utils import RepeatSampler


class Order(RepeatSampler):
    """TRL's `RepeatSampler`, whose passes can be told apart."""

    epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """The pass that comes next; the trainer says so before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle and self.epoch is not None:
            self.generator.manual_seed(self.seed or 0)
            for _ in range(self.epoch):
                torch.randperm(self.num_samples, generator=self.generator)
        yield from super().__iter__()
