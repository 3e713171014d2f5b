"""A budget is kept under any concurrency, ends the run with a clear sentence, and the next run goes on."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.llm import BudgetReached, ModelError
from cm2.llm.budget import Budget
from llm.clocked import run
from llm.door_cases import Provider, asks, error, models, said

PRICE = {"input": 100.0, "output": 1000.0}


def answers(seed=0):
    """A provider whose answers are mostly much shorter than they may be."""
    rng = random.Random(seed)

    def script(body, _):
        prompt = len(body["messages"][0]["content"]) // 3 + 10
        return said('{"met": true}', prompt=prompt, answer=rng.randint(1, body["max_tokens"]))

    return Provider(script, delay=0.002)


async def ask_all(door, number, width=64):
    """Ask `number` questions, `width` at a time; how many were answered, and what ended it."""
    gate, answered, ended = asyncio.Semaphore(width), 0, None

    async def one(index):
        nonlocal answered, ended
        async with gate:
            if ended is None:
                try:
                    await door.ask(asks(f"item {index} " * 20, affinity=str(index % 7)))
                    answered += 1
                except BudgetReached as caught:
                    ended = caught

    await asyncio.gather(*(one(index) for index in range(number)))
    return answered, ended


@pytest.mark.parametrize("width", [1, 8, 64])
@pytest.mark.parametrize("budget", [0.5, 2.0])
def test_a_budget_is_never_overshot_whatever_the_concurrency(width, budget):
    provider = answers()
    with models(provider, {"price": PRICE, "max_tokens": 100}, budget=budget) as door:
        answered, ended = asyncio.run(ask_all(door, 400, width))
    assert (
        ended is not None and f"budget of ${budget:g} is reached" in str(ended) and "run the same command" in str(ended)
    )
    assert 0 < answered < 400 and answered == len(provider.bodies)
    assert budget * 0.6 < door.spent.cost <= budget  # and most of it was of use


def test_a_budget_is_kept_also_where_the_prompts_are_what_costs():
    def script(body, _):
        return said('{"met": true}', prompt=len(body["messages"][0]["content"]) // 2, answer=1)

    provider = Provider(script, delay=0.002)
    settings = {"price": {"input": 1000.0, "output": 0.0}, "max_tokens": 10}
    with models(provider, settings, budget=10.0) as door:
        answered, ended = asyncio.run(ask_all(door, 400))
    assert ended is not None and answered > 60  # the bound was learnt from the first answers
    assert 9.5 < door.spent.cost <= 10.0


def test_the_same_run_goes_on_with_a_new_budget_and_pays_nothing_twice(tmp_path):
    cache, total, runs = str(tmp_path / "c.sqlite"), 0, 0
    provider = answers()
    for _ in range(30):
        runs += 1
        with models(provider, {"price": PRICE, "max_tokens": 100}, budget=1.0, cache=cache) as door:
            answered, ended = asyncio.run(ask_all(door, 100))
        total += door.spent.calls
        assert door.spent.cost <= 1.0
        if ended is None:
            break
    assert runs > 3 and answered == 100 and total == len(provider.bodies) == 100


def test_what_is_in_the_cache_needs_no_budget(tmp_path):
    cache = str(tmp_path / "c.sqlite")
    with models(answers(), {"price": PRICE, "max_tokens": 100}, cache=cache) as door:
        door.wait_ask(asks())
    with models(Provider([]), {"price": PRICE, "max_tokens": 100}, cache=cache, budget=0.0) as door:
        assert door.wait_ask(asks()).cached
        with pytest.raises(BudgetReached):
            door.wait_ask(asks("another"))


def test_failures_cost_no_budget_and_bad_answers_do():
    provider = Provider([error(500), error(500), said("?", prompt=100, answer=10), said("?", prompt=100, answer=10)])
    with models(provider, {"price": PRICE, "max_tokens": 10}, budget=1.0) as door, pytest.raises(ModelError) as caught:
        door.wait_ask(asks())
    assert door.spent.cost == pytest.approx(2 * (100 * 100 + 10 * 1000) / 1e6) == caught.value.cost
    assert door._live is None or door._live.budget.reserved == pytest.approx(0.0)


def test_a_call_waits_for_others_before_the_limit_counts_as_reached():
    async def scenario():
        budget, log = Budget(1.0), []

        async def call(name, most, cost, seconds):
            await budget.reserve(most)
            log.append(name)
            await asyncio.sleep(seconds)
            budget.settle(most, cost)

        await asyncio.gather(call("a", 0.6, 0.1, 1), call("b", 0.3, 0.1, 2), call("c", 0.7, 0.2, 1))
        with pytest.raises(BudgetReached, match=r"\$0.4000 spent, and the next call may cost \$0.7000"):
            await call("d", 0.7, 0, 0)
        return log, budget.spent, budget.reserved

    log, spent, reserved = run(scenario())
    assert log == ["a", "b", "c"] and spent == pytest.approx(0.4) and reserved == pytest.approx(0)


def test_a_call_that_is_given_up_frees_what_it_waited_for():
    async def scenario():
        budget = Budget(1.0)
        await budget.reserve(0.9)
        waiting = asyncio.ensure_future(budget.reserve(0.5))
        other = asyncio.ensure_future(budget.reserve(0.1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        budget.settle(0.9, 0.0)
        await asyncio.wait_for(other, 1)
        return budget.reserved

    assert run(scenario()) == pytest.approx(0.1)


@given(
    st.floats(0, 10),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 5)), max_size=40),
    st.integers(1, 10),
)
def test_no_order_of_calls_overshoots(limit, calls, width):
    async def scenario():
        budget, gate = Budget(limit), asyncio.Semaphore(width)

        async def one(most, share, seconds):
            async with gate:
                try:
                    await budget.reserve(most)
                except BudgetReached:
                    return
                assert budget.spent + budget.reserved <= limit + 1e-9
                await asyncio.sleep(seconds)
                budget.settle(most, most * share)

        await asyncio.gather(*(one(*call) for call in calls))
        return budget

    budget = run(scenario())
    assert budget.spent <= limit + 1e-9 and budget.reserved == pytest.approx(0, abs=1e-9)
