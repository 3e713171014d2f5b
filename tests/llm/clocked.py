"""An event loop whose time is simulated: waits cost nothing, and minutes of rate limits pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.SelectSelector):
    """Never waits: it moves the clock on instead."""

    loop: ClockedLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits and nothing will ever happen")
        self.loop.now += timeout
        return super().select(0)


class ClockedLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in simulated time."""
    loop = ClockedLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
