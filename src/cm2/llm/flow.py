"""Flow: many requests at once from code that is not asynchronous.

All connections live on one event loop in one background thread of the process. `wait` runs a coroutine there;
`ordered` maps a stream, a bounded number of items at a time, and gives the results back in the order of the items, so
that a file of any size flows through with flat memory.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

THREAD = "cm2-llm"
T = TypeVar("T")
R = TypeVar("R")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget() -> None:
    """A forked child has the loop but not its thread."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def loop() -> asyncio.AbstractEventLoop:
    """The process's background event loop, started when it is first asked for."""
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name=THREAD, daemon=True).start()
        return _loop


def submit(work: Coroutine[Any, Any, R]) -> Future[R]:
    """Start a coroutine on the background loop."""
    return asyncio.run_coroutine_threadsafe(work, loop())


def wait(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine on the background loop and wait for it. Never from that loop itself."""
    future = submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def ordered(items: Iterable[T], work: Callable[[T], Awaitable[R]], width: int) -> Iterator[tuple[T, R]]:
    """(item, result) in the order of the items, with at most `width` of them under way.

    An exception of `work` is raised at its item's place; what is under way is then cancelled. Work that may fail for
    one item only returns its failure as a value.
    """

    async def one(item: T) -> R:
        return await work(item)

    under_way: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            under_way.append((item, submit(one(item))))
            if len(under_way) >= width:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    finally:
        for _, future in under_way:
            future.cancel()
