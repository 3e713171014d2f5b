"""Micro-batches: the rows of a step cut into parts that fit into memory, and the tensors of each part.

A part has up to so many ids of a forward pass. Where rows are packed (`cm2.train.prefix`) what a group shares counts
once, so rows of a prompt stay together; where they are padded each costs as much as the longest, so rows of one length
do. What the parts' losses are multiplied by, so that they add up to the step's, is the trainer's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cm2.train import prefix


def cut(rows: list[int], ids: list[list[int]], prompts: Sequence[int], most: int, packed: bool) -> list[list[int]]:
    """These rows in parts of up to `most` ids; a row alone may be longer.

    Args:
        rows: numbers of rows.
        ids: of every row, its prompt included.
        prompts: a number for the prompt of every row, or the same for all.
        most: ids of a part.
        packed: whether common beginnings are read once.
    """

    def size(part: list[int]) -> int:
        chosen = [ids[row] for row in part]
        return prefix.packed_size(chosen) if packed else len(chosen) * max(map(len, chosen))

    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (prompts[row], 0 if packed else len(ids[row]), row)):
        together = groups and prompts[groups[-1][0]] == prompts[row]
        if together and size([*groups[-1], row]) <= most:
            groups[-1].append(row)
        else:
            groups.append([row])
    if not packed:
        return groups
    parts: list[list[int]] = []
    room = 0
    for group in groups:
        own = size(group)
        if not parts or room < own:
            parts.append([])
            room = most
        parts[-1] += group
        room -= own
    return parts


def padded(values: Sequence[Sequence[float]], like: torch.Tensor) -> torch.Tensor:
    """Numbers of each row as a tensor of this shape, 0 behind them."""
    out = torch.zeros(like.shape, dtype=torch.float32, device=like.device)
    for row, own in zip(out, values, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.float32)
    return out


def unpadded(batch: dict[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt and completion ids of every row, without padding."""
    parts = ((batch[f"{name}_ids"], batch[f"{name}_mask"].bool()) for name in ("prompt", "completion"))
    prompts, completions = ([row[seen].tolist() for row, seen in zip(*part, strict=True)] for part in parts)
    return prompts, completions


def select(batch: dict[str, Any], index: torch.Tensor) -> dict[str, Any]:
    """These rows of every tensor that has rows, without the padding that they no longer need."""
    count = len(batch["completion_ids"])
    part = {
        name: value[index] if isinstance(value, torch.Tensor) and value.dim() and len(value) == count else value
        for name, value in batch.items()
    }
    used = part["completion_mask"].any(0)
    width = int(used.nonzero().max()) + 1 if bool(used.any()) else 1
    before = part["prompt_mask"].any(0).nonzero()[0, 0]
    for name, value in part.items():
        if isinstance(value, torch.Tensor) and value.dim() == 2:
            part[name] = value[:, before:] if name.startswith("prompt_") else value[:, :width]
    return part
