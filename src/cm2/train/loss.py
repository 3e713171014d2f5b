"""The token-mean loss without waste: the head only where there is loss, no padding, a common beginning read once.

Dialogues of one agent begin with the same system prompt and tools. `packed_loss` lets those of a micro-batch share it
(see `cm2.train.prefix`); `sparse_loss` is for models that cannot. Both give the numbers of the plain forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from cm2.rollout.decode import unwrap
from cm2.train import prefix
from cm2.train.masks import BEGINNING, IGNORED


def packed_loss(model: Any, ids: Sequence[np.ndarray], masks: Sequence[np.ndarray], count: Any = None) -> torch.Tensor:
    """Cross entropy summed over the trained ids of the rows, over `count` (default: how many there are).

    Args:
        model: one that `cm2.train.prefix.supports`.
        ids: per row, without padding.
        masks: per row, which ids are trained; never the first.
    """
    cuts = common(ids, masks)
    rows = list(zip(ids, cuts, strict=True))
    packed = prefix.pack([row[:cut].tolist() for row, cut in rows], [row[cut:].tolist() for row, cut in rows])
    chosen = [torch.from_numpy(mask[cut:]) for mask, cut in zip(masks, cuts, strict=True)]
    wanted = torch.cat([places[mask] for places, mask in zip(packed.places, chosen, strict=True)])
    targets = torch.cat([torch.from_numpy(row[mask]).long() for row, mask in zip(ids, masks, strict=True)])
    total = cross_entropy(prefix.logits_of(model, packed, wanted).float(), targets, reduction="sum")
    return total / (len(targets) if count is None else count)


def common(ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[int]:
    """Per row, how many ids at its beginning it shares with every row that begins like it; none of them is trained.
    Of a row in which nothing is trained all but the last."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, mine in enumerate(ids):
        groups.setdefault(tuple(mine[:BEGINNING].tolist()), []).append(row)
    cuts = [0] * len(ids)
    for rows in groups.values():
        cut = min(int(masks[row].argmax()) if masks[row].any() else len(ids[row]) - 1 for row in rows)
        for row in rows[1:]:
            differ = np.nonzero(ids[rows[0]][:cut] != ids[row][:cut])[0]
            cut = min(cut, int(differ[0])) if len(differ) else cut
        for row in rows:
            cuts[row] = cut
    return cuts


def sparse_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor, count: Any = None) -> torch.Tensor:
    """Cross entropy summed over the positions with a label, over `count` (default: how many there are).

    Rows are padded at the right, where causal attention never looks, so no mask is passed: attention without one is
    faster. The output head sees only the states that predict a label; what the model's own forward does after it
    (scaling, soft capping) is done to their logits as to any.
    """
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    with only(unwrap(model).get_output_embeddings(), wanted):
        logits = model(input_ids=ids, use_cache=False).logits
    total = cross_entropy(logits.float(), targets[wanted], reduction="sum")
    return total / (wanted.sum() if count is None else count)


@contextlib.contextmanager
def only(head: torch.nn.Module, wanted: torch.Tensor) -> Iterator[None]:
    """While it lasts, `head` is applied to the chosen positions of (batch, length - 1) only: (chosen, hidden)."""

    def choose(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, :-1][wanted], *args[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
