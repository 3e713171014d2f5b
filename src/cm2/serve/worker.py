"""Worker: one thread that decodes for everybody who is waiting, a token for each at every step.

A request joins as soon as there is a slot: its prompt is read in pieces beside the others' next tokens, so that no
answer stands still while a long prompt is read. Where the engine cannot leave rows out (`HFEngine`) prompts are read
whole and nothing is kept for later turns.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from cm2.rollout.engine import Engine
from cm2.rollout.sampling import Sampling, draw, uniforms
from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Chance
from cm2.serve.prefixes import SHORTEST, Prefixes
from cm2.serve.refusal import Refusal
from cm2.serve.row import Job, Row

PREFILL = 256
"""Prompt ids read in one step beside the others' tokens: fewer and new requests wait longer, more and all others do."""
log = logging.getLogger("cm2.serve")


class Worker:
    """Decodes jobs until it is closed.

    Args:
        make_engine: a fresh engine; asked again after a failure, since what a broken one holds is not known.
        template: the tokenizer's.
        context: longest row.
        slots: rows at once.
        room: ids of kept rows; 0 for engines that need every row at every step.
        ragged: whether rows may be left out of a step.
        alone: whether other workers decode beside it, so that each keeps to one core.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        template: ChatTemplate,
        context: int,
        slots: int,
        room: int,
        *,
        ragged: bool,
        alone: bool,
        name: str = "cm2-decode",
    ):
        self.make_engine, self.template, self.context, self.slots = make_engine, template, context, slots
        self.ragged, self.alone = ragged, alone
        self.prefixes = Prefixes(room if ragged else 0)
        self.engine: Any = make_engine()
        self.rows: list[Row] = []
        self.waiting: deque[Job] = deque()
        self._more = threading.Condition()
        self._closing = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def load(self) -> int:
        """Choices that are decoded or wait."""
        with self._more:
            return len(self.rows) + sum(job.want.choices for job in self.waiting)

    def put(self, job: Job) -> None:
        """Decode this as soon as there is room."""
        with self._more:
            self.waiting.append(job)
            self._more.notify()

    def wake(self) -> None:
        """Look again: a job was cancelled."""
        with self._more:
            self._more.notify()

    def close(self) -> None:
        """End the thread after the step that it is in."""
        with self._more:
            self._closing = True
            self._more.notify()
        if self.thread.ident is not None:
            self.thread.join(30)

    def _run(self) -> None:
        import torch

        if not self.alone:
            torch.set_num_threads(1)  # holds for this thread's products only
        with torch.inference_mode():
            while True:
                with self._more:
                    while not (self.waiting or self.rows or self._closing):
                        self._more.wait()
                    if self._closing:
                        return
                try:
                    self._step()
                except Exception as problem:  # out of memory, a bug: those who wait are told, the next ones are served
                    self._fail(problem)

    def _fail(self, problem: Exception) -> None:
        log.exception("decoding failed", exc_info=problem)
        with self._more:
            rows, self.rows = self.rows, []
        for job in {id(row.job): row.job for row in rows}.values():
            job.tell(Refusal(500, f"decoding failed: {type(problem).__name__}: {problem}", "decoding_failed"))
        self.prefixes.clear()
        self.engine = self.make_engine()

    def _step(self) -> None:
        """Let new rows in, read and decode one step, tell the pieces."""
        import torch

        self._drop([row for row in self.rows if row.job.cancelled])
        self._admit()
        if not self.rows:
            return
        self._begin()
        turn = self._turn()
        logits: list[Any] = []
        at: list[Row] = []
        old = [(row, ids) for row, ids in turn if row.row is not None]
        new = [(row, ids) for row, ids in turn if row.row is None]
        if old:
            logits.append(self.engine.extend([row.row for row, _ in old], [ids for _, ids in old]))
            at += [row for row, _ in old]
        if new:
            opened, first = self.engine.start([ids for _, ids in new])
            for (row, _), number in zip(new, opened, strict=True):
                row.row = number
            logits.append(first)
            at += [row for row, _ in new]
        for row, ids in turn:
            row.read += len(ids)
            row.pending = row.pending[len(ids) :]
            if row.stems and row.read == row.stems[0]:
                row.stems.pop(0)
                (stem,) = self.engine.fork([row.row])
                self.prefixes.keep(row.ids, stem, self.engine, stem=True)
        self._sample(at, torch.cat(logits) if len(logits) > 1 else logits[0])

    def _admit(self) -> None:
        with self._more:
            while self.waiting:
                job = self.waiting[0]
                if job.cancelled:
                    self.waiting.popleft()
                    continue
                held = sum(1 if row.decoding else row.job.want.choices for row in self.rows)
                if self.rows and held + job.want.choices > self.slots:
                    return
                self.rows.append(Row(self.waiting.popleft(), self.template, self.context))

    def _begin(self) -> None:
        """Continue kept rows where new prompts do, and see where they should leave a stem."""
        for row in self.rows:
            if row.row is not None or row.read or not self.prefixes.room:
                continue
            ids = np.array(row.pending)
            kept, shared = self.prefixes.find(ids)
            if kept is not None and len(kept.ids) >= SHORTEST:
                (row.row,) = self.engine.fork([kept.row])
                row.base, row.read = kept, len(kept.ids)
                row.writing.cached = row.read
                row.pending = row.pending[row.read :]
            if shared - row.read >= SHORTEST:
                row.stems = [shared]

    def _turn(self) -> list[tuple[Row, list[int]]]:
        """What each row reads in this step: the last sampled token, or more of its prompt."""
        found, left = [], PREFILL
        for row in self.rows:
            if row.decoding or not self.ragged:
                found.append((row, row.pending))
                continue
            size = min(left, len(row.pending))
            if row.stems:
                size = min(size, row.stems[0] - row.read)
            if size:
                found.append((row, row.pending[:size]))
                left -= size
        return found

    def _sample(self, rows: list[Row], logits: Any) -> None:
        """Draw a token for each row whose prompt has been read; `logits` has a line for each of `rows`."""
        import torch

        lines: list[int] = []
        ready: list[Row] = []
        for line, row in enumerate(rows):
            if row.pending:
                continue
            ready.append(row)
            lines.append(line)
            more = row.job.want.choices - 1 if not row.decoding else 0
            if more:
                siblings = [row.sibling(i + 1, n) for i, n in enumerate(self.engine.fork([row.row] * more))]
                with self._more:
                    self.rows += siblings
                ready += siblings
                lines += [line] * more
        if not ready:
            return
        groups: dict[Sampling, list[int]] = {}
        for i, row in enumerate(ready):
            groups.setdefault(_shape(row.job.want.sampling), []).append(i)
        for sampling, members in groups.items():
            picked = logits[torch.tensor([lines[i] for i in members], device=logits.device)]
            some = [ready[i] for i in members]
            numbers = np.array([_uniform(row) for row in some])
            ids, _ = draw(picked, numbers, sampling)
            for row, token, line in zip(some, ids, picked, strict=True):
                count = row.job.want.logprobs
                row.take(token, None if count is None else _chance(line, token, count))
        self._drop([row for row in ready if row.writing.finish is not None], keep=True)

    def _drop(self, rows: list[Row], keep: bool = False) -> None:
        """Let go of rows; those that ended well are kept for the next turn."""
        if not rows:
            return
        gone = []
        for row in rows:
            if row.row is None:
                continue
            if keep and self.prefixes.room and row.choice == 0:
                self.prefixes.keep(row.ids, row.row, self.engine, instead=row.base)
            else:
                gone.append(row.row)
        if gone:
            self.engine.close(gone)
        with self._more:
            self.rows = [row for row in self.rows if row not in rows]


def _shape(sampling: Sampling) -> Sampling:
    """What rows must share to be drawn together: all but the seed."""
    return Sampling(temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)


def _uniform(row: Row) -> float:
    """The number behind the row's next token: of the seed, the choice and the position, whoever stands beside it."""
    seed = row.job.want.sampling.seed
    return float(uniforms(seed, np.array([row.choice]), np.array([len(row.writing.tokens)]))[0])


def _chance(logits: Any, token: int, count: int) -> Chance:
    import torch

    logprobs = torch.log_softmax(logits.float(), -1)
    top: list[tuple[int, float]] = []
    if count:
        values, names = logprobs.topk(min(count, logprobs.shape[-1]))
        top = list(zip(names.tolist(), values.tolist(), strict=True))
    return Chance(token, float(logprobs[token]), top)
