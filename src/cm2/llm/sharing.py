"""UnderWay: work that several want at the same time is done once.

Who comes first starts it; who comes later waits for the same. It goes on while anybody waits, and is cancelled with the
last of them. All of it lives on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class _Shared(Generic[R]):
    def __init__(self, task: asyncio.Task[R]):
        self.task, self.waiting = task, 0


class UnderWay(Generic[R]):
    """Work by key."""

    def __init__(self) -> None:
        self._shared: dict[bytes, _Shared[R]] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._shared

    async def run(self, key: bytes, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """The result of the work under this key: of that which is under way, else of `work`."""
        shared = self._shared.get(key) or self._start(key, work)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            if shared.waiting == 1:  # nobody wants it any more
                shared.task.cancel()
                self._drop(key, shared)
            raise
        finally:
            shared.waiting -= 1

    async def cancel(self) -> None:
        """Stop everything."""
        tasks = [shared.task for shared in self._shared.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: bytes, work: Callable[[], Coroutine[Any, Any, R]]) -> _Shared[R]:
        shared = self._shared[key] = _Shared(asyncio.ensure_future(work()))

        def done(task: asyncio.Task[R]) -> None:
            self._drop(key, shared)
            if not task.cancelled():
                task.exception()  # whoever waited has seen it

        shared.task.add_done_callback(done)
        return shared

    def _drop(self, key: bytes, shared: _Shared[R]) -> None:
        if self._shared.get(key) is shared:
            del self._shared[key]
