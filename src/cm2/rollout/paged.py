"""PagedCache: keys and values in blocks of 16 positions, attended to by the C kernels.

A row is a table of block addresses. Forking a row shares its blocks; a shared block is copied when somebody appends to
it. So the prompt of a group is stored once, and stays in the processor's cache while the siblings read it one by one.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from cm2.rollout.kernels import Batch

BLOCK = 16
_CHUNK_BYTES = 32 << 20


class PagedCache:
    """The cache of one engine (one thread).

    Args:
        library: the compiled kernels (see `cm2.rollout.kernels.load`).
        layers, heads, kv_heads, head_dim: the model's shape.
        dtype: bfloat16 or float32, as the library was compiled for.
        cos, sin: (positions, head_dim / 2) fp32 rotary tables; their length is the longest row.
        scale: what queries are multiplied by.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        cos: torch.Tensor,
        sin: torch.Tensor,
        scale: float,
    ):
        self.kernels, self.heads, self.head_dim, self.dtype = library, heads, head_dim, dtype
        layer_bytes = 2 * kv_heads * head_dim * BLOCK * dtype.itemsize
        self.block_bytes = layers * layer_bytes
        self.cos, self.sin = cos, sin
        self.longest = cos.shape[0]
        self.tables = np.zeros((64, -(-self.longest // BLOCK)), dtype=np.int64)
        self.lengths = np.zeros(64, dtype=np.int64)
        self.free_rows = list(range(64))
        self.free_blocks: list[int] = []
        self.readers: dict[int, int] = {}
        self.chunks: list[torch.Tensor] = []
        self.batch = Batch(heads=heads, kv_heads=kv_heads, head_dim=head_dim, layer_bytes=layer_bytes, scale=scale)
        self._query = torch.empty(2 * heads * head_dim)
        self._scores = torch.empty(8, -(-self.longest // BLOCK) * BLOCK)
        self.batch.query, self.batch.scores = self._query.data_ptr(), self._scores.data_ptr()
        self._kept: tuple[Any, ...] = ()

    def open(self) -> int:
        """A new, empty row."""
        if not self.free_rows:
            count = len(self.lengths)
            self.tables = np.concatenate([self.tables, np.zeros_like(self.tables)])
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
            self.free_rows = list(range(count, 2 * count))
        row = self.free_rows.pop()
        self.lengths[row] = 0
        return row

    def fork(self, row: int) -> int:
        """A new row that continues `row`; nothing is copied yet."""
        new = self.open()
        used = self._used(row)
        self.tables[new, :used] = self.tables[row, :used]
        self.lengths[new] = self.lengths[row]
        for block in self.tables[row, :used].tolist():
            self.readers[block] += 1
        return new

    def trim(self, row: int, length: int) -> None:
        """Forget what stands in the row beyond its first `length` positions."""
        used = self._used(row)
        self.lengths[row] = length
        for block in self.tables[row, self._used(row) : used].tolist():
            self._release(block)

    def close(self, row: int) -> None:
        """Give the row's blocks back."""
        for block in self.tables[row, : self._used(row)].tolist():
            self._release(block)
        self.lengths[row] = 0
        self.free_rows.append(row)

    def plan(self, rows: list[int], counts: list[int]) -> None:
        """Make room for `counts[i]` new positions in each row, and describe the tokens to the kernels."""
        starts = self.lengths[rows]
        for row, start, count in zip(rows, starts.tolist(), counts, strict=True):
            self._grow(row, start, count)
        sizes = np.array(counts, dtype=np.int64)
        tokens = int(sizes.sum())
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = np.arange(tokens, dtype=np.int64) - first + np.repeat(starts, sizes)
        base, stride = self.tables.ctypes.data, self.tables.strides[0]
        tables = np.repeat(base + np.array(rows, dtype=np.int64) * stride, sizes)
        index = torch.from_numpy(positions)
        cos, sin = self.cos[index], self.sin[index]
        self.batch.tokens = tokens
        self.batch.tables, self.batch.positions = tables.ctypes.data, positions.ctypes.data
        self.batch.cos, self.batch.sin = cos.data_ptr(), sin.data_ptr()
        self._kept = (tables, positions, cos, sin)  # the kernels read them until the next plan
        self.lengths[rows] = starts + sizes

    def attention(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store and attend. qkv: (tokens, (heads + 2 kv_heads) head_dim); returns (tokens, heads head_dim)."""
        out = torch.empty(qkv.shape[0], self.heads * self.head_dim, dtype=self.dtype)
        self.kernels.cm2_attention(ctypes.byref(self.batch), layer, qkv.data_ptr(), out.data_ptr())
        return out

    def add_norm(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """hidden += delta, in place; returns rmsnorm(hidden) * weight. hidden: (tokens, width) fp32."""
        tokens, width = hidden.shape
        out = torch.empty(tokens, width, dtype=self.dtype)
        given = None if delta is None else delta.data_ptr()
        self.kernels.cm2_add_norm(tokens, width, hidden.data_ptr(), given, weight.data_ptr(), eps, out.data_ptr())
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up. gate_up: (tokens, 2 width); returns (tokens, width)."""
        tokens, width = gate_up.shape
        out = torch.empty(tokens, width // 2, dtype=self.dtype)
        self.kernels.cm2_silu_mul(tokens, width // 2, gate_up.data_ptr(), out.data_ptr())
        return out

    def _used(self, row: int) -> int:
        return -(-int(self.lengths[row]) // BLOCK)

    def _grow(self, row: int, start: int, count: int) -> None:
        if start + count > self.longest:
            raise ValueError(f"a row of {start + count} positions is longer than the model's {self.longest}")
        last = start // BLOCK
        if start % BLOCK:
            block = int(self.tables[row, last])
            if self.readers[block] > 1:
                copy = self._take()
                ctypes.memmove(copy, block, self.block_bytes)
                self.readers[block] -= 1
                self.tables[row, last] = copy
            last += 1
        for i in range(last, -(-(start + count) // BLOCK)):
            self.tables[row, i] = self._take()

    def _take(self) -> int:
        if not self.free_blocks:
            count = max(1, _CHUNK_BYTES // self.block_bytes)
            chunk = torch.zeros(count * self.block_bytes + 64, dtype=torch.uint8)  # finite where unused: 0 * NaN is NaN
            base = -(-chunk.data_ptr() // 64) * 64
            self.chunks.append(chunk)
            self.free_blocks = [base + i * self.block_bytes for i in reversed(range(count))]
        block = self.free_blocks.pop()
        self.readers[block] = 1
        return block

    def _release(self, block: int) -> None:
        self.readers[block] -= 1
        if not self.readers[block]:
            del self.readers[block]
            self.free_blocks.append(block)
