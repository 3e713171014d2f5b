"""Adaptive concurrency in simulated time: it finds the limit, keeps to it, and nobody starves."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.llm.limiter import START, Bucket, Limiter
from cm2.llm.rates import Allowance, Rates, read_rates
from llm.clocked import run


class Server:
    """Takes at most `slots` calls at once, and `requests` and `tokens` in a minute; refuses the others.

    A minute is the last 60 seconds or, `fixed`, one of the clock.
    """

    def __init__(self, *, slots=10**9, requests=10**9, tokens=10**9, tells=(), retry_after=None, fixed=False):
        self.slots, self.requests, self.tokens, self.fixed = slots, requests, tokens, fixed
        self.tells, self.retry_after = tells, retry_after
        self.active = self.refused = self.served = 0
        self.window: deque[tuple[float, float]] = deque()

    def roll(self):
        """What was used in the minute, and seconds until some of it (or, fixed, all of it) is free again."""
        now = asyncio.get_running_loop().time()
        start = now // 60 * 60 if self.fixed else now - 60
        while self.window and self.window[0][0] < start:
            self.window.popleft()
        free = start + 60 if self.fixed else self.window[0][0] + 60 if self.window else now
        return len(self.window), sum(one for _, one in self.window), free - now + 0.001

    async def call(self, tokens):
        requests, used, wait = self.roll()
        if self.active >= self.slots or requests >= self.requests or used + tokens > self.tokens:
            self.refused += 1
            await asyncio.sleep(0.01)
            return False, Rates(retry_after=wait if self.retry_after == "window" else self.retry_after)
        self.window.append((asyncio.get_running_loop().time(), tokens))
        self.active += 1
        await asyncio.sleep(1.0)
        self.active -= 1
        self.served += 1
        requests, used, wait = self.roll()
        told = {"requests": Allowance(self.requests - requests, wait), "tokens": Allowance(self.tokens - used, wait)}
        return True, Rates(**{what: told[what] for what in self.tells})


async def work(server, limiter, calls, tokens=100, pause=0.5):
    """Ask `calls` questions at once; returns when each was served and how often the worst was refused."""
    tries, ended = [0] * calls, [0.0] * calls

    async def one(number):
        while True:
            ticket = await limiter.acquire(tokens, tries[number])
            fine, rates = await server.call(tokens)
            limiter.release(ticket, rates, used=tokens if fine else None, refused=not fine)
            if fine:
                ended[number] = asyncio.get_running_loop().time()
                return
            tries[number] += 1
            if rates.retry_after is None:
                await asyncio.sleep(pause)

    await asyncio.gather(*(one(number) for number in range(calls)))
    return max(ended), max(tries), ended


def test_without_refusals_concurrency_doubles_up_to_the_most():
    async def scenario():
        server, limiter = Server(), Limiter(64)
        took, _, _ = await work(server, limiter, 1000)
        return took, limiter.limit

    took, limit = run(scenario())
    # 8 + 16 + 32 in the first three seconds, then 64 a second: 944 / 64 = 14.75
    assert limit == 64 and took == pytest.approx(3 + 15)


def test_it_converges_on_what_the_server_takes_at_once():
    async def scenario():
        server, limiter = Server(slots=20), Limiter(200)
        took, worst, _ = await work(server, limiter, 2000)
        return took, worst, server.refused, limiter.limit

    took, worst, refused, limit = run(scenario())
    assert 8 <= limit <= 24
    assert took < 2000 / 20 * 1.5  # at least two thirds of what the server could do
    assert refused < 200 and worst <= 6


def test_a_limit_of_one_call_at_once_is_found():
    async def scenario():
        server, limiter = Server(slots=1), Limiter(64)
        took, _, _ = await work(server, limiter, 100)
        return took, limiter.limit, server.served

    took, limit, served = run(scenario())
    assert served == 100 and limit <= 3 and took < 250


@pytest.mark.parametrize("retry_after", [None, "window", 5.0])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_limit_of_requests_a_minute_is_lived_with(retry_after, fixed):
    async def scenario():
        server, limiter = Server(requests=60, retry_after=retry_after, fixed=fixed), Limiter(64)
        took, worst, _ = await work(server, limiter, 300, pause=5.0)
        return took, worst, server.refused

    took, worst, refused = run(scenario())
    assert 239 <= took < 330  # 60 at once, then 60 a minute: 240 s is the best there is
    assert worst <= 18 and refused <= (150 if retry_after == "window" else 300)  # 18 is what the retry budget allows


def test_a_configured_limit_is_kept_without_a_single_refusal():
    async def scenario():
        server, limiter = Server(requests=70), Limiter(64, requests_per_minute=60)
        took, _, _ = await work(server, limiter, 300)
        return took, server.refused

    took, refused = run(scenario())
    assert refused == 0 and 290 <= took <= 302  # 60 a minute, five seconds' worth at once


def test_a_configured_limit_of_tokens_is_kept():
    async def scenario():
        server, limiter = Server(tokens=70_000), Limiter(64, tokens_per_minute=60_000)
        took, _, _ = await work(server, limiter, 300, tokens=1000)
        return took, server.refused

    took, refused = run(scenario())
    assert refused == 0 and 290 <= took <= 302


@pytest.mark.parametrize("what", ["requests", "tokens"])
def test_what_headers_say_is_left_is_waited_for_instead_of_being_refused(what):
    async def scenario():
        limits = {"requests": 60} if what == "requests" else {"tokens": 6000}
        server, limiter = Server(**limits, tells=(what,), fixed=True), Limiter(16)
        took, worst, _ = await work(server, limiter, 300)
        return took, worst, server.refused

    took, worst, refused = run(scenario())
    assert refused <= 4 and worst <= 1 and took < 260


def test_everybody_is_served_in_order_and_the_refused_first():
    async def scenario():
        limiter, order = Limiter(1), []

        async def one(name, tries):
            ticket = await limiter.acquire(0, tries)
            order.append(name)
            await asyncio.sleep(1)
            limiter.release(ticket, Rates(), used=0.0)

        await asyncio.gather(*(one(name, tries) for name, tries in (("a", 0), ("b", 0), ("c", 2), ("d", 0), ("e", 1))))
        return order

    assert run(scenario()) == ["a", "c", "e", "b", "d"]


def test_nobody_starves_while_others_keep_coming():
    async def scenario():
        server, limiter = Server(slots=4), Limiter(64)
        _, worst, ended = await work(server, limiter, 800)
        return worst, ended

    worst, ended = run(scenario())
    first, last = ended[:80], ended[-80:]
    assert worst <= 10 and max(first) < min(last)


def test_refusals_of_calls_that_were_under_way_together_count_once():
    async def scenario():
        limiter = Limiter(64)
        limiter.limit = 32.0
        tickets = [await limiter.acquire() for _ in range(32)]
        for ticket in tickets:
            limiter.release(ticket, Rates(), refused=True)
        return limiter.limit

    assert run(scenario()) == 16


def test_retry_after_pauses_everybody_but_never_longer_than_is_allowed():
    async def scenario(asked, longest):
        limiter = Limiter(8, longest=longest)
        loop = asyncio.get_running_loop()
        limiter.release(await limiter.acquire(), Rates(retry_after=asked), refused=True)
        await limiter.acquire()
        return loop.time()

    assert run(scenario(7.0, 60.0)) == pytest.approx(7, abs=0.01)
    assert run(scenario(3600.0, 20.0)) == pytest.approx(20, abs=0.01)


def test_a_call_that_is_given_up_leaves_its_place_to_others():
    async def scenario():
        limiter = Limiter(1)
        first = await limiter.acquire()
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.release(first, Rates(), used=0.0)
        waiting[1].cancel()  # after it was let through
        return await asyncio.wait_for(waiting[2], 5), limiter.active

    assert run(scenario())[1] == 1


def test_a_call_larger_than_the_bucket_still_gets_through():
    async def scenario():
        limiter = Limiter(8, tokens_per_minute=600)
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(3):
            ticket = await limiter.acquire(500)
            times.append(loop.time())
            limiter.release(ticket, Rates(), used=500.0)
        return times

    times = run(scenario())
    assert times[0] == 0 and times[1] == pytest.approx(50, abs=1) and times[2] == pytest.approx(100, abs=1)


def test_tokens_that_a_call_took_beyond_what_it_said_are_paid_back():
    async def scenario(used):
        limiter = Limiter(8, tokens_per_minute=600)
        limiter.release(await limiter.acquire(10), Rates(), used=used)
        await limiter.acquire(40)
        return asyncio.get_running_loop().time()

    assert run(scenario(10.0)) == 0 and run(scenario(100.0)) == pytest.approx(9, abs=0.1)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 5)), max_size=60), st.floats(6, 600))
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(calls, per_minute):
    bucket, now, taken = Bucket(per_minute, 0.0), 0.0, 0.0
    for gap, amount in calls:
        now += gap
        now += bucket.wait(amount, now)
        bucket.take(amount, now)
        taken += amount
        burst = max(1.0, per_minute / 60 * 5)
        assert taken <= per_minute / 60 * now + burst + max(0.0, amount - burst) + 1e-6


def test_it_starts_small():
    async def scenario():
        limiter = Limiter(1000)
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(50)]
        await asyncio.sleep(0)
        found = limiter.active
        for one in waiting:
            one.cancel()
        return found

    assert run(scenario()) == START


# ---- headers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("12ms", 0.012), ("1s", 1), ("1h2m3.5s", 3723.5), ("7.66", 7.66), ("0", 0)],
)
def test_resets_in_the_forms_of_servers(text, seconds):
    headers = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": text}
    assert read_rates(headers).requests == Allowance(3, pytest.approx(seconds))


@pytest.mark.parametrize(
    ("left", "reset"),
    [("-1", "0"), ("", "1s"), ("3", ""), ("many", "1s"), ("3", "soon"), ("nan", "1s"), ("3", "-5"), ("inf", "1s")],
)
def test_headers_that_say_nothing_are_no_limit(left, reset):
    headers = {"x-ratelimit-remaining-tokens": left, "x-ratelimit-reset-tokens": reset}
    assert read_rates(headers) == Rates()
