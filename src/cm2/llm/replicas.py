"""Replicas: several addresses of one model, and which of them a call goes to.

A dialogue always goes to the same replica, whose prefix cache knows its beginning: the one whose hash with the
dialogue's affinity is highest (rendezvous hashing), so that a replica that comes or goes moves only its own dialogues.
Where that one has no room and is busier than the others, the next in the dialogue's own order takes the call; where it
fails, it is left out for a while and tried again with one call. What has no affinity goes where there is most room.

One request has one retry budget, over all replicas. A refusal because of rate limits counts apart from failures,
because others may have used up the limit: three times as many are taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from cm2.errors import Where
from cm2.llm.client import ChatClient, Completion, Endpoint, ProviderError
from cm2.llm.config import RoleModel
from cm2.llm.limiter import Limiter
from cm2.llm.rates import Rates

FAILURES = 3
"""Failures in a row after which a replica is left out; at once where nobody listens."""
FIRST_OUT, LONGEST_OUT = 1.0, 60.0
"""Seconds that it is left out, doubled each time."""
HOT = 1.25
"""How much busier than the mean a full replica is when its dialogues go elsewhere."""
REFUSALS = 3
"""Rate-limit refusals for each failure that the retry budget allows."""
NOBODY = (httpx.ConnectError, httpx.ConnectTimeout)
"""What happens where nobody listens."""
DEAD = 20
"""Requests in a row that were given up, after which the provider counts as gone. Refused as they are (4xx) they count
only while nothing at all was answered: then it is the setting that is wrong and not the request."""


class Replica:
    """One address: its client, its limiter, and whether it works."""

    def __init__(self, client: ChatClient, limiter: Limiter):
        self.client, self.limiter = client, limiter
        self._id = client.endpoint.base_url.encode()
        self._failures = self._outs = 0
        self._out_until = 0.0

    @property
    def name(self) -> str:
        """Its address, fit for records."""
        return self.client.endpoint.name

    def out(self, now: float) -> bool:
        """Whether it is left out. One that failed is tried again with one call at a time."""
        return now < self._out_until or (self._outs > 0 and self.limiter.load > 0)

    def weight(self, affinity: str) -> bytes:
        """Its place in the order of a dialogue."""
        return hashlib.blake2b(affinity.encode("utf-8", "replace") + b"\0" + self._id, digest_size=8).digest()

    def worked(self) -> None:
        """It answered."""
        self._failures = self._outs = 0
        self._out_until = 0.0

    def failed(self, now: float, *, hard: bool) -> None:
        """It did not; `hard` where nobody listened."""
        self._failures += 1
        if now >= self._out_until and (hard or self._failures >= FAILURES or self._outs):
            self._out_until = now + min(FIRST_OUT * 2.0 ** min(self._outs, 10), LONGEST_OUT)
            self._outs += 1


class Replicas:
    """All addresses of one role's model.

    Args:
        model: the role's model.
        concurrency: calls at once at each address, where the model does not say.
        client: how an address is asked.
        transport: httpx transport, for tests.
        sleep: for tests.
    """

    def __init__(
        self,
        model: RoleModel,
        concurrency: int = 64,
        *,
        client: type[ChatClient] = ChatClient,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ):
        self.model, self._sleep = model, sleep
        self.replicas = []
        self._given_up = 0
        self._answered = False
        for number, url in enumerate(model.base_urls):
            endpoint = Endpoint(
                base_url=url,
                model=model.model,
                key_variable=model.key_variable,
                timeout=model.timeout,
                retries=model.retries,
                backoff=model.backoff,
                longest_wait=model.longest_wait,
            )
            most = model.concurrency or concurrency
            limiter = Limiter(most, model.requests_per_minute, model.tokens_per_minute, model.longest_wait)
            self.replicas.append(Replica(client(endpoint, seed=number, transport=transport), limiter))

    async def aclose(self) -> None:
        """Close all connections."""
        for replica in self.replicas:
            await replica.client.aclose()

    def pick(self, affinity: str, now: float | None = None) -> Replica:
        """Where a call of this affinity goes now."""
        now = time.monotonic() if now is None else now
        working = [one for one in self.replicas if not one.out(now) and one.limiter.paused < 1.0] or self.replicas
        if not affinity:
            return min(working, key=lambda one: one.limiter.load / one.limiter.limit)
        order = sorted(working, key=lambda one: one.weight(affinity), reverse=True)
        mean = sum(one.limiter.load for one in working) / len(working)
        for replica in order:
            if not replica.limiter.full or replica.limiter.load <= HOT * mean:
                return replica
        return order[0]

    async def complete(
        self, messages: list[dict[str, Any]], fields: dict[str, Any], *, affinity: str = "", tokens: float = 0.0
    ) -> tuple[Completion, Replica]:
        """One completion, and who gave it.

        Args:
            messages: the conversation.
            fields: further fields of the body.
            affinity: of the dialogue.
            tokens: about how many it takes, prompt and answer.

        Raises:
            ProviderError: none could be had within the retry budget; `fatal` where no other will be had either.
        """
        failures = refusals = 0
        while True:
            replica = self.pick(affinity)
            tries = failures + refusals
            ticket = await replica.limiter.acquire(tokens, tries)
            if ticket is None:
                continue  # it stopped working, or was paused, while this call waited
            rates, used, refused = Rates(), None, False
            try:
                completion = await replica.client.once(messages, **fields)
                rates = completion.rates
                used = float(completion.prompt_tokens + completion.completion_tokens) or tokens
            except ProviderError as error:
                failure, rates = error, error.rates
                refused = error.status == 429 or (error.status == 503 and rates.retry_after is not None)
            finally:
                replica.limiter.release(ticket, rates, used=used, refused=refused)
            if used is not None:
                replica.worked()
                self._answered, self._given_up = True, 0
                completion.tries = tries + 1
                return completion, replica
            if not failure.again:
                raise failure
            if refused:
                refusals += 1
            else:
                failures += 1
                replica.failed(time.monotonic(), hard=isinstance(failure.__cause__, NOBODY))
            if self.pick(affinity) is not replica:
                replica.limiter.send_away()
            if failures > self.model.retries or refusals > REFUSALS * self.model.retries:
                raise replica.client.exhausted(failure, failures + refusals) from failure
            await self._sleep(self._pause(replica, affinity, failures, refusals, rates, refused))

    def _pause(
        self, replica: Replica, affinity: str, failures: int, refusals: int, rates: Rates, refused: bool
    ) -> float:
        if self.pick(affinity) is not replica:
            return 0.0  # another replica takes it at once
        if refused and rates.retry_after is not None:
            return 0.0  # the limiter is paused, and this call is first when it goes on
        return replica.client.pause(max(failures, refusals) - 1, rates.retry_after)

    def over(self, error: ProviderError, where: Where | None) -> ProviderError:
        """The failure of a request that was given up; of the whole run when nothing has been answered for long."""
        self._given_up += error.again or not self._answered
        ended, fix = error.ended, error.fix
        if self._given_up >= DEAD:
            ended = True
            fix = (
                f"{self._given_up} requests in a row came to nothing; see to the server and run the same command again"
            )
        return ProviderError(
            error.message, status=error.status, where=where, fix=fix, again=error.again, rates=error.rates, ended=ended
        )
