"""Portions: which rows of an update each process trains, so that their mean gradient is the one of a single process.

A process rolls whole groups. With one optimizer step an update it trains the rows that it rolled. With several, the
rows of all processes are shuffled together, as one process shuffles its own, and each trains its part of every
mini-batch: mini-batches are then the same, however many processes there are.

TRL gathers statistics in every forward pass, so processes must make equally many of them: those that have fewer
micro-batches repeat one row of theirs with nothing to learn in it.
"""

from __future__ import annotations

from typing import Any

import torch

from cm2.train.processes import Processes
from cm2.train.roll import Row

Part = tuple[dict[str, Any], float]


def dealt(rows: list[Row], mini_batches: int, processes: Processes) -> list[Row]:
    """This process's part of every mini-batch, one mini-batch after the other, of the rows that all have rolled."""
    if processes.alone or mini_batches == 1:
        return rows
    everyone = [row for own in processes.every(rows) for row in own]
    # The same draw from the same generator as TRL's shuffle: what one process does.
    order = processes.lead(lambda: torch.randperm(len(everyone)).tolist())
    size = len(everyone) // mini_batches // processes.ranks
    starts = [(number * processes.ranks + processes.rank) * size for number in range(mini_batches)]
    return [everyone[row] for start in starts for row in order[start : start + size]]


def evened(parts: list[Part], processes: Processes) -> list[Part]:
    """The micro-batches, as many as the process with the most has; those that are added have no loss."""
    if processes.alone:
        return parts
    missing = max(processes.every(len(parts))) - len(parts)
    if not missing:
        return parts
    part, _ = parts[0]
    count = len(part["completion_ids"])
    row = {
        name: value[:1] if isinstance(value, torch.Tensor) and value.dim() and len(value) == count else value
        for name, value in part.items()
    }
    row["tool_mask"] = torch.zeros_like(row["completion_mask"])
    return [(row, 0.0)] * missing + parts
