"""Dynamic sampling: groups without signal give way to groups of further tasks, up to a bound.

A group whose members all earned the same (everything or nothing, mostly) has no advantage: an update in which half
the groups are such has half a gradient. Here further tasks are rolled out in their place, in rounds, until every place
has a signal or `most` further groups were spent. What is rolled depends on the update's tasks and its seed alone, so a
resumed run draws the same.

Two things it must not do. A failed rollout is never a zero: it leaves its group here as everywhere, and a group in
which fewer than two members count has no signal because nothing is known of it. And the reward that is reported stays
that of the tasks that were drawn first: those that were replaced are the hard and the easy ones, and leaving them out
would flatter or shame the policy.

Several processes do what one would: which places are silent is decided over all of them, the further groups of a round
are dealt out, and a group goes to the process whose place it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from cm2.rollout.trace import Rollout, decode, encode
from cm2.train.joint import collected
from cm2.train.processes import Processes

Roll = Callable[[list[int], int, int], list[list[Rollout]]]
"""Task indices, the number of a round (0: the first draw) and the place of the first of them in it, to groups."""


class Drawn(msgspec.Struct):
    """The groups of an update."""

    first: list[list[Rollout]]
    """Of the tasks that were drawn first, this process's: what is reported."""
    groups: list[list[Rollout]]
    """What this process trains on: as many, those without signal replaced where that was possible."""
    further: list[list[Rollout]] = []
    """Every group that was rolled beyond the first, by whatever process."""
    replaced: int = 0
    """How many of them took a place, in whatever process."""

    def of_all(self, processes: Processes) -> Drawn:
        """The same with the first groups of all processes, for the first one; elsewhere with the own ones."""
        return self if processes.alone else Drawn(collected(self.first, processes), [], self.further, self.replaced)

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
    processes: Processes = Processes(),
) -> Drawn:
    """Roll out these tasks, and further ones in the place of groups without signal.

    Args:
        indices: the update's tasks that are this process's, as many as every other's.
        tasks: how many there are; further ones are those that no process has, each at most once.
        most: further groups at the most, of all processes together.
        seed: with all tasks of the update, decides which further tasks come.
        roll: rolls groups out; what fails in one process fails in all.
        signal: whether a group teaches anything.
        processes: those that train.
    """
    mine = len(indices) * processes.rank
    groups = processes.together(lambda: roll(list(indices), 0, mine))
    drawn = Drawn(groups, list(groups))
    if most == 0:
        return drawn
    flags = processes.together(lambda: [not signal(group) for group in groups])
    told = processes.every((list(indices), flags, _answered(groups)))
    silent = [place for place, is_silent in enumerate(flag for _, own, _ in told for flag in own) if is_silent]
    if not any(answered for _, _, answered in told):
        return drawn
    drawn_first = [index for own, _, _ in told for index in own]
    others = sorted(set(range(tasks)) - set(drawn_first))
    waiting = np.random.default_rng([seed % 2**32, *drawn_first]).permutation(others).tolist()[:most]
    number = 0
    while silent and waiting:
        number += 1
        chosen, waiting = waiting[: len(silent)], waiting[len(silent) :]
        found = _round(chosen, number, roll, processes)
        drawn.further += found
        for group in found:
            if signal(group):
                place = silent.pop(0) - mine
                if 0 <= place < len(indices):
                    drawn.groups[place] = group
                drawn.replaced += 1
        if not _answered(found):
            break
    return drawn


def _round(chosen: list[int], number: int, roll: Roll, processes: Processes) -> list[list[Rollout]]:
    """The groups of these tasks, dealt out to the processes and known to all of them."""
    bounds = [len(chosen) * rank // processes.ranks for rank in range(processes.ranks + 1)]
    start, stop = bounds[processes.rank : processes.rank + 2]
    own = processes.together(lambda: roll(chosen[start:stop], number, start) if start < stop else [])
    if processes.alone:
        return own
    told = processes.every([[encode(rollout) for rollout in group] for group in own])
    return [
        group
        for rank, parts in enumerate(told)
        for group in (own if rank == processes.rank else [[decode(line) for line in part] for part in parts])
    ]


def _answered(groups: Sequence[Sequence[Rollout]]) -> bool:
    """Whether one rollout counts at least: where the judge or simulator is down, rolling further groups is no cure."""
    return any(rollout.valid for group in groups for rollout in group)
