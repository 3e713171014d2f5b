"""Prefix-shared forward: rows are read as one sequence in which everything that they have in common stands once.

The rollouts of a group start with the same prompt, and mostly go on alike: the same first call, the same answer. A
padded batch computes all that for every one of them. Here a batch is packed without padding into one row of ids that
spells a tree, a parent before its children,

    [prompt][first call, answer][second call of 1 and 3][second call of 2] …

and attention is told who may see whom: a token sees its ancestors and its own piece up to itself, nothing else.
Positions are those of its own row, so each log-probability, and each gradient, is the one of the row read alone (tested
against the plain forward pass). Logits are computed only where they are asked for.

It works through transformers' attention interface, so for any causal model with full attention that uses it; `supports`
tries it on a few ids against the model's own forward pass and says whether the numbers agree.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch.nn.functional import scaled_dot_product_attention

from cm2.train.cascade import Cascade

if TYPE_CHECKING:
    from cm2.train.trunk import Trunk

ATTENTION = "cm2_prefix"


class Family(msgspec.Struct, frozen=True):
    """Pieces with one parent: where they start in the pack and how long they are; `before` are their ancestors,
    likewise, from the root on."""

    before: tuple[tuple[int, int], ...]
    starts: list[int]
    lengths: list[int]


class Pack(msgspec.Struct, frozen=True):
    """Rows in one sequence."""

    ids: torch.Tensor
    """(1, N) token ids."""
    positions: torch.Tensor
    """(1, N)."""
    families: list[Family]
    """In the order in which their pieces stand in the pack."""
    places: list[torch.Tensor]
    """Per row, in the order given to `pack`: where the token stands whose logits predict each id after the prompt."""
    stands: list[torch.Tensor]
    """Per row: where each of its ids stands."""


def pack(prompts: list[list[int]], completions: list[list[int]]) -> Pack:
    """Pack rows, whatever they have in common.

    Args:
        prompts: ids per row, at least one each.
        completions: ids per row, at least one each. A row's last id predicts nothing asked for, so it is not read.
    """
    rows = [prompt + completion[:-1] for prompt, completion in zip(prompts, completions, strict=True)]
    ids: list[int] = []
    positions: list[int] = []
    families: list[Family] = []
    stands: list[list[int]] = [[] for _ in rows]
    waiting: deque[tuple[tuple[tuple[int, int], ...], list[int], int]] = deque([((), list(range(len(rows))), 0)])
    while waiting:
        before, members, at = waiting.popleft()
        branches: dict[int, list[int]] = {}
        for row in members:
            if at < len(rows[row]):
                branches.setdefault(rows[row][at], []).append(row)
        if not branches:
            continue
        family = Family(before, [], [])
        for branch in branches.values():
            end = _together([rows[row] for row in branch], at)
            start, length = len(ids), end - at
            ids += rows[branch[0]][at:end]
            positions += range(at, end)
            family.starts.append(start)
            family.lengths.append(length)
            for row in branch:
                stands[row] += range(start, start + length)
            waiting.append(((*before, (start, length)), branch, end))
        families.append(family)
    places = [torch.tensor(stand[len(prompt) - 1 :]) for stand, prompt in zip(stands, prompts, strict=True)]
    return Pack(torch.tensor([ids]), torch.tensor([positions]), families, places, [torch.tensor(s) for s in stands])


def _together(rows: list[list[int]], start: int) -> int:
    """Up to where these rows, alike before `start`, go on alike."""
    end = min(len(row) for row in rows)
    first, last = min(rows), max(rows)  # what these two share, all share
    at = start
    while at < end and first[at] == last[at]:
        at += 1
    return at


def packed_size(rows: list[list[int]]) -> int:
    """How many ids these rows take when packed together."""
    ordered = sorted(rows)
    shared = sum(_together([a, b], 0) for a, b in pairwise(ordered))
    return sum(map(len, ordered)) - shared


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cm2_families: list[Family],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a `Pack`, with transformers' signature. query: (1, heads, N, d); returns (1, N, heads, d)."""
    if query.device.type == "cpu" and not dropout:
        flat = (t[0].transpose(0, 1) for t in (query, key, value))
        found = Cascade.apply(*flat, query.shape[-1] ** -0.5 if scaling is None else scaling, cm2_families)
        return found[None], None
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    last = query.shape[2] - 1
    pieces = []
    for family in cm2_families:
        rows, longest = len(family.starts), max(family.lengths)
        # Shorter pieces run over into what follows; what they would see there comes after them, so nobody looks.
        index = torch.tensor(family.starts, device=query.device)[:, None] + torch.arange(longest, device=query.device)
        q, k, v = (
            t[0][:, index.clamp(max=last)].transpose(0, 1) for t in (query, key, value)
        )  # (rows, heads, longest, d)
        mask = None
        if family.before:
            size = sum(length for _, length in family.before)
            k, v = (
                torch.cat(
                    [*(t[:, :, start : start + n].expand(rows, -1, -1, -1) for start, n in family.before), own], 2
                )
                for t, own in ((key, k), (value, v))
            )
            mask = torch.ones(longest, size + longest, dtype=torch.bool, device=query.device).tril(size)
        out = scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=mask is None, scale=scaling)
        pieces += [out[row : row + 1, :, :length] for row, length in enumerate(family.lengths)]
    return torch.cat(pieces, 2).transpose(1, 2), None


def register() -> None:
    """Make the attention known to transformers (once is enough, more does no harm)."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)


@contextlib.contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Let `model` attend over packs while the context lasts."""
    config = core_of(model).config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def core_of(model: Any) -> Any:
    """The causal language model inside wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logits_of(model: Any, packed: Pack, wanted: torch.Tensor, trunk: Trunk | None = None) -> torch.Tensor:
    """Logits (len(wanted), vocabulary) at these places of the pack.

    Args:
        model: one that `supports` says yes to.
        packed: what is read.
        wanted: places.
        trunk: what knows the frozen layers' part of earlier passes, and keeps it of this one.
    """
    device = packed.ids.device
    known = None if trunk is None else trunk.find(packed)
    given = {"input_ids": packed.ids} if known is None else {"inputs_embeds": known}
    with contextlib.ExitStack() as stack:
        stack.enter_context(packed_attention(model))
        if trunk is not None:
            stack.enter_context(trunk.noting(model, packed) if known is None else trunk.skipped(model))
        out = model(
            **given,
            position_ids=packed.positions,
            use_cache=False,
            logits_to_keep=wanted.to(device),
            cm2_families=packed.families,
        )
    return out.logits[0]


def states_of(model: Any, packed: Pack, wanted: torch.Tensor, trunk: Trunk | None = None) -> torch.Tensor:
    """What the output head is given at these places, (len(wanted), width), of a model that `ends_in_its_head`."""
    head = core_of(model).get_output_embeddings()
    head.forward = _same
    try:
        return logits_of(model, packed, wanted, trunk)
    finally:
        del head.forward


def _same(states: torch.Tensor) -> torch.Tensor:
    return states


def ends_in_its_head(model: Any) -> bool:
    """Whether the logits of this model, which `supports` says yes to, are a linear head's as they are."""
    core = core_of(model)
    head = core.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return False
    size = min(core.config.vocab_size, 100)
    packed = to_device(pack([[3 % size, 7 % size]], [[5 % size, 2 % size, 1]]), head.weight.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            states, logits = (of(model, packed, packed.places[0]) for of in (states_of, logits_of))
            return states.shape[-1] == head.in_features and torch.allclose(head(states), logits, rtol=1e-4, atol=1e-4)
    except (TypeError, RuntimeError, ValueError, KeyError):
        return False
    finally:
        model.train(training)


def supports(model: Any, tolerance: float = 1e-3) -> bool:
    """Whether the prefix-shared forward of this model gives the numbers of its own forward pass."""
    register()
    core = core_of(model)
    config = core.config
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if windowed or not getattr(core, "_supports_attention_backend", False):
        return False
    size = min(config.vocab_size, 100)
    prompt, rows = [i % size for i in (3, 7, 5, 11)], [[i % size for i in row] for row in ([2, 9, 4], [8, 6])]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        packed = to_device(pack([prompt, prompt], rows), device)
        with torch.no_grad():
            ours = logits_of(model, packed, torch.cat(packed.places)).float()
            plain = [model(input_ids=torch.tensor([prompt + row[:-1]], device=device)).logits[0, 3:] for row in rows]
        theirs = torch.cat(plain).float()
    except (TypeError, RuntimeError, ValueError, KeyError):
        return False  # a model that does not pass our layout on to its attention
    finally:
        model.train(training)
    scale = theirs.abs().max().clamp(min=1.0)
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= tolerance * scale)


def to_device(packed: Pack, device: Any) -> Pack:
    """The pack with its ids and positions on `device`."""
    return msgspec.structs.replace(packed, ids=packed.ids.to(device), positions=packed.positions.to(device))
