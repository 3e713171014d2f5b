"""DenseCache: keys and values as ordinary tensors, attended to with torch. The path without a compiler.

A row is a slot of (layers, slots, kv_heads, capacity, head_dim). Forking copies. The same interface, and up to rounding
the same numbers, as `cm2.rollout.paged`.
"""

from __future__ import annotations

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu


class DenseCache:
    """See `PagedCache`, whose arguments these are."""

    def __init__(
        self,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        cos: torch.Tensor,
        sin: torch.Tensor,
        scale: float,
    ):
        self.heads, self.kv_heads, self.head_dim, self.scale, self.dtype = heads, kv_heads, head_dim, scale, dtype
        self.cos, self.sin, self.longest = cos, sin, cos.shape[0]
        self.keys = torch.zeros(layers, 8, kv_heads, 256, head_dim, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * 8
        self.free_rows = list(reversed(range(8)))  # low slots first: decoding reads one slice of them
        self._rows: list[int] = []
        self._counts: list[int] = []

    def open(self) -> int:
        """A new, empty row."""
        if not self.free_rows:
            count = len(self.lengths)
            self.keys, self.values = (torch.cat([t, torch.zeros_like(t)], 1) for t in (self.keys, self.values))
            self.lengths += [0] * count
            self.free_rows = list(reversed(range(count, 2 * count)))
        row = self.free_rows.pop()
        self.lengths[row] = 0
        return row

    def fork(self, row: int) -> int:
        """A new row that continues a copy of `row`."""
        new, length = self.open(), self.lengths[row]
        self.keys[:, new, :, :length] = self.keys[:, row, :, :length]
        self.values[:, new, :, :length] = self.values[:, row, :, :length]
        self.lengths[new] = length
        return new

    def trim(self, row: int, length: int) -> None:
        """Forget what stands in the row beyond its first `length` positions."""
        self.lengths[row] = length

    def close(self, row: int) -> None:
        """Free the row's slot."""
        self.lengths[row] = 0
        self.free_rows.append(row)
        self.free_rows.sort(reverse=True)

    def plan(self, rows: list[int], counts: list[int]) -> None:
        """Make room for `counts[i]` new positions in each row."""
        longest = max(self.lengths[row] + count for row, count in zip(rows, counts, strict=True))
        if longest > self.longest:
            raise ValueError(f"a row of {longest} positions is longer than the model's {self.longest}")
        while longest > self.keys.shape[3]:
            self.keys, self.values = (torch.cat([t, torch.zeros_like(t)], 3) for t in (self.keys, self.values))
        starts = [self.lengths[row] for row in rows]
        positions = [torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        self._positions = torch.cat(positions)
        self._cos, self._sin = self.cos[self._positions, None], self.sin[self._positions, None]
        self._slots = torch.tensor(rows).repeat_interleave(torch.tensor(counts))
        self._rows, self._counts, self._longest = rows, counts, longest
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count
        self._mask = torch.arange(longest)[None] < torch.tensor(self.lengths)[:, None]

    def attention(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store and attend. qkv: (tokens, (heads + 2 kv_heads) head_dim); returns (tokens, heads head_dim)."""
        tokens = len(self._slots)
        split = qkv[:tokens].view(tokens, -1, self.head_dim)
        rotated = self._rotate(split[:, : self.heads + self.kv_heads].float()).to(self.dtype)
        query, key = rotated[:, : self.heads], rotated[:, self.heads :]
        self.keys[layer][self._slots, :, self._positions] = key
        self.values[layer][self._slots, :, self._positions] = split[:, self.heads + self.kv_heads :]
        out = torch.zeros(qkv.shape[0], self.heads * self.head_dim, dtype=self.dtype)
        if max(self._counts) == 1:
            out[:tokens] = self._decode(layer, query).reshape(tokens, -1)
            return out
        done = 0
        for row, count in zip(self._rows, self._counts, strict=True):
            out[done : done + count] = self._prefill(layer, row, query[done : done + count])
            done += count
        return out

    def _decode(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """One query per row: the heads that share a key head are rows of one small product; all slots in one call."""
        slots = max(self._rows) + 1
        group = self.heads // self.kv_heads
        wide = torch.zeros(slots, self.kv_heads, group, self.head_dim, dtype=self.dtype)
        wide[self._rows] = query.view(-1, self.kv_heads, group, self.head_dim)
        keys, values = (t[layer, :slots, :, : self._longest] for t in (self.keys, self.values))
        mask = self._mask[:slots, None, None].expand(-1, 1, group, -1)
        return scaled_dot_product_attention(wide, keys, values, mask, scale=self.scale)[self._rows]

    def _prefill(self, layer: int, row: int, query: torch.Tensor) -> torch.Tensor:
        count, length = query.shape[0], self.lengths[row]
        keys, values = (t[layer, row : row + 1, :, :length] for t in (self.keys, self.values))
        mask = torch.ones(count, length, dtype=torch.bool).tril(length - count)
        out = scaled_dot_product_attention(
            query.transpose(0, 1)[None], keys, values, mask, scale=self.scale, enable_gqa=True
        )
        return out[0].transpose(0, 1).reshape(count, -1)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * self._cos - b * self._sin, b * self._cos + a * self._sin], -1)

    def add_norm(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """hidden += delta, in place; returns rmsnorm(hidden) * weight. hidden: (tokens, width) fp32."""
        if delta is not None:
            hidden += delta
        return rms_norm(hidden, weight.shape, weight, eps).to(self.dtype)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up. gate_up: (tokens, 2 width); returns (tokens, width)."""
        gate, up = gate_up.float().chunk(2, -1)
        return (silu(gate) * up).to(self.dtype)
