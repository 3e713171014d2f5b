"""Dynamic sampling: groups without signal give way to groups of further tasks, up to a bound.

A group whose members all earned the same (everything or nothing, mostly) has no advantage: an update in which half
the groups are such has half a gradient. Here further tasks are rolled out in their place, in rounds, until every place
has a signal or `most` further groups were spent. What is rolled depends on the update's tasks and its seed alone, so a
resumed run draws the same.

Two things it must not do. A failed rollout is never a zero: it leaves its group here as everywhere, and a group in
which fewer than two members count has no signal because nothing is known of it. And the reward that is reported stays
that of the tasks that were drawn first: those that were replaced are the hard and the easy ones, and leaving them out
would flatter or shame the policy.

Where several processes train, each replaces its own groups, up to `most` in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from cm2.rollout.trace import Rollout
from cm2.train.joint import collected
from cm2.train.processes import Processes

Roll = Callable[[list[int], int], list[list[Rollout]]]
"""Task indices and the number of a round (0: the first draw) to groups."""


class Drawn(msgspec.Struct):
    """The groups of an update."""

    first: list[list[Rollout]]
    """Of the tasks that were drawn first: what is reported."""
    groups: list[list[Rollout]]
    """What is trained on: as many, those without signal replaced where that was possible."""
    further: list[list[Rollout]] = []
    """Every group that was rolled beyond the first."""
    replaced: int = 0

    def of_all(self, processes: Processes) -> Drawn:
        """The same of all processes together, for the first one; elsewhere the own ones."""
        if processes.alone:
            return self
        replaced = sum(processes.every(self.replaced))
        first, further = collected(self.first, processes), collected(self.further, processes)
        return Drawn(first, [], further, replaced)

    @property
    def everyone(self) -> list[list[Rollout]]:
        """Every group that was rolled: each costs time and may have failures."""
        return self.first + self.further


def draw(
    indices: Sequence[int],
    tasks: int,
    most: int,
    seed: int,
    roll: Roll,
    signal: Callable[[list[Rollout]], bool],
) -> Drawn:
    """Roll out these tasks, and further ones in the place of groups without signal.

    Args:
        indices: the update's tasks.
        tasks: how many there are; further ones are those not in `indices`, each at most once.
        most: further groups at the most.
        seed: with `indices`, decides which further tasks come.
        roll: rolls groups out.
        signal: whether a group teaches anything.
    """
    groups = roll(list(indices), 0)
    drawn = Drawn(groups, list(groups))
    if most == 0 or not _answered(groups):
        return drawn
    silent = [place for place, group in enumerate(groups) if not signal(group)]
    others = sorted(set(range(tasks)) - set(indices))
    waiting = np.random.default_rng([seed % 2**32, *indices]).permutation(others).tolist()[:most]
    number = 0
    while silent and waiting:
        number += 1
        chosen, waiting = waiting[: len(silent)], waiting[len(silent) :]
        found = roll(chosen, number)
        drawn.further += found
        for group in found:
            if signal(group):
                drawn.groups[silent.pop(0)] = group
                drawn.replaced += 1
        if not _answered(found):
            break
    return drawn


def _answered(groups: Sequence[Sequence[Rollout]]) -> bool:
    """Whether one rollout counts at least: where the judge or simulator is down, rolling further groups is no cure."""
    return any(rollout.valid for group in groups for rollout in group)
