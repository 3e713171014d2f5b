"""Outage: nobody answers for a while, and training waits instead of losing rollouts.

The door (`cm2.llm.Models`) tries a call again for some seconds; what fails after that costs its rollout. When the
server of the judge or the simulator is down that would be every rollout, and soon the run. So in training a request
that was given up, and that may succeed later, waits and is put again, as long as the outage is not too long:

- an outage begins with a request that is given up while no other was answered, and ends with the next answer;
- a request that fails while others are answered is no outage: it is put OWN times and then fails on its own;
- an outage that lasts too long ends the run, at its last checkpoint; the same command goes on from there.

Nothing is scored meanwhile, and nothing that waits is scored otherwise than it would have been: an answer is the same
whenever it comes. The rollouts that wait sleep, so an update takes as long as the outage and gives the same numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cm2.llm import Answer, Check, Models, ModelsConfig, ProviderError, Request

FIRST, LONGEST = 1.0, 30.0
"""Seconds before a request is put again, doubled each time, and the most of them."""
OWN = 3
"""Tries of a request that fails while others are answered."""
REMIND = 60.0
"""Seconds between two lines that say that training still waits."""
R = TypeVar("R")


class Outage:
    """Waits out the failures of a server.

    Args:
        seconds: how long an outage may last.
        say: told when one begins, while it lasts, and when it ends.
        first, longest: see FIRST and LONGEST.
        clock: seconds.

    Attributes:
        total: seconds of all outages so far, the present one included.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None],
        *,
        first: float = FIRST,
        longest: float = LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds, self._say, self._clock = seconds, say, clock
        self._first, self._longest = first, longest
        self._began: float | None = None
        self._answered = self._reminded = -1.0
        self._waiting = self._most = self._lost = 0
        self._over = 0.0

    @property
    def total(self) -> float:
        """See the class."""
        return self._over + (0.0 if self._began is None else self._clock() - self._began)

    async def through(self, ask: Callable[[], Awaitable[R]]) -> R:
        """The result of `ask`, put again as long as it makes sense.

        Raises:
            ProviderError: it fails for a reason of its own, or the outage has lasted too long (then `ended`).
        """
        own, pause = 0, self._first
        while True:
            start = self._clock()
            try:
                found = await ask()
            except ProviderError as error:
                if not error.again or self.seconds <= 0:
                    raise
                if self._answered >= start:
                    own += 1
                    if own >= OWN:
                        raise
                elif self._spent(error):
                    raise self._ended(error) from error
                self._waiting += 1
                self._most = max(self._most, self._waiting)
                try:
                    await asyncio.sleep(pause)
                finally:
                    self._waiting -= 1
                pause = min(2 * pause, self._longest)
            else:
                self._answer()
                return found

    def _spent(self, error: ProviderError) -> bool:
        """Note a failure while nobody was answered; whether the outage has lasted too long."""
        now = self._clock()
        if self._began is None:
            self._began = self._reminded = now
            self._most = self._lost = 0
            self._say(f"nobody answers: {error.message}; training waits, for {minutes(self.seconds)} at most")
        gone = now - self._began
        if gone < self.seconds and now - self._reminded >= REMIND:
            self._reminded = now
            self._say(f"still no answer after {minutes(gone)}; training waits")
        return gone >= self.seconds

    def _ended(self, error: ProviderError) -> ProviderError:
        """The failure of an outage that lasted too long. One request alone may be at fault itself, two are not."""
        self._lost += 1
        told = f"no answer for {minutes(self.seconds)}: {error.message}"
        ended = self._most > 1 or self._lost > 1
        return ProviderError(told, status=error.status, where=error.where, again=True, rates=error.rates, ended=ended)

    def _answer(self) -> None:
        self._answered = self._clock()
        if self._began is not None:
            gone = self._answered - self._began
            self._over, self._began = self._over + gone, None
            self._say(f"answered again after {minutes(gone)}; training goes on")


class Patient(Models):
    """The door, with patience; see the module.

    Args:
        config: which model in which role.
        outage: who waits.
        rest: see `Models`.
    """

    def __init__(self, config: ModelsConfig, outage: Outage, **rest: Any):
        super().__init__(config, **rest)
        self.outage = outage

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        """See `Models.ask`."""
        put = super().ask
        return await self.outage.through(lambda: put(request, check))

    def wait_ask(self, request: Request, check: Check | None = None) -> Answer:
        """See `Models.wait_ask`."""
        from cm2.llm import flow

        return flow.wait(self.ask(request, check))


def minutes(seconds: float) -> str:
    """A time for a person."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
