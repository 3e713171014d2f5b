"""Several addresses of one model: a dialogue keeps its own, and goes elsewhere only while it must."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from cm2.llm import ProviderError
from cm2.llm.replicas import Replicas
from llm.clocked import run
from llm.door_cases import Provider, asks, error, models, role, said

URLS = [f"http://{name}.test/v1" for name in "abcd"]
ASK = [{"role": "user", "content": "x"}]


def make(urls=URLS, **fields):
    return Replicas(role(base_url=urls, **fields), transport=Provider(["x"]))


def home(replicas, affinity):
    return replicas.pick(affinity, 0.0).client.endpoint.base_url


def test_a_dialogue_keeps_its_replica_and_dialogues_spread():
    async def scenario():
        replicas = make()
        homes = {str(number): home(replicas, str(number)) for number in range(2000)}
        again = make(list(reversed(URLS)))  # neither the order nor the process matters
        assert all(home(again, affinity) == url for affinity, url in homes.items())
        return Counter(homes.values())

    assert all(400 < count < 600 for count in run(scenario()).values())


def test_a_replica_that_goes_moves_only_its_own_dialogues():
    async def scenario():
        four, three = make(), make(URLS[:3])
        for number in range(500):
            before, after = home(four, str(number)), home(three, str(number))
            assert before == after or before == URLS[3]

    run(scenario())


def test_every_call_of_a_dialogue_goes_to_one_replica():
    provider = Provider(lambda body, _: '{"met": true}')
    with models(provider, {"base_url": URLS}) as door:

        async def all_of():
            calls = (
                asks(f"{dialogue} {turn}", affinity=f"dialogue {dialogue}")
                for dialogue in range(12)
                for turn in range(8)
            )
            await asyncio.gather(*map(door.ask, calls))

        asyncio.run(all_of())
    homes: dict[str, set[str]] = {}
    for body, host in zip(provider.bodies, provider.hosts, strict=True):
        homes.setdefault(body["messages"][0]["content"].split()[0], set()).add(host)
    assert all(len(hosts) == 1 for hosts in homes.values()) and len(set.union(*homes.values())) > 1


def test_a_dead_replicas_dialogues_go_elsewhere_at_once_and_it_is_left_out():
    def script(body, request):
        return httpx.ConnectError("nobody there") if request.url.host == "a.test" else '{"met": true}'

    provider = Provider(script)
    with models(provider, {"base_url": URLS[:3], "retries": 2, "backoff": 5.0}) as door:

        async def all_of():
            await asyncio.gather(*(door.ask(asks(str(number), affinity=str(number))) for number in range(100)))

        asyncio.run(asyncio.wait_for(all_of(), 20))  # no backoff is waited for: others work
    assert door.spent.calls == 100 and Counter(provider.hosts)["a.test"] <= 20


def test_a_replica_that_comes_back_gets_its_dialogues_again_one_call_first():
    async def scenario():
        broken = True

        def script(body, request):
            return error(500) if request.url.host == "a.test" and broken else "fine"

        provider = Provider(script, delay=1.0)
        replicas = Replicas(role(base_url=URLS[:2], retries=6, backoff=0.5), transport=provider)
        mine = next(str(number) for number in range(99) if home(replicas, str(number)) == URLS[0])
        for _ in range(2):
            _, by = await replicas.complete(ASK, {}, affinity=mine)
            assert by.client.endpoint.base_url == URLS[1]
        failed = provider.hosts.count("a.test")
        broken = False
        import time

        real, offset = time.monotonic, 100.0
        try:
            time.monotonic = lambda: real() + offset
            await asyncio.gather(*(replicas.complete(ASK, {}, affinity=mine) for _ in range(4)))
            assert provider.hosts.count("a.test") == failed + 1  # one call tries it out
            _, by = await replicas.complete(ASK, {}, affinity=mine)
        finally:
            time.monotonic = real
        return by.client.endpoint.base_url

    assert run(scenario()) == URLS[0]


def test_one_hot_dialogue_overflows_to_the_next_of_its_own_order_and_only_then():
    async def scenario():
        replicas = Replicas(role(base_url=URLS, concurrency=4), transport=Provider(["x"], delay=1.0))
        await asyncio.gather(*(replicas.complete(ASK, {}, affinity="hot") for _ in range(4)))
        provider = replicas.replicas[0].client._http._transport
        assert len(set(provider.hosts)) == 1  # it has room: it stays
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(replicas.complete(ASK, {}, affinity="hot") for _ in range(64)))
        counts = Counter(provider.hosts)
        return loop.time() - began, counts

    took, counts = run(scenario())
    assert took <= 6 and len(counts) == 4  # alone, its replica would have taken 16 seconds


def test_a_paused_replica_is_gone_around():
    async def scenario():
        def script(body, request):
            return error(429, Retry_After="50") if request.url.host == "a.test" else "fine"

        replicas = Replicas(role(base_url=URLS[:2], longest_wait=60), transport=Provider(script))
        mine = next(str(number) for number in range(99) if home(replicas, str(number)) == URLS[0])
        await replicas.complete(ASK, {}, affinity=mine)
        return asyncio.get_running_loop().time()

    assert run(scenario()) < 1


def test_without_an_affinity_calls_go_where_there_is_room():
    async def scenario():
        provider = Provider(["x"], delay=1.0)
        replicas = Replicas(role(base_url=URLS), transport=provider)
        await asyncio.gather(*(replicas.complete(ASK, {}) for _ in range(16)))
        return Counter(provider.hosts)

    assert set(run(scenario()).values()) == {4}


def test_the_retry_budget_is_one_over_all_replicas():
    async def scenario():
        provider = Provider([error(500, "down")])
        replicas = Replicas(role(base_url=URLS, retries=5, backoff=0.1), transport=provider)
        with pytest.raises(ProviderError, match=r"after 6 tries"):
            await replicas.complete(ASK, {}, affinity="x")
        return len(provider.bodies)

    assert run(scenario()) == 6


def test_refusals_for_the_rate_have_a_budget_of_their_own():
    async def scenario(script):
        provider = Provider(script)
        replicas = Replicas(role(retries=2, backoff=0.1), transport=provider)
        try:
            await replicas.complete(ASK, {})
        except ProviderError as caught:
            return len(provider.bodies), caught.message
        return len(provider.bodies), ""

    assert run(scenario([error(429)] * 6 + ["fine"])) == (7, "")
    asked, told = run(scenario([error(429, "slow down")]))
    assert asked == 7 and "slow down (after 7 tries)" in told


def test_retry_after_is_honoured_and_backoff_grows_otherwise():
    async def scenario(script, **fields):
        replicas = Replicas(role(**{"retries": 5, "backoff": 1.0} | fields), transport=Provider(script))
        await replicas.complete(ASK, {})
        return asyncio.get_running_loop().time()

    assert run(scenario([error(429, Retry_After="9"), "fine"])) == pytest.approx(9, abs=1.1)
    assert run(scenario([error(503, Retry_After="9"), "fine"])) == pytest.approx(9, abs=1.1)
    assert run(scenario([error(429, Retry_After="900"), "fine"], longest_wait=30)) == pytest.approx(30, abs=1.1)
    assert 0 < run(scenario([error(500)] * 5 + ["fine"])) < 1 + 2 + 4 + 8 + 16


def test_rate_limits_are_shared_by_roles_of_one_endpoint():
    provider = Provider(lambda body, _: '{"met": true}')
    with models(provider) as door:
        door.wait_ask(asks(role="judge"))
        door.wait_ask(asks(role="filter", messages=ASK))
        assert len(door._live.replicas) == 1


def test_half_the_calls_refused_at_random_still_all_get_served_quickly():
    """A server that takes 10 calls at once, asked by 200: through the whole door of one role."""

    async def scenario():
        active = refused = 0

        async def script(body, request):
            nonlocal active, refused
            if active >= 10:
                refused += 1
                return error(429, Retry_After="1")
            active += 1
            await asyncio.sleep(1)
            active -= 1
            return said("fine")

        replicas = Replicas(role(retries=6, backoff=0.5), 200, transport=Provider(script))
        await asyncio.gather(*(replicas.complete(ASK, {}, tokens=10) for _ in range(400)))
        return asyncio.get_running_loop().time(), refused

    took, refused = run(scenario())
    assert took < 400 / 10 * 2.5 and refused < 120
