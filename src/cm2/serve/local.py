"""Local: the project's own decoder as a backend. See `cm2.serve.worker`.

The engines, the template and the draws are those of `cm2 rl` and `cm2 evaluate`; only the loop differs, since requests
come one by one and are not known in advance.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from cm2.rollout.engine import Engine, HFEngine
from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Piece, Want
from cm2.serve.refusal import Refusal
from cm2.serve.row import Job
from cm2.serve.worker import Worker


class Local:
    """Decodes with local weights.

    Args:
        model: a transformers causal language model.
        template: its tokenizer's.
        context: longest sequence; 0: the model's own.
        slots: choices decoded at once, over all workers.
        workers: threads; 0: one per core that torch may use. Models without a lean decoder use one.
        prefix_tokens: ids of finished conversations kept for their next turn, over all workers.
        lean: use `LlamaEngine` where it can run the model.
    """

    name = "cm2"

    def __init__(
        self,
        model: Any,
        template: ChatTemplate,
        *,
        context: int = 0,
        slots: int = 16,
        workers: int = 0,
        prefix_tokens: int = 32768,
        lean: bool = True,
    ):
        import torch

        from cm2.rollout.decode import LlamaEngine, LlamaWeights, is_lean

        longest = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.context = min(context or longest, longest)
        ragged = lean and is_lean(model)
        count = (workers or torch.get_num_threads()) if ragged else 1
        count = min(count, slots)
        weights = LlamaWeights(model) if ragged else None

        def make_engine() -> Engine:
            return HFEngine(model) if weights is None else LlamaEngine(weights)

        self.workers = [
            Worker(
                make_engine,
                template,
                self.context,
                -(-slots // count),
                prefix_tokens // count,
                ragged=ragged,
                alone=count == 1,
                name=f"cm2-decode-{i}",
            )
            for i in range(count)
        ]

    async def open(self) -> None:
        """See `Backend.open`."""
        for worker in self.workers:
            worker.thread.start()

    def abandon(self) -> None:
        """See `Backend.abandon`; getting ready takes no time."""

    async def close(self) -> None:
        """See `Backend.close`."""
        for worker in self.workers:
            await asyncio.to_thread(worker.close)

    def alive(self) -> bool:
        """See `Backend.alive`."""
        return all(worker.thread.is_alive() for worker in self.workers)

    async def generate(self, want: Want) -> AsyncGenerator[Piece]:
        """See `Backend.generate`."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Piece | Exception] = asyncio.Queue()

        def tell(piece: Piece | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever listened
                loop.call_soon_threadsafe(told.put_nowait, piece)

        job, worker = Job(want, tell), self._worker(want.ids)
        worker.put(job)
        open_ = want.choices
        try:
            while open_:
                piece = await told.get()
                if isinstance(piece, Refusal):
                    raise piece
                if isinstance(piece, Exception):
                    raise Refusal(500, f"decoding failed: {piece}", "decoding_failed") from piece
                open_ -= piece.finish is not None
                yield piece
        finally:
            job.cancelled = True
            worker.wake()

    def _worker(self, ids: list[int]) -> Worker:
        """The one that has read most of the prompt, unless it has much more to do than another; else the least busy."""
        loads = [worker.load for worker in self.workers]
        least = min(loads)
        given = np.array(ids)
        free = [i for i, load in enumerate(loads) if load <= least + 1]
        best = max(free, key=lambda i: (self.workers[i].prefixes.longest(given), -loads[i]))
        return self.workers[best]
