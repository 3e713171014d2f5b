"""An outage is waited out, said, and ends the run only when it lasts too long; nothing is scored otherwise for it."""

from __future__ import annotations

import asyncio

import pytest

from cm2.llm import ProviderError
from cm2.train.outage import OWN, Outage


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def world(monkeypatch):
    clock, said = Clock(), []
    sleep = asyncio.sleep

    async def slept(seconds):
        clock.now += seconds
        await sleep(0)

    monkeypatch.setattr("cm2.train.outage.asyncio.sleep", slept)
    return clock, said, lambda minutes: Outage(60 * minutes, said.append, clock=clock)


def server(clock, down_until, asked):
    async def ask():
        asked.append(clock.now)
        if clock.now < down_until:
            raise ProviderError("connection refused", again=True)
        return "an answer"

    return ask


def test_ten_minutes_are_waited_out_and_said(world):
    clock, said, outage = world
    asked = []
    waits = outage(11)
    assert asyncio.run(waits.through(server(clock, 600, asked))) == "an answer"
    assert 600 <= clock.now < 640 and len(asked) < 40
    assert said[0].startswith("nobody answers: connection refused; training waits, for 11 minutes")
    assert any("still no answer after" in line for line in said) and "training goes on" in said[-1]
    assert waits.total == pytest.approx(clock.now)


def test_an_outage_that_lasts_too_long_ends_the_run(world):
    clock, _, outage = world

    async def several():
        waits, asked = outage(5), []
        return await asyncio.gather(
            *(waits.through(server(clock, 1e9, asked)) for _ in range(3)), return_exceptions=True
        )

    errors = asyncio.run(several())
    assert any(error.fatal and "no answer for 5 minutes" in error.message for error in errors)
    assert all(isinstance(error, ProviderError) for error in errors)


def test_one_request_that_fails_while_others_are_answered_fails_on_its_own(world):
    clock, said, outage = world
    waits, tries = outage(10), []

    async def good():
        return "fine"

    async def bad():
        tries.append(clock.now)
        await waits.through(good)
        raise ProviderError("too long a prompt for this server", again=True)

    with pytest.raises(ProviderError, match="too long") as told:
        asyncio.run(waits.through(bad))
    assert len(tries) == OWN and not told.value.fatal and said == []


def test_a_request_that_was_alone_in_an_outage_is_not_taken_for_the_end(world):
    """The next one that is not answered either is: then it is the server."""
    clock, _, outage = world
    waits, fatal = outage(2), []
    for _ in range(2):
        with pytest.raises(ProviderError, match="no answer for 2 minutes") as told:
            asyncio.run(waits.through(server(clock, 1e9, [])))
        fatal.append(told.value.fatal)
    assert fatal == [False, True] and clock.now < 200


@pytest.mark.parametrize(("again", "minutes"), [(False, 10), (True, 0)])
def test_what_waiting_does_not_mend_fails_at_once(world, again, minutes):
    clock, said, outage = world

    async def refused():
        raise ProviderError("the key is refused", status=401, again=again)

    with pytest.raises(ProviderError, match="refused"):
        asyncio.run(outage(minutes).through(refused))
    assert clock.now == 0 and said == []
