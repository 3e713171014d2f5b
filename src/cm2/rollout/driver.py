"""Driver: many environments at once against local weights, token in, token out.

Every iteration appends to each open rollout whatever it has pending (one sampled token, or an answer of its environment
rendered as ids) in one ragged forward pass, then samples a token for each. So a rollout that waits for nobody never
waits: one reads a tool response while its neighbours write.

Rollouts of a group that came the same way, token for token, are one row: the prompt is read once, and as long as
siblings draw the same tokens and see the same answers they are decoded once. They part where they first differ.

Sampled ids are kept as they were sampled. A rollout's `Segment`s, each a `prompt` (rendered, never trained) and
`tokens` (sampled, with log-probabilities), are together exactly the ids that the model read.

With several workers every worker is one thread that decodes its own share of the groups on one core: two threads that
never wait for each other beat one matrix product split over two cores, and keep their speed on a busy machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cm2.errors import MissingExtra
from cm2.rollout.engine import Engine, HFEngine
from cm2.rollout.environment import Environment
from cm2.rollout.sampling import Sampling, draw, uniforms
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Rollout, Segment


class _Live:
    """One rollout that is being driven."""

    def __init__(self, index: int, environment: Environment, prompt: list[int], seed: int):
        self.index, self.environment, self.seed = index, environment, seed
        self.pending: list[int] = prompt
        """Ids that the model has not read yet."""
        self.prompt: list[int] = prompt
        """Rendered ids since the last segment."""
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.segments: list[Segment] = []
        self.length = len(prompt)
        """Ids of the rollout so far, pending ones included."""
        self.drawn = 0
        self.started = time.monotonic()
        self.seconds = 0.0


class _Shared:
    """A row of the engine's cache and the rollouts that have come the same way, token for token."""

    def __init__(self, row: int, lives: list[_Live]):
        self.row, self.lives = row, lives


class Driver:
    """Runs environments with a local model.

    Args:
        model: a transformers causal language model; its weights are copied, so call `update_weights` after training it.
        tokenizer: its tokenizer, with a chat template for tools (see `ChatTemplate`).
        sampling: how tokens are drawn, and limits.
        batch: how many rollouts are open at once, over all workers.
        workers: threads that decode; default one per core that torch may use. Models without a lean decoder use one.
        lean: use `LlamaEngine` where it can run the model (None: yes).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling | None = None,
        *,
        batch: int = 64,
        workers: int | None = None,
        lean: bool | None = None,
    ):
        try:
            import torch
        except ImportError as problem:
            raise MissingExtra("rollouts with local weights", "train") from problem
        self.template = ChatTemplate(tokenizer)
        self.sampling = Sampling() if sampling is None else sampling
        self.batch = batch
        self.context = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.engines: list[Engine]
        if lean is not False and _is_lean(model):
            from cm2.rollout.decode import LlamaEngine, LlamaWeights

            weights = LlamaWeights(model)
            self.engines = [LlamaEngine(weights) for _ in range(workers or torch.get_num_threads())]
        else:
            self.engines = [HFEngine(model)]

    def update_weights(self, model: Any) -> None:
        """Take the weights that `model` has now."""
        self.engines[0].update_weights(model)  # all engines share one copy

    def run(
        self,
        environments: Sequence[Environment],
        *,
        groups: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """Drive every environment to its end.

        Args:
            environments: fresh ones; those of a group should stand together, so that their prompt is read once.
            groups: a name per environment (default: the task's id); the member number counts within it.
            seeds: a number per environment that, with `sampling.seed`, decides its randomness (default: its index).
            progress: called with 1 whenever a rollout ends.

        Returns:
            Rollouts in the order of the environments.
        """
        seeds = list(range(len(environments))) if seeds is None else list(seeds)
        names = [environment.task.dialogue.id for environment in environments] if groups is None else list(groups)
        if not len(environments) == len(seeds) == len(names):
            raise ValueError("environments, groups and seeds must have the same length")
        lives = []
        for i, environment in enumerate(environments):
            prompt = self.template.first_prompt(environment.dialogue.tools, environment.messages)
            lives.append(_Live(i, environment, prompt, seeds[i]))
        for live in lives:
            if self._full(live):  # the prompt alone leaves no room: the model never reads it
                live.environment.stop("limit_tokens", "limit")
                if progress is not None:
                    progress(1)
        shares = _share([live for live in lives if not live.environment.done], len(self.engines))
        room = max(1, self.batch // max(1, len(shares)))
        if len(shares) == 1:
            self._work(self.engines[0], shares[0], room, progress)
        elif shares:
            with ThreadPoolExecutor(len(shares), thread_name_prefix="cm2-rollout") as pool:
                work = zip(self.engines, shares, strict=False)
                for job in [pool.submit(self._work, engine, share, room, progress) for engine, share in work]:
                    job.result()
        members: dict[str, int] = {}
        found = []
        for live, name in zip(lives, names, strict=True):
            members[name] = members.get(name, -1) + 1
            rollout = live.environment.record(group=name, member=members[name], seed=live.seed, segments=live.segments)
            rollout.prompt_tokens = sum(len(segment.prompt) for segment in live.segments)
            rollout.generated_tokens = sum(len(segment.tokens) for segment in live.segments)
            rollout.seconds = live.seconds
            found.append(rollout)
        return found

    def _work(
        self, engine: Engine, share: list[list[_Live]], room: int, progress: Callable[[int], None] | None
    ) -> None:
        """Drive groups of environments with one engine, as many at once as there is room for."""
        import torch

        threads = torch.get_num_threads()
        if len(self.engines) > 1:
            torch.set_num_threads(1)  # holds for this thread's products only
        waiting = deque(part for group in share for part in _split(group, room))
        open_: list[_Shared] = []
        try:
            with torch.inference_mode():
                while waiting or open_:
                    _part(open_, engine)
                    logits = []
                    if open_:
                        given = [shared.lives[0].pending for shared in open_]
                        logits.append(engine.extend([shared.row for shared in open_], given))
                    new: list[list[_Live]] = []
                    busy = sum(len(shared.lives) for shared in open_)
                    while waiting and busy + sum(map(len, new)) + len(waiting[0]) <= room:
                        new.append(waiting.popleft())
                    if new:
                        rows, first = engine.start([group[0].pending for group in new])
                        logits.append(first)
                        for group, row in zip(new, rows, strict=True):
                            open_.append(_Shared(row, group))
                            for live in group:
                                live.started = time.monotonic()
                    self._sample(open_, torch.cat(logits) if len(logits) > 1 else logits[0])
                    for shared in open_:
                        for live in shared.lives:
                            if live.environment.done:
                                live.seconds = time.monotonic() - live.started
                                if progress is not None:
                                    progress(1)
                        shared.lives = [live for live in shared.lives if not live.environment.done]
                    if left := [shared.row for shared in open_ if not shared.lives]:
                        engine.close(left)
                    open_ = [shared for shared in open_ if shared.lives]
        except BaseException:
            engine.close([shared.row for shared in open_])
            raise
        finally:
            if len(self.engines) > 1:
                torch.set_num_threads(threads)

    def _sample(self, open_: list[_Shared], logits: Any) -> None:
        """Draw one token for each rollout and act on it; `logits` has a line for each of `open_`."""
        import torch

        lives = [live for shared in open_ for live in shared.lives]
        if len(lives) > len(open_):
            copies = torch.tensor([len(shared.lives) for shared in open_], device=logits.device)
            logits = logits.repeat_interleave(copies, 0)
        numbers = uniforms(
            self.sampling.seed, np.array([live.seed for live in lives]), np.array([live.drawn for live in lives])
        )
        for live, token, logprob in zip(lives, *draw(logits, numbers, self.sampling), strict=True):
            live.drawn += 1
            live.length += 1
            live.tokens.append(token)
            live.logprobs.append(logprob)
            live.pending = [token]
            full = self._full(live)
            if token in self.template.stop_ids or len(live.tokens) >= self.sampling.max_step_tokens or full:
                self._act(live, full)

    def _act(self, live: _Live, full: bool) -> None:
        """Hand a finished action to the environment; what it answers becomes pending."""
        environment = live.environment
        ended = live.tokens[-1] in self.template.stop_ids
        turn = len(environment.dialogue.turns) - 1
        step = len(environment.dialogue.turns[turn].steps)
        live.segments.append(Segment(turn, step, live.tokens, live.logprobs, live.prompt))
        action = self.template.parse(live.tokens)
        seen = environment.feed(action, tokens=len(live.tokens), truncated=not ended)
        if seen.done:
            return
        live.prompt = self.template.continuation(seen.new_messages, ended)
        live.pending = [live.tokens[-1], *live.prompt]
        live.length += len(live.prompt)
        live.tokens, live.logprobs = [], []
        if full or self._full(live):
            environment.stop("limit_tokens", "limit")

    def _full(self, live: _Live) -> bool:
        """Whether there is no room for another token."""
        return live.length + 1 >= min(self.sampling.max_tokens, self.context)


def _is_lean(model: Any) -> bool:
    from cm2.rollout.decode import is_lean

    return is_lean(model)


def _part(open_: list[_Shared], engine: Engine) -> None:
    """Give rollouts whose next ids differ rows of their own; those that still agree stay together."""
    parted = []
    for shared in open_:
        ways: dict[tuple[int, ...], list[_Live]] = {}
        for live in shared.lives:
            ways.setdefault(tuple(live.pending), []).append(live)
        shared.lives, *others = ways.values()
        parted += [(shared.row, lives) for lives in others]
    if parted:
        rows = engine.fork([row for row, _ in parted])
        open_ += [_Shared(row, lives) for row, (_, lives) in zip(rows, parted, strict=True)]


def _share(lives: list[_Live], workers: int) -> list[list[list[_Live]]]:
    """Neighbours with the same prompt form a group; groups are dealt to the workers, the fullest worker last.

    The deal depends on the list alone, never on timing, so that a repeated run has the same batches.
    """
    groups: list[list[_Live]] = []
    for live in lives:
        if groups and groups[-1][0].prompt == live.prompt:
            groups[-1].append(live)
        else:
            groups.append([live])
    if len(groups) < workers:
        groups = [part for group in groups for part in _split(group, -(-len(group) // workers))]
    shares: list[list[list[_Live]]] = [[] for _ in range(min(workers, len(groups)))]
    for group in groups:
        min(shares, key=lambda share: sum(map(len, share))).append(group)
    return shares


def _split(group: list[_Live], room: int) -> list[list[_Live]]:
    return [group[i : i + room] for i in range(0, len(group), room)]
