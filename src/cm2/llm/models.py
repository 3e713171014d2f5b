"""Models: the door. It answers requests of every role, through whatever the configuration names.

A request is looked up in the cache, joined to an equal one that is under way, or asked. Asking spends two budgets: the
provider's (tries of a call that failed: `replicas`) and the semantic one (questions after an answer that is not valid:
here). What comes out is valid, or it is a `ProviderError`, a `ModelError` or `BudgetReached`; never a default. Only
valid answers are kept.

All of it lives on the background loop of `cm2.llm.flow`; `ask` may be awaited from any loop, `wait_ask` blocks.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from cm2.errors import ConfigError
from cm2.llm import flow
from cm2.llm.answer import Invalid, visible
from cm2.llm.budget import Budget
from cm2.llm.cache import AnswerCache, Stored, key_of
from cm2.llm.calls import CallLog
from cm2.llm.client import Completion, ProviderError
from cm2.llm.config import ModelsConfig, RoleModel
from cm2.llm.fence import SECRET_VARIABLE
from cm2.llm.fence import secret as process_secret
from cm2.llm.prices import Prices
from cm2.llm.question import content, once_more, value_of, with_schema
from cm2.llm.replicas import Replica, Replicas
from cm2.llm.request import ROLES, Answer, Check, ModelError, Request, Role, Usage
from cm2.llm.scrub import hide, scrub, watch
from cm2.llm.sharing import UnderWay
from cm2.llm.spending import Spending
from cm2.llm.tokens import Counter, counter_of, size
from cm2.llm.voice import Voice

ADAPTED = 8
"""Refusals of one request that may each teach something about the endpoint."""
_OF_ENDPOINT = (
    *("model", "key_variable", "timeout", "retries", "backoff", "longest_wait"),
    *("requests_per_minute", "tokens_per_minute"),
)
REMEMBERED = 200_000
"""Questions that a dry run remembers, to see that one is asked twice."""


class _Live:
    """What belongs to one event loop."""

    def __init__(self, budget: float | None):
        self.voices: dict[Role, Voice] = {}
        self.replicas: dict[Any, Replicas] = {}
        self.under_way: UnderWay[Answer] = UnderWay()
        self.budget = Budget(budget)

    async def aclose(self) -> None:
        await self.under_way.cancel()
        for replicas in self.replicas.values():
            await replicas.aclose()


class Models:
    """Answers requests: an `Asker`.

    Args:
        config: which model in which role.
        dry: ask nothing, count what would be asked; the answer is `Request.planned`.
        transport: httpx transport, for tests.
        say: told, once each, what a person should know (a price is missing, a server has no JSON mode).

    Attributes:
        spent: calls, tokens and money by stage.
        planned: the same of a dry run.
        secret: what fences are made of: $CM2_FENCE_SECRET, else kept in the cache, so that a resumed run asks the same.

    Raises:
        ConfigError: a setting, the prices or the cache are not what they should be.
    """

    def __init__(
        self,
        config: ModelsConfig,
        *,
        dry: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        say: Callable[[str], None] | None = None,
    ):
        self.config, self.dry, self._transport = config, dry, transport
        self.spent, self.planned = Spending(), Spending()
        self._say = say or (lambda text: None)
        self._prices = Prices(config.prices)
        self._cache = AnswerCache(config.cache, say=self._note, read_only=dry)
        self._log = CallLog(None if dry else config.log)
        for role in ROLES:
            _hide(config.of(role))
        own = os.environ.get(SECRET_VARIABLE, "").strip()
        self.secret = own or (self._cache.secret if config.cache else process_secret())
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._live: _Live | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._closed = False

    def __enter__(self) -> Models:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """Sent to another process it begins anew there, with the same configuration."""
        return _again, (self.config, self.dry)

    def ready(self, role: Role) -> RoleModel:
        """The model of a role that can be asked: it has an address, and a price where there is a budget.

        Raises:
            ConfigError: it cannot.
        """
        model = self.config.ready(role)
        if self.config.budget is not None and not self.dry and self._prices.of(model) is None:
            fix = "write price: {input: 0.5, output: 1.5} for the role (US$ per million tokens), or a file of prices"
            raise ConfigError(f"there is a budget, but no price of {model.model} is known", fix=fix)
        return model

    def wait_ask(self, request: Request, check: Check | None = None) -> Answer:
        """`ask` for code that is not asynchronous."""
        return flow.wait(self._ask(request, check))

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        """See `Asker.ask`; from any event loop."""
        if asyncio.get_running_loop() is flow.loop():
            return await self._ask(request, check)
        return await asyncio.wrap_future(flow.submit(self._ask(request, check)))

    def close(self) -> None:
        """Stop what is under way, close connections, cache and log. What was answered is kept."""
        self._closed = True
        live, self._live = self._live, None
        if live is not None and self._loop is flow.loop():
            closing = live.aclose()
            if threading.current_thread().name == flow.THREAD:
                flow.submit(closing)
            else:
                flow.wait(closing)
        self._cache.close()
        self._log.close()

    # ---- one question

    async def _ask(self, request: Request, check: Check | None) -> Answer:
        live = self._here()
        voice = self._voice(live, request.role)
        key = key_of(content(voice.model, request))
        stage = request.stage or request.role
        if (stored := self._cache.get(key)) is not None:
            answer = self._stored(stored, request, check)
            if answer is not None:
                self._count(stage, reused=True)
                return answer
        if self.dry:
            return self._plan(voice, key, stage, request)
        while True:
            mine = key not in live.under_way
            try:
                answer = await live.under_way.run(key, lambda: self._answer(live, voice, key, stage, request, check))
            except (ProviderError, ModelError) as error:
                self.spent.stage(stage).failed += 1
                if mine:
                    raise
                raise _shared(error, request) from error
            if mine:
                self._count(stage)
                return answer
            found = self._stored(Stored(answer.text, answer.model), request, check)
            if found is not None:
                self._count(stage, reused=True)
                found.priced = answer.priced
                return found
            # valid for who asked first, not for this one: it asks for itself

    async def _answer(
        self, live: _Live, voice: Voice, key: bytes, stage: str, request: Request, check: Check | None
    ) -> Answer:
        usage, cost, problem = Usage(), 0.0, ""
        further: list[dict[str, Any]] = []
        for _ in range(voice.model.repairs + 1):
            done, paid, replica = await self._call(live, voice, stage, request, further)
            usage, cost = _sum(usage, done), cost + (paid or 0.0)
            try:
                text = visible(done.message, done.finish_reason)
                value = value_of(text, request, check)
                problem = ""
            except Invalid as error:
                problem = scrub(str(error))
            self._log.call(request, further, key, stage, replica.name, done, paid, problem)
            if not problem:
                priced = voice.price is not None
                self._cache.put(key, Stored(text, voice.model.model, request.prompt, usage, cost if priced else None))
                return Answer(value, text, voice.model.model, request.prompt, usage, cost, priced=priced)
            further = once_more(request, done.message, problem)
        again = ", also when it was asked once more" if usage.calls > 1 else ""
        told = f"the {request.role} ({voice.model.model}) gave no valid answer{again}: {problem[:600]}"
        fix = "raise max_tokens of the role" if "cut off" in problem else None
        raise ModelError(told, where=request.where, fix=fix, cost=cost)

    async def _call(
        self, live: _Live, voice: Voice, stage: str, request: Request, further: list[dict[str, Any]]
    ) -> tuple[Completion, float | None, Replica]:
        """One call that was answered: what came back, what it cost (None: not known), and from whom."""
        for _ in range(ADAPTED):
            fields = voice.abilities.fields(request)
            sent = [*request.messages, *further]
            if request.schema is not None and "response_format" not in fields:
                sent = [*with_schema(request.messages, request.schema), *further]
            bytes = size(sent, fields.get("response_format"))
            most, cost = voice.most(bytes, request), None
            await live.budget.reserve(most)
            try:
                done, replica = await voice.replicas.complete(
                    sent, fields, affinity=request.affinity, tokens=voice.guess(bytes, request)
                )
                voice.measure(done, bytes)
                cost = voice.cost(done)
                self._paid(voice, stage, done, cost, repair=bool(further))
                return done, cost, replica
            except ProviderError as error:
                learnt = voice.abilities.learn(error, request, fields)
                if learnt is None:
                    raise voice.replicas.over(error, request.where) from error
                self._note(learnt)
            finally:
                live.budget.settle(most, cost or 0.0)
        raise ProviderError(f"{voice.model.model} refuses the request in every form", status=400, where=request.where)

    def _paid(self, voice: Voice, stage: str, done: Completion, cost: float | None, *, repair: bool) -> None:
        usage = _sum(Usage(), done)
        self.spent.call(stage, usage, cost, repair=repair)
        if cost is None:
            self._note(f"no price of {voice.model.model} is known: its cost is unknown, not 0")
        if not done.counted:
            self._note(f"{voice.model.model} reports no tokens: they are estimated")

    # ---- without asking

    def _stored(self, stored: Stored, request: Request, check: Check | None) -> Answer | None:
        try:
            value = value_of(stored.text, request, check)
        except Invalid:
            return None  # valid once, by another check: a miss
        priced = stored.cost is not None
        return Answer(value, stored.text, stored.model, request.prompt, cached=True, priced=priced)

    def _plan(self, voice: Voice, key: bytes, stage: str, request: Request) -> Answer:
        counts = self.planned.stage(stage)
        counts.answers += 1
        answer = Answer(request.planned, model=voice.model.model, prompt=request.prompt)
        answer.priced = voice.price is not None
        if key in self._seen:
            counts.reused += 1
            return answer
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        prompt, completion, cost, most = voice.plan(request)
        self.planned.call(stage, Usage(1, prompt, 0, completion), cost)
        counts.most += most or 0.0
        if cost is None:
            self._note(f"no price of {voice.model.model} is known: its cost is unknown, not 0")
        elif most is None:
            self._note("without max_tokens nothing bounds an answer: its money is that of a short one without thinking")
        if not voice.counter.exact:
            self._note(f"tokens for {voice.model.model} are estimated (set `tokenizer` to count them)")
        return answer

    # ---- what a loop holds

    def _here(self) -> _Live:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ConfigError("these models are closed", fix="make new ones")
        if self._pid != os.getpid():  # a forked child shares no database connection
            self._pid = os.getpid()
            self._cache = AnswerCache(self.config.cache, say=self._note, read_only=self.dry)
        if self._live is None or self._loop is not loop:
            budget = self.config.budget
            left = None if budget is None or self.dry else max(0.0, budget - self.spent.cost)
            self._live, self._loop = _Live(left), loop
        return self._live

    def _voice(self, live: _Live, role: Role) -> Voice:
        if role in live.voices:
            return live.voices[role]
        model = self.ready(role)
        most = model.concurrency or self.config.concurrency
        same = (tuple(model.base_urls), most, *(getattr(model, name) for name in _OF_ENDPOINT))
        if same not in live.replicas:  # roles that ask the same endpoint share its limits
            live.replicas[same] = Replicas(model, most, transport=self._transport)
        counter = counter_of(model) if self.dry else Counter()
        live.voices[role] = Voice(model, live.replicas[same], self._prices.of(model), counter)
        return live.voices[role]

    def _count(self, stage: str, *, reused: bool = False) -> None:
        counts = (self.planned if self.dry else self.spent).stage(stage)
        counts.answers += 1
        counts.reused += reused

    def _note(self, text: str) -> None:
        if (self.planned if self.dry else self.spent).note(scrub(text)):
            self._say(scrub(text))


def _hide(model: RoleModel) -> None:
    """Let nobody read the role's key, or what its addresses hold of secrets."""
    watch(model.key_variable)
    for url in model.base_urls:
        parts = urlsplit(url)
        hide(parts.password or "", *(value for _, value in parse_qsl(parts.query)))


def _again(config: ModelsConfig, dry: bool) -> Models:
    return Models(config, dry=dry)


def _shared(error: ProviderError | ModelError, request: Request) -> ProviderError | ModelError:
    """A failure that an equal question shares: at its own place, and paid for once."""
    if isinstance(error, ModelError):
        return ModelError(error.message, where=request.where, fix=error.fix)
    return ProviderError(
        error.message, status=error.status, where=request.where, fix=error.fix, again=error.again, ended=error.ended
    )


def _sum(usage: Usage, done: Completion) -> Usage:
    return Usage(
        usage.calls + 1,
        usage.prompt_tokens + done.prompt_tokens,
        usage.cached_tokens + done.cached_tokens,
        usage.completion_tokens + done.completion_tokens,
    )
