"""Cascade attention: attention over a pack of rows that share beginnings (`cm2.train.prefix`), on a CPU.

Pieces of one family have the same ancestors. So attention is computed in two parts, each by torch's flash kernel: all
pieces' queries at once over the ancestors, whose keys are read once and need no mask, and each piece over itself,
causally. With the logarithm s of each part's sum of exponentials, the whole is

    out = exp(s1 - s) out1 + exp(s2 - s) out2,    s = log(exp s1 + exp s2),

and the gradient of each part is the kernel's own, given the whole's `out` and s: a weight is exp(score - s) wherever
its key stands, and what the softmax takes off, the sum of out times its gradient, is of the whole query. Queries that
share a key head stand one after the other over the ancestors, so no key is copied there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_NOBODY = 1e4
"""Log-sum of a query that is padding: all its weights are exp(-1e4), nothing."""


class Family(Protocol):
    """See `cm2.train.prefix.Family`. Its pieces stand one after the other."""

    before: tuple[tuple[int, int], ...]
    starts: list[int]
    lengths: list[int]


class Pieces(NamedTuple):
    """Pieces of about one length: where each id stands, (pieces, longest), and which places are ids, not padding."""

    places: torch.Tensor
    real: torch.Tensor


class Cascade(torch.autograd.Function):
    """query: (N, heads, d); key, value: (N, key heads, d); returns (N, heads, d)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, families: list[Family]
    ) -> torch.Tensor:
        """See the module."""
        copies = query.shape[1] // key.shape[1]
        wide = [t.repeat_interleave(copies, 1) for t in (key, value)] if copies > 1 else [key, value]
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        for family in families:
            for index, real in _buckets(family):
                q, k, v = (t[index].transpose(1, 2) for t in (query, *wide))
                own, s = _forward(q, k, v, 0.0, True, scale=scale)
                places = index[real]
                out[places], sums[places] = own.transpose(1, 2)[real], s.transpose(1, 2)[real]
            if family.before:
                mine = _span(family)
                k, v = (_ancestors(t, family) for t in (key, value))
                shared, s = _forward(_by_key_head(query[mine], copies), k, v, 0.0, False, scale=scale)
                count = mine.stop - mine.start
                shared, s = _back(shared, count, copies), _back(s[..., None], count, copies)[..., 0]
                whole = torch.logaddexp(sums[mine], s)
                share = (s - whole).exp()[..., None]
                out[mine] = torch.lerp(out[mine].float(), shared.float(), share).to(out.dtype)
                sums[mine] = whole
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.scale, ctx.families = scale, families
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """See the module."""
        query, key, value, out, sums = ctx.saved_tensors
        grad = grads[0].contiguous()
        copies = query.shape[1] // key.shape[1]
        wide = [t.repeat_interleave(copies, 1) for t in (key, value)] if copies > 1 else [key, value]
        found = [torch.empty_like(query), torch.empty_like(wide[0]), torch.empty_like(wide[1])]
        for family in ctx.families:
            for index, real in _buckets(family):
                q, k, v, o, g = (t[index].transpose(1, 2) for t in (query, *wide, out, grad))
                g = g * real[:, None, :, None]
                s = torch.where(real[..., None], sums[index], _NOBODY).transpose(1, 2)
                places = index[real]
                for whole, part in zip(found, _backward(g, q, k, v, o, s, 0.0, True, scale=ctx.scale), strict=True):
                    whole[places] = part.transpose(1, 2)[real]
        to_query, to_key, to_value = found
        if copies > 1:
            to_key, to_value = (t.reshape(len(t), -1, copies, t.shape[-1]).sum(2) for t in (to_key, to_value))
        for family in ctx.families:
            if not family.before:
                continue
            mine = _span(family)
            count = mine.stop - mine.start
            q, o, g = (_by_key_head(t[mine], copies) for t in (query, out, grad))
            s = _by_key_head(sums[mine][..., None], copies)[..., 0]
            k, v = (_ancestors(t, family) for t in (key, value))
            parts = _backward(g, q, k, v, o, s, 0.0, False, scale=ctx.scale)
            to_query[mine] += _back(parts[0], count, copies)
            at = 0
            for start, length in family.before:
                to_key[start : start + length] += parts[1][0, :, at : at + length].transpose(0, 1)
                to_value[start : start + length] += parts[2][0, :, at : at + length].transpose(0, 1)
                at += length
        return to_query, to_key, to_value, None, None


def _buckets(family: Family) -> Iterator[Pieces]:
    """The pieces by length, those together of which none is more than twice as long as another."""
    order = sorted(zip(family.lengths, family.starts, strict=True), reverse=True)
    while order:
        longest = order[0][0]
        count = next((i for i, (length, _) in enumerate(order) if 2 * length < longest), len(order))
        lengths, starts = (torch.tensor(some) for some in zip(*order[:count], strict=True))
        order = order[count:]
        steps = torch.arange(longest)
        real = steps < lengths[:, None]
        yield Pieces(starts[:, None] + steps.minimum(lengths[:, None] - 1), real)


def _span(family: Family) -> slice:
    return slice(family.starts[0], family.starts[-1] + family.lengths[-1])


def _ancestors(t: torch.Tensor, family: Family) -> torch.Tensor:
    """(1, key heads, ancestors' ids, d)."""
    parts = [t[start : start + length] for start, length in family.before]
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).transpose(0, 1)[None]


def _by_key_head(t: torch.Tensor, copies: int) -> torch.Tensor:
    """(n, heads, d) as (1, key heads, copies * n, d)."""
    count, heads, size = t.shape
    return t.reshape(count, heads // copies, copies, size).permute(1, 2, 0, 3).reshape(1, heads // copies, -1, size)


def _back(t: torch.Tensor, count: int, copies: int) -> torch.Tensor:
    """The inverse of `_by_key_head`."""
    _, heads, _, size = t.shape
    return t.reshape(heads, copies, count, size).permute(2, 0, 1, 3).reshape(count, heads * copies, size)
