"""ServedDriver: rollouts that vLLM servers decode, token in, token out, with the policy's weights of this update.

The same as `Driver` for whoever uses it: environments in, rollouts out, whose segments are exactly the ids that the
model read and sampled, with the log-probabilities that it sampled them with. What differs:

- every action is one request that holds the rollout's whole ids; the server's prefix cache has all but the last answer,
  because the rollouts of a task always go to the same replica while that has room;
- rollouts do not wait for each other: each is a coroutine, and the servers batch what arrives;
- `update_weights` saves the weights into a folder and has every server load them in place, then compares
  log-probabilities of a few tokens: another model, or weights that did not arrive, are found out;
- a request that no replica answers within its budget ends its rollout as failed by the provider: unscored, never zero.
  A server that came back with other weights in the middle of a batch shows afterwards: its rollouts have failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from cm2.errors import CM2Error, ConfigError
from cm2.llm.client import ProviderError
from cm2.llm.config import RoleModel
from cm2.llm.generator import Sampled, TokenClient
from cm2.llm.replicas import Replicas
from cm2.llm.vllm import STARTED, Served, VllmServer
from cm2.rollout.driver import Driver
from cm2.rollout.environment import Environment
from cm2.rollout.generation import Generation
from cm2.rollout.handover import agreed, hand_over, local_logprobs
from cm2.rollout.lives import Live
from cm2.rollout.sampling import Sampling, uniforms
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Failure, Rollout

T = TypeVar("T")
PROBE = "<|im_start|>user\nWhich of the 3 rooms is free on 2026-05-01? É, ß, 中文.<|im_end|>\n"
"""A text that tokenizers cut differently, and that every model has an opinion on."""
DRIFT = 1e-3
"""The same weights tell the same log-probabilities before and after a batch up to this, in nats (mean)."""


def _at_once(work: Callable[[], T]) -> T:
    return work()


class ServedDriver(Driver):
    """See the module.

    Args:
        generation: where the servers are.
        tokenizer: the policy's, with a chat template for tools.
        sampling: how tokens are drawn, and limits.
        batch: how many rollouts are open at once.
        folder: where weights are handed over, if `generation` names none.
        context: the longest sequence of the policy.
        lead: runs a function in one of several processes and gives all of them its result.
        first: whether this is the one.

    Raises:
        ConfigError: a server cannot be used, or cuts texts into other tokens than the tokenizer.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Any,
        sampling: Sampling | None = None,
        *,
        batch: int = 64,
        folder: str | Path = "weights",
        context: int | None = None,
        lead: Callable[[Callable[[], Any]], Any] = _at_once,
        first: bool = True,
    ):
        self.template = ChatTemplate(tokenizer)
        self.sampling = Sampling() if sampling is None else sampling
        if self.sampling.top_k or self.sampling.top_p < 1:
            raise ConfigError("a server's log-probabilities of truncated sampling are not the policy's", fix="top_p: 1")
        self.batch, self.drafts, self.generation, self.lead, self._first = batch, False, generation, lead, first
        self.folder = Path(generation.weights or folder)
        settings = {name: getattr(generation, name) for name in ("key_variable", "timeout", "retries", "backoff")}
        self.servers = [VllmServer(url, **settings) for url in generation.urls]
        self.probe = self.template.encode(PROBE)
        served = lead(self._check)
        self.model = served.name
        self.context = min(context or 2**31, served.length or 2**31)
        self.engines = [None]  # type: ignore[list-item]  # the servers, whose replicas are picked per request
        self._asked: dict[int, set[int]] = {}  # which servers each rollout of a batch was decoded by
        self._told: dict[int, list[float]] = {}  # what each server said of the probe with the weights of this batch
        self.difference: float | None = None
        """Between servers and trainer on the probe after the last hand-over, mean nats."""

    def update_weights(self, model: Any) -> None:
        """Hand over the weights that `model` has now.

        Raises:
            CM2Error: no server could take them, or one tells other log-probabilities than the trainer.
        """
        with hand_over(model, self.folder, self.generation.dtype, self.lead, self._first) as saved:
            wanted = local_logprobs(model, self.probe)
            self._told, self.difference = self.lead(lambda: self._load(saved, wanted))

    def run(
        self,
        environments: Sequence[Environment],
        *,
        groups: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """See `Driver.run`."""
        self._asked = {}
        found = super().run(environments, groups=groups, seeds=seeds, progress=progress)
        for server in sorted({number for numbers in self._asked.values() for number in numbers}):
            if (told := self._changed(server)) is None:
                continue
            for index, rollout in enumerate(found):
                if server in self._asked.get(index, ()) and rollout.failure is None:
                    rollout.failure = Failure("provider", told)
                    rollout.reason = rollout.owner = "provider"
        return found

    def close(self) -> None:
        """Close all connections."""
        for server in self.servers:
            server.close()

    def _check(self) -> Served:
        """What the servers serve."""
        wanted = self.generation.model
        found: list[Served] = []
        for server in self.servers:
            served = server.models()
            chosen = [one for one in served if one.name == wanted] if wanted else served[:1]
            if not chosen:
                names = ", ".join(one.name for one in served) or "nothing"
                raise ConfigError(f"{server.name} serves {names}, not {wanted}", fix="correct generation.model")
            ids = server.tokenize(PROBE, chosen[0].name)
            if ids is not None and ids != self.probe:
                raise ConfigError(
                    f"{server.name} cuts a text into other tokens than the policy: {_apart(ids, self.probe)}",
                    fix="serve the policy's own folder, with its tokenizer",
                )
            found += chosen
        if len({one.name for one in found}) > 1:
            raise ConfigError(
                f"the servers serve different models: {', '.join(sorted({one.name for one in found}))}",
                fix="give them one --served-model-name, and generation.model",
            )
        lengths = [one.length for one in found if one.length is not None]
        if lengths and min(lengths) < self.sampling.max_tokens:
            raise ConfigError(
                f"a server takes {min(lengths)} tokens, a rollout may have {self.sampling.max_tokens}",
                fix="raise --max-model-len, or lower max_tokens",
            )
        if not self.sampling.greedy and self.sampling.temperature != 1.0:
            self._check_mode(found[0].name)
        return Served(found[0].name, min(lengths, default=None))

    def _check_mode(self, name: str) -> None:
        """Whether log-probabilities are told after the temperature, as a trainer computes them."""
        for number, server in enumerate(self.servers):
            # Hotter, the likeliest token is less likely; told before the temperature it is as likely as ever.
            fields = {"seed": 1, "top_k": 0, "top_p": 1.0, "logprobs": 1}
            cool, hot = (self._ask(number, name, 1, temperature=heat, **fields).best for heat in (1.0, 2.0))
            if cool is not None and hot is not None and abs(cool - hot) < 1e-3:
                raise ConfigError(
                    f"{server.name} tells log-probabilities before the temperature, which training cannot use",
                    fix=f"set temperature: 1.0, or start it like this: {STARTED}",
                )

    def _load(self, saved: Path, wanted: list[float] | None) -> tuple[dict[int, list[float]], float | None]:
        """Every server takes the weights; those that could not are left out of this batch."""
        seen = self.generation.seen_as or str(saved.parent.resolve())
        told: dict[int, list[float]] = {}
        failed: list[CM2Error] = []
        for number, server in enumerate(self.servers):
            try:
                server.load(f"{seen.rstrip('/')}/{saved.name}")
                told[number] = self._ask(number, self.model, 1, temperature=0.0, prompt_logprobs=0).prompt_logprobs
            except ConfigError:
                raise
            except CM2Error as error:
                failed.append(error)
                Console(stderr=True).print(f"left out of this batch: {error}", markup=False)
        if not told:
            raise CM2Error(
                f"no server could take the weights; the first: {failed[0].message}",
                fix="see to the servers and run the same command again: it goes on from the last checkpoint",
            )
        return told, agreed(told, wanted, self.generation.agreement, [server.name for server in self.servers])

    def _changed(self, number: int) -> str | None:
        """What to say of a server that has other weights now than before the batch."""
        before, name = self._told.get(number), self.servers[number].name
        if before is None:
            return None
        try:
            now = self._ask(number, self.model, 1, temperature=0.0, prompt_logprobs=0).prompt_logprobs
        except CM2Error as error:
            return None if isinstance(error, ProviderError) else str(error)
        if len(now) == len(before) and float(np.mean(np.abs(np.subtract(now, before)))) <= DRIFT:
            return None
        return f"{name} has other weights than at the start of the batch: it was restarted, or somebody else loads some"

    def _role(self, urls: list[str], name: str) -> RoleModel:
        settings = self.generation
        return RoleModel(
            base_url=urls,
            model=name,
            key_variable=settings.key_variable,
            timeout=settings.timeout,
            retries=settings.retries,
            backoff=settings.backoff,
            concurrency=settings.concurrency,
        )

    def _ask(self, number: int, name: str, tokens: int, **fields: Any) -> Sampled:
        """A few tokens after the probe, by one server."""

        async def ask() -> Sampled:
            replicas = Replicas(self._role([self.generation.urls[number]], name), client=TokenClient)
            try:
                given = {"max_tokens": tokens, **{key: value for key, value in fields.items() if value is not None}}
                completion, _ = await replicas.complete(self.probe, given)  # type: ignore[arg-type]
            finally:
                await replicas.aclose()
            said: Sampled = completion.message["sampled"]
            return said

        return asyncio.run(ask())

    def _work(self, engine: Any, groups: list[list[Live]], room: int, progress: Callable[[int], None] | None) -> None:
        """Drive all rollouts, as many at once as there is room for."""
        asyncio.run(self._drive([live for group in groups for live in group], room, progress))

    async def _drive(self, lives: list[Live], room: int, progress: Callable[[int], None] | None) -> None:
        usable = [number for number in range(len(self.servers)) if not self._told or number in self._told]
        urls = [self.generation.urls[number] for number in usable]
        replicas = Replicas(self._role(urls, self.model), client=TokenClient)
        numbers = {id(replica): number for replica, number in zip(replicas.replicas, usable, strict=True)}
        gate = asyncio.Semaphore(room)

        async def one(live: Live) -> None:
            async with gate:
                live.started = time.monotonic()
                await self._live(live, replicas, numbers)
                live.seconds = time.monotonic() - live.started
                if progress is not None:
                    progress(1)

        try:
            async with asyncio.TaskGroup() as tasks:
                for live in lives:
                    tasks.create_task(one(live))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            await replicas.aclose()

    async def _live(self, live: Live, replicas: Replicas, numbers: dict[int, int]) -> None:
        """One rollout to its end."""
        affinity = live.environment.task.dialogue.id
        while not live.environment.done:
            try:
                completion, replica = await replicas.complete(
                    live.ids,  # type: ignore[arg-type]
                    self._fields(live),
                    affinity=affinity,
                    tokens=float(live.length + self.sampling.max_step_tokens),
                )
            except ProviderError as error:
                last = replicas.over(error, None)
                live.environment.fail("provider", str(last), fatal=last.fatal)
                return
            self._asked.setdefault(live.index, set()).add(numbers[id(replica)])
            said: Sampled = completion.message["sampled"]
            live.tokens, live.logprobs = list(said.tokens), list(said.logprobs)
            live.drawn += len(said.tokens)
            live.ids += said.tokens
            self._act(live, self._full(live))
            while live.answer is not None:
                seen, live.answer = await asyncio.wrap_future(live.answer), None
                self._answered(live, seen)

    def _fields(self, live: Live) -> dict[str, Any]:
        """What the next action of a rollout is sampled with."""
        sampling = self.sampling
        room = min(sampling.max_tokens, self.context) - 1 - live.length
        number = uniforms(sampling.seed, np.array([live.seed]), np.array([live.drawn]))[0]
        return {
            "max_tokens": min(sampling.max_step_tokens, room),
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "seed": int(number * 2**31),
            "stop_token_ids": list(self.template.stop_ids),
        }


def _apart(theirs: list[int], ours: list[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    return f"from token {at} on it has {theirs[at : at + 4]}, the policy {ours[at : at + 4]}"
