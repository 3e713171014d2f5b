"""Budget: what a run may spend, with what is under way already taken off.

Before a call its highest possible cost is reserved; afterwards the reservation is replaced by what it cost. A call
whose reservation does not fit waits for those under way, which mostly cost less than they may; when none is under way
any more and it still does not fit, the limit is reached. So concurrency never overshoots it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from cm2.llm.request import BudgetReached


class Budget:
    """A limit in US dollars; lives on one event loop.

    Args:
        limit: what may be spent; None for no limit.
    """

    def __init__(self, limit: float | None):
        self.limit = limit
        self.spent = self.reserved = 0.0
        self._under_way = 0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def reserve(self, amount: float) -> None:
        """Take off the highest possible cost of a call. Must be followed by `settle`.

        Raises:
            BudgetReached: it does not fit, and nothing is under way that could leave room.
        """
        if self.limit is None:
            return
        if self._waiting or not self._fits(amount):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, future))
            self._look()
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and future.exception() is None:
                    self.settle(amount, 0.0)
                raise
        else:
            self._take(amount)

    def settle(self, reserved: float, cost: float) -> None:
        """A call ended: what it cost takes the place of what was reserved."""
        self.spent += cost
        if self.limit is None:
            return
        self.reserved -= reserved
        self._under_way -= 1
        self._look()

    def _fits(self, amount: float) -> bool:
        return self.limit is None or self.spent + self.reserved + amount <= self.limit + 1e-12

    def _take(self, amount: float) -> None:
        self.reserved += amount
        self._under_way += 1

    def _look(self) -> None:
        """Let through who fits now, in order; tell them all when nobody will."""
        while self._waiting:
            amount, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
            elif self._fits(amount):
                self._waiting.popleft()
                self._take(amount)
                future.set_result(None)
            elif self._under_way:
                return
            else:
                self._waiting.popleft()
                future.set_exception(self._reached(amount))

    def _reached(self, amount: float) -> BudgetReached:
        return BudgetReached(
            f"the budget of ${self.limit:g} is reached: ${self.spent:.4f} spent, and the next call may cost "
            f"${amount:.4f}",
            fix="everything answered is kept; run the same command again to go on with a new budget",
        )
