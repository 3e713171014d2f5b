"""Limiter: how many calls one endpoint gets at once, learnt from what it can take.

Concurrency starts small, doubles while nothing is refused, and from the first refusal on (429, or a 5xx with
Retry-After) grows by one a round and halves when refused: additive increase, multiplicative decrease. Of the calls that
were under way at a refusal only one counts. Retry-After pauses everybody. Limits that are configured (requests and
tokens a minute) are token buckets; limits that the server tells in its headers are waited for.

Who waits is served in order, but a call that was refused before goes first, so that none starves. All of it lives on
one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable

from cm2.llm.rates import Allowance, Rates

START = 8
"""Calls at once before anything is known."""
BURST = 5.0
"""Seconds' worth of a configured limit that may be used at once."""
FIRST_PAUSE = 0.5
"""Seconds that nothing starts after two refusals in a row that name no time; doubled with each further one."""
LONGEST = 60.0
"""Seconds that the server is waited for at most, whatever its headers say: they are wrong at times."""


class Bucket:
    """So much a minute: refilled all the time, and in debt after a call that took more than it said."""

    def __init__(self, per_minute: float, now: float):
        self._rate = per_minute / 60
        self._size = max(1.0, self._rate * BURST)
        self._level, self._at = self._size, now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may be taken; more than the bucket holds may be taken when it is full."""
        self._fill(now)
        missing = min(amount, self._size) - self._level
        return missing / self._rate if missing > 1e-9 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take it."""
        self._fill(now)
        self._level = min(self._size, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now


class _Told:
    """What the server said is left of a limit, counted down by what was started since."""

    def __init__(self) -> None:
        self._left, self._until = math.inf, 0.0

    def hear(self, allowance: Allowance | None, under_way: float, now: float, longest: float) -> None:
        if allowance is not None:
            self._left = allowance.left - under_way
            self._until = now + min(allowance.reset, longest)

    def wait(self, amount: float, now: float) -> float:
        if now >= self._until:
            self._left = math.inf
        return self._until - now if self._left < amount else 0.0

    def take(self, amount: float) -> None:
        self._left -= amount


class Ticket:
    """The right to make one call."""

    __slots__ = ("epoch", "tokens")

    def __init__(self, tokens: float, epoch: int):
        self.tokens, self.epoch = tokens, epoch


class Limiter:
    """Lets calls to one endpoint start.

    Args:
        most: calls at once, whatever is learnt.
        requests_per_minute, tokens_per_minute: configured limits; None for none.
        longest: seconds that the server is waited for at most.
        clock: seconds; the loop's where None.
    """

    def __init__(
        self,
        most: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        longest: float = LONGEST,
        clock: Callable[[], float] | None = None,
    ):
        self._clock = clock or asyncio.get_running_loop().time
        self.most, self.limit, self._longest = most, float(min(START, most)), longest
        self.active = 0
        self._tokens_under_way = 0.0
        self._learning, self._epoch, self._paused_until = True, 0, 0.0
        self._in_vain = 0
        now = self._clock()
        self._requests = Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, now) if tokens_per_minute else None
        self._told_requests, self._told_tokens = _Told(), _Told()
        self._waiting: list[tuple[int, int, float, asyncio.Future[Ticket | None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def load(self) -> int:
        """Calls under way or waiting."""
        return self.active + len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether a call that came now would wait for others to end; while the limit still doubles that is soon."""
        return self.load >= (self.most if self._learning else int(self.limit))

    @property
    def paused(self) -> float:
        """Seconds for which nothing starts because the server said so."""
        return max(0.0, self._paused_until - self._clock())

    async def acquire(self, tokens: float = 0.0, tries: int = 0) -> Ticket | None:
        """Wait until a call that takes about so many tokens may start; None when it was sent away. Every ticket must be
        given to `release`.

        Args:
            tokens: of prompt and answer.
            tries: how often the same call was refused before: the more, the sooner it is served.
        """
        future: asyncio.Future[Ticket | None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, (-tries, self._number, tokens, future))
        self._pump()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (ticket := future.result()) is not None:
                self.release(ticket, Rates())
            self._pump()
            raise

    def release(self, ticket: Ticket, rates: Rates, *, used: float | None = None, refused: bool = False) -> None:
        """A call ended.

        Args:
            ticket: its ticket.
            rates: what the answer's headers said.
            used: tokens that it took, where that is known.
            refused: whether it was refused because of a limit.
        """
        now = self._clock()
        self.active -= 1
        self._tokens_under_way -= ticket.tokens
        if self._tokens is not None and used is not None:
            self._tokens.take(used - ticket.tokens, now)
        if refused:
            if ticket.epoch == self._epoch:
                self.limit = max(1.0, self.limit / 2)
                self._learning, self._epoch = False, self._epoch + 1
                self._in_vain += 1
            pause = rates.retry_after
            if pause is None:
                pause = FIRST_PAUSE * 2.0 ** min(self._in_vain - 2, 20) if self._in_vain > 1 else 0.0
            self._paused_until = max(self._paused_until, now + min(pause, self._longest))
            return self._heard(rates, now)
        if used is not None:
            self._in_vain = 0
        if used is not None and self.load + 1 >= int(self.limit):  # only what was used says something
            self.limit = min(float(self.most), self.limit + (1.0 if self._learning else 1.0 / self.limit))
        self._heard(rates, now)

    def _heard(self, rates: Rates, now: float) -> None:
        self._told_requests.hear(rates.requests, self.active, now, self._longest)
        self._told_tokens.hear(rates.tokens, self._tokens_under_way, now, self._longest)
        self._pump()

    def send_away(self) -> None:
        """Let everybody who waits look for another place."""
        while self._waiting:
            future = heapq.heappop(self._waiting)[3]
            if not future.done():
                future.set_result(None)

    def _pump(self) -> None:
        """Start everything that may start, and look again when time alone makes the next one possible."""
        now = self._clock()
        while self._waiting:
            if self._waiting[0][3].done():  # given up
                heapq.heappop(self._waiting)
                continue
            tokens, future = self._waiting[0][2:]
            if self.active >= max(1, int(self.limit)):
                return  # a release looks again
            if (wait := self._wait(tokens, now)) > 0:
                self._later(wait)
                return
            heapq.heappop(self._waiting)
            self.active += 1
            self._tokens_under_way += tokens
            if self._requests is not None:
                self._requests.take(1, now)
            if self._tokens is not None:
                self._tokens.take(tokens, now)
            self._told_requests.take(1)
            self._told_tokens.take(tokens)
            future.set_result(Ticket(tokens, self._epoch))

    def _wait(self, tokens: float, now: float) -> float:
        waits = [self._paused_until - now, self._told_requests.wait(1, now), self._told_tokens.wait(tokens, now)]
        if self._requests is not None:
            waits.append(self._requests.wait(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)

    def _later(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait + 0.001, self._pump)
