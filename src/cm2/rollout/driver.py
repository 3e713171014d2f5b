"""Driver: many environments at once against local weights, token in, token out.

Every iteration appends to each open rollout whatever it has pending (one sampled token, or an answer of its environment
rendered as ids) in one ragged forward pass, then samples a token for each. So a rollout that waits for nobody never
waits: one reads a tool response while its neighbours write.

Rollouts of a group that came the same way, token for token, are one row: the prompt is read once, and as long as
siblings draw the same tokens and see the same answers they are decoded once. They part where they first differ.

An environment whose judge or world must be awaited (`Environment.asynchronous`) is answered on the background loop of
`cm2.llm.flow`; its rollout sleeps meanwhile, with its row of the cache, and the others are decoded on. The order in
which answers arrive then decides which rollouts share a forward pass: such a run repeats up to rounding only
(`cm2.train.punctual` repeats exactly).

An engine that can take ids back is given guesses of what comes next (`cm2.rollout.drafts`) and then reads several ids
of a rollout in one pass; what is drawn does not change.

Sampled ids are kept as they were sampled. A rollout's `Segment`s, each a `prompt` (rendered, never trained) and
`tokens` (sampled, with log-probabilities), are together exactly the ids that the model read.

With several workers every worker is one thread that decodes its own share of the groups on one core: two threads that
never wait for each other beat one matrix product split over two cores, and keep their speed on a busy machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import numpy as np

from cm2.dialogue import Dialogue
from cm2.errors import MissingExtra
from cm2.llm import flow
from cm2.rollout.drafts import ORDERS, Draft
from cm2.rollout.engine import Engine, HFEngine, Reading
from cm2.rollout.environment import Environment, Observation
from cm2.rollout.lives import Live, Shared, part, settle, share, sleep, split
from cm2.rollout.messages import assistant_message, opening_messages, tool_message
from cm2.rollout.sampling import Sampling, draw, uniforms
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Rollout, Segment


class Driver:
    """Runs environments with a local model.

    Args:
        model: a transformers causal language model; its weights are copied, so call `update_weights` after training it.
        tokenizer: its tokenizer, with a chat template for tools (see `ChatTemplate`).
        sampling: how tokens are drawn, and limits.
        batch: how many rollouts are open at once, over all workers.
        workers: threads that decode; default one per core that torch may use. Models without a lean decoder use one.
        lean: use `LlamaEngine` where it can run the model (None: yes).
        drafts: guess ids ahead where the engine can take them back; changes how long it takes, not what is said.
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
        drafts: bool = True,
    ):
        try:
            import torch
        except ImportError as problem:
            raise MissingExtra("rollouts with local weights", "train") from problem
        self.template = ChatTemplate(tokenizer)
        self.sampling = Sampling() if sampling is None else sampling
        self.batch, self.drafts = batch, drafts
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
            lives.append(Live(i, environment, prompt, seeds[i]))
        for live in lives:
            if self._full(live):  # the prompt alone leaves no room: the model never reads it
                live.environment.stop("limit_tokens", "limit")
                if progress is not None:
                    progress(1)
        shares = share([live for live in lives if not live.environment.done], len(self.engines))
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
        self, engine: Engine, groups: list[list[Live]], room: int, progress: Callable[[int], None] | None
    ) -> None:
        """Drive groups of environments with one engine, as many at once as there is room for."""
        import torch

        threads = torch.get_num_threads()
        if len(self.engines) > 1:
            torch.set_num_threads(1)  # holds for this thread's products only
        waiting = deque(some for group in groups for some in split(group, room))
        open_: list[Shared] = []
        asleep: list[Shared] = []
        draft = self._draft(groups) if self.drafts and isinstance(engine, Reading) else None
        try:
            with torch.inference_mode():
                while waiting or open_ or asleep:
                    new: list[list[Live]] = []
                    busy = sum(len(shared.lives) for shared in open_ + asleep)
                    while waiting and busy + sum(map(len, new)) + len(waiting[0]) <= room:
                        new.append(waiting.popleft())
                    if asleep:
                        self._wake(open_, asleep, idle=not open_ and not new)
                        sleep(open_, asleep, engine)
                        self._close(open_, engine, progress)
                    part(open_, engine)
                    logits = []
                    guesses = self._guesses(open_, draft)
                    guessed = any(ids for ids, _ in guesses)
                    if open_:
                        rows = [shared.row for shared in open_]
                        given = [shared.lives[0].pending for shared in open_]
                        if guessed and isinstance(engine, Reading):
                            given = [ids + more for ids, (more, _) in zip(given, guesses, strict=True)]
                            logits.append(engine.read(rows, given, [1 + len(more) for more, _ in guesses]))
                        else:
                            logits.append(engine.extend(rows, given))
                    if new:
                        rows, first = engine.start([group[0].pending for group in new])
                        logits.append(first)
                        for group, row in zip(new, rows, strict=True):
                            open_.append(Shared(row, group))
                            for live in group:
                                live.started = time.monotonic()
                    if logits:
                        guesses += [([], [])] * (len(open_) - len(guesses))
                        self._sample(open_, torch.cat(logits) if len(logits) > 1 else logits[0], guesses, draft)
                        if guessed and isinstance(engine, Reading):
                            settle(open_, engine)
                        sleep(open_, asleep, engine)
                        self._close(open_, engine, progress)
        except BaseException:
            for answer in (live.answer for shared in asleep for live in shared.lives):
                if answer is not None:
                    answer.cancel()
            engine.close([shared.row for shared in open_ + asleep])
            raise
        finally:
            if len(self.engines) > 1:
                torch.set_num_threads(threads)

    def _close(self, open_: list[Shared], engine: Engine, progress: Callable[[int], None] | None) -> None:
        """Let go of the rollouts that have ended, and of the rows that nobody needs any more."""
        for shared in open_:
            for live in shared.lives:
                if live.environment.done:
                    live.seconds = time.monotonic() - live.started
                    if progress is not None:
                        progress(1)
            shared.lives = [live for live in shared.lives if not live.environment.done]
        if left := [shared.row for shared in open_ if not shared.lives]:
            engine.close(left)
        open_[:] = [shared for shared in open_ if shared.lives]

    def _wake(self, open_: list[Shared], asleep: list[Shared], idle: bool) -> None:
        """Go on with the rows whose rollouts have all been answered; with nothing else to do, wait for some."""
        if idle:
            wait_for([live.answer for shared in asleep for live in shared.lives if live.answer], None, FIRST_COMPLETED)
        for shared in list(asleep):
            if all(live.answer is not None and live.answer.done() for live in shared.lives):
                for live in shared.lives:
                    assert live.answer is not None
                    seen, live.answer = live.answer.result(), None
                    self._answered(live, seen)
                asleep.remove(shared)
                open_.append(shared)

    def _draft(self, groups: list[list[Live]]) -> Draft:
        """What is likely to be said, from the dialogues that the tasks were made from."""
        draft = Draft()
        for task in {id(group[0].environment.task): group[0].environment.task for group in groups}.values():
            draft.learn(self.template.encode(self.template.render(task.dialogue.tools, messages_of(task.dialogue))))
        return draft

    def _guesses(self, open_: list[Shared], draft: Draft | None) -> list[tuple[list[int], list[int]]]:
        """For each row, ids that its rollouts may say next, with what `Draft` wants to know of them later."""
        if draft is None:
            return [([], []) for _ in open_]
        rows, found = sum(len(shared.lives[0].pending) for shared in open_), []
        for shared in open_:
            live = shared.lives[0]
            room = min(self.sampling.max_tokens, self.context) - live.length
            most = min(room, self.sampling.max_step_tokens - len(live.tokens)) - 1
            found.append(draft.guess(live.ids, most, rows, self.template.stop_ids))
        return found

    def _sample(
        self, open_: list[Shared], logits: Any, guesses: list[tuple[list[int], list[int]]], draft: Draft | None
    ) -> None:
        """Draw the next id of each rollout and act on it, and go on as long as it is what was guessed.

        `logits` has 1 + len(guess) lines for each of `open_`.
        """
        counts = [1 + len(ids) for ids, _ in guesses]
        first = np.cumsum(counts) - counts
        drawing = [(i, live) for i, shared in enumerate(open_) for live in shared.lives]
        depth = 0
        while drawing:
            lines = [int(first[i]) + depth for i, _ in drawing]
            whole = len(lines) == len(logits) and lines == list(range(len(lines)))
            numbers = uniforms(
                self.sampling.seed,
                np.array([live.seed for _, live in drawing]),
                np.array([live.drawn for _, live in drawing]),
            )
            drawn = draw(logits if whole else logits[lines], numbers, self.sampling)
            going_on = []
            for (i, live), token, logprob in zip(drawing, *drawn, strict=True):
                self._say(live, token, logprob, draft)
                guess, orders = guesses[i]
                if depth < len(guess):
                    assert draft is not None
                    draft.told(orders[depth], token == guess[depth])
                    if token == guess[depth] and live.due:
                        going_on.append((i, live))
            drawing, depth = going_on, depth + 1

    def _say(self, live: Live, token: int, logprob: float, draft: Draft | None) -> None:
        """Take down a drawn id; it may finish the rollout's action."""
        live.drawn += 1
        live.read = live.length
        live.ids.append(token)
        live.tokens.append(token)
        live.logprobs.append(logprob)
        live.pending = [token]
        if draft is not None:
            draft.heard(live.ids[-ORDERS[0] - 1 :])
        full = self._full(live)
        if token in self.template.stop_ids or len(live.tokens) >= self.sampling.max_step_tokens or full:
            self._act(live, full)

    def _act(self, live: Live, full: bool) -> None:
        """Hand a finished action to the environment; what it answers becomes pending."""
        environment = live.environment
        ended = live.tokens[-1] in self.template.stop_ids
        turn = len(environment.dialogue.turns) - 1
        step = len(environment.dialogue.turns[turn].steps)
        live.segments.append(Segment(turn, step, live.tokens, live.logprobs, live.prompt))
        action = self.template.parse(live.tokens)
        live.full = full
        if environment.asynchronous:
            fed = environment.feed_async(action, tokens=len(live.tokens), truncated=not ended)
            live.pending, live.answer = [], flow.submit(fed)
            return
        self._answered(live, environment.feed(action, tokens=len(live.tokens), truncated=not ended))

    def _answered(self, live: Live, seen: Observation) -> None:
        if seen.done:
            return
        ended = live.tokens[-1] in self.template.stop_ids
        live.prompt = self.template.continuation(seen.new_messages, ended)
        live.pending = [live.tokens[-1], *live.prompt]
        live.ids += live.prompt
        live.tokens, live.logprobs = [], []
        if not (live.full or self._full(live)):
            return
        if live.environment.asynchronous:
            live.answer = flow.submit(live.environment.stop_async("limit_tokens", "limit"))
        else:
            live.environment.stop("limit_tokens", "limit")

    def _full(self, live: Live) -> bool:
        """Whether there is no room for another token."""
        return live.length + 1 >= min(self.sampling.max_tokens, self.context)


def messages_of(dialogue: Dialogue) -> list[dict[str, Any]]:
    """A recorded dialogue as an environment's messages."""
    found = opening_messages(dialogue)
    for number, turn in enumerate(dialogue.turns):
        if number:
            found.append({"role": "user", "content": turn.user})
        for step in turn.steps:
            found += [assistant_message(step), *(tool_message(response) for response in step.responses)]
    return found


def _is_lean(model: Any) -> bool:
    from cm2.rollout.decode import is_lean

    return is_lean(model)
