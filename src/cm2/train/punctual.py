"""Punctual: a rollout goes on when it is its turn, not when the answer that it waits for happens to arrive.

Which rollouts share a forward pass decides the last bits of their log-probabilities, and now and then a sampled id. A
driver that goes on with whoever has been answered makes that the doing of a server's speed, of the load of the machine,
and of a kill: a run that is resumed reads from a cache what the killed one had to wait for. So here time is counted in
forward passes: an answer takes `overlap` of them, no more and no less. While a rollout waits the others are decoded on;
when its time has come and the answer has not, decoding waits for it; where all wait, the next one's time comes at once.

What is decoded with what then follows from what was said alone, and a run repeats exactly where answers do (see
`docs/run-quality.md` for what is promised). The price: a server whose answers take longer than `overlap` passes slows
the decoding down, and with one that is faster rollouts wait for nothing.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

from cm2.rollout.driver import Driver
from cm2.rollout.lives import Shared


class Punctual(Driver):
    """See the module.

    Args:
        overlap: forward passes that an answer takes.
        rest: see `Driver`.
    """

    def __init__(self, *rest: Any, overlap: int, **named: Any):
        super().__init__(*rest, **named)
        self.overlap = overlap

    def _wake(self, open_: list[Shared], asleep: list[Shared], idle: bool) -> None:
        """Go on with the rows whose time has come, the longest asleep first. Called once before each forward pass."""
        missing = max(0, self.overlap - max(shared.slept for shared in asleep)) if idle else 0
        for shared in list(asleep):
            passes = shared.slept + missing
            if passes < self.overlap:
                shared.slept = passes + 1
                continue
            shared.slept = 0
            wait([live.answer for live in shared.lives if live.answer is not None])
            for live in shared.lives:
                assert live.answer is not None
                seen, live.answer = live.answer.result(), None
                self._answered(live, seen)
            asleep.remove(shared)
            open_.append(shared)
