"""The background loop: streams with bounded width, in order, from code that is not asynchronous."""

from __future__ import annotations

import asyncio
import random

import pytest

from cm2.llm import flow


def test_results_come_in_the_order_of_the_items_and_the_width_is_kept():
    active = most = 0

    async def work(item):
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(random.Random(item).random() / 100)
        active -= 1
        return item * item

    assert list(flow.ordered(range(60), work, 7)) == [(item, item * item) for item in range(60)]
    assert most == 7


def test_items_are_read_no_further_ahead_than_the_width():
    read = 0

    def items():
        nonlocal read
        for item in range(1000):
            read += 1
            yield item

    async def work(item):
        return item

    for item, _ in flow.ordered(items(), work, 5):
        assert read <= item + 5
        if item == 50:
            break


def test_a_failure_is_raised_at_its_place_and_the_others_are_stopped():
    stopped = []

    async def work(item):
        if item == 3:
            raise ValueError("three")
        try:
            await asyncio.sleep(0 if item < 3 else 30)
        except asyncio.CancelledError:
            stopped.append(item)
            raise
        return item

    seen = []
    with pytest.raises(ValueError, match="three"):
        for item, _ in flow.ordered(range(10), work, 4):
            seen.append(item)
    flow.wait(asyncio.sleep(0.05))
    assert seen == [0, 1, 2] and stopped == [4, 5, 6]
