"""Memory: verdicts by what was seen and what was asked, so that siblings whose views are equal cost nothing.

The key of a verdict is the view, the item's text, the form of the question and which judgement it is: everything that a
call depends on but the company that the item had in it. Only verdicts are kept, failures are not. The newest `limit` of
them are kept; runs share answers through the door's own cache.

What is being asked at this moment is not asked a second time: whoever comes later waits for the same call. A call goes
on while anybody waits for it, so a rollout that is given up does not take its siblings' verdicts with it.

Everything here runs on the door's event loop: no locks.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from cm2.checklist import Item
from cm2.judge.form import item_line
from cm2.judge.question import Counts, Question, Said, ask
from cm2.llm import Asker

Key = tuple[bytes, bytes, str, int, int]
Work = Coroutine[Any, Any, dict[Key, Said]]


class Flight:
    """A call under way, and how many wait for it."""

    def __init__(self, work: Work, done: Callable[[Flight], None]):
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(lambda task: done(self))
        self._waiting, self._given_up = 0, False

    async def result(self) -> dict[Key, Said]:
        """What it brings, or its exception. Who is cancelled stops waiting; the last one to do so ends the call."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._given_up = True
                self._task.cancel()

    @property
    def over(self) -> bool:
        """Whether nobody may join any more."""
        return self._given_up or self._task.done()


class Memory:
    """Asks each thing once.

    Args:
        asker: whom to ask.
        limit: verdicts that are kept.
    """

    def __init__(self, asker: Asker, limit: int = 20_000):
        self.asker, self.limit = asker, limit
        self.counts = Counts()
        self._kept: OrderedDict[Key, Said] = OrderedDict()
        self._flights: dict[Key, Flight] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, question: Question) -> dict[str, Said]:
        """What is said of each item, by its id; see `cm2.judge.question.ask`. Only who asked first pays."""
        if self._loop is not asyncio.get_running_loop():  # after a fork
            self._loop, self._flights = asyncio.get_running_loop(), {}
        keys = {item.id: _key(question, item) for item in question.items}
        found: dict[Key, Said] = {}
        flights: dict[Key, Flight] = {}
        new: dict[Key, Item] = {}
        for item in question.items:
            key = keys[item.id]
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
            elif key in self._flights and not self._flights[key].over:
                flights[key] = self._flights[key]
            else:
                new.setdefault(key, item)
        self.counts.remembered += len(question.items) - len(new)
        if new:
            ours = msgspec.structs.replace(question, items=list(new.values()))
            own = Flight(self._fetch(ours, list(new)), self._landed)
            self._flights |= dict.fromkeys(new, own)
            flights |= dict.fromkeys(new, own)
        for brought in await asyncio.gather(*(flight.result() for flight in dict.fromkeys(flights.values()))):
            found |= {key: said for key, said in brought.items() if key in flights}
        paid = {item.id for item in new.values()}
        return {
            id: found[key] if id in paid else msgspec.structs.replace(found[key], cost=0.0) for id, key in keys.items()
        }

    async def _fetch(self, question: Question, keys: list[Key]) -> dict[Key, Said]:
        said = await ask(question, self.asker, self.counts)
        found = {key: said[item.id] for key, item in zip(keys, question.items, strict=True)}
        for key, one in found.items():
            if one.met is not None:
                self._kept[key] = msgspec.structs.replace(one, cost=0.0)
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        return found

    def _landed(self, flight: Flight) -> None:
        for key in [key for key, at in self._flights.items() if at is flight]:
            del self._flights[key]


def _key(question: Question, item: Item) -> Key:
    text = item_line(msgspec.structs.replace(item, id="")).encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return question.view.key, digest, question.form.prompt.id, question.sample, question.draw
