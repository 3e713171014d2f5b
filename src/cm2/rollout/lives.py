"""Lives: rollouts that are being driven, and the rows of an engine's cache that they share.

Rollouts that came the same way, token for token, are one row. They part where their next ids differ; those that wait
for an answer of their environment sleep in a row of their own.
"""

from __future__ import annotations

import time
from concurrent.futures import Future

from cm2.rollout.engine import Engine, Reading
from cm2.rollout.environment import Environment, Observation
from cm2.rollout.trace import Segment


class Live:
    """One rollout that is being driven."""

    def __init__(self, index: int, environment: Environment, prompt: list[int], seed: int):
        self.index, self.environment, self.seed = index, environment, seed
        self.pending: list[int] = prompt
        """Ids that the model has not read yet."""
        self.prompt: list[int] = prompt
        """Rendered ids since the last segment."""
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.segments: list[Segment] = []
        self.ids: list[int] = list(prompt)
        """All of the rollout so far, pending ones included."""
        self.read = 0
        """How many of them stand in the cache, each in its place; the row may hold guesses beyond."""
        self.drawn = 0
        self.started = time.monotonic()
        self.seconds = 0.0
        self.answer: Future[Observation] | None = None
        """What the environment will say to the last action, where that must be awaited."""
        self.full = False
        """Whether there is no room beyond that action."""

    @property
    def length(self) -> int:
        """Ids of the rollout so far, pending ones included."""
        return len(self.ids)

    @property
    def due(self) -> bool:
        """Whether the model is to say its next id, with nothing to be read before."""
        return self.pending == self.ids[-1:] and bool(self.tokens) and self.answer is None and not self.environment.done


class Shared:
    """A row of the engine's cache and the rollouts that have come the same way, token for token."""

    def __init__(self, row: int, lives: list[Live]):
        self.row, self.lives = row, lives
        self.slept = 0
        """Forward passes since it fell asleep, where those are counted (`cm2.train.punctual`)."""


def settle(open_: list[Shared], engine: Reading) -> None:
    """Cut rows back to what their rollouts have said, after guesses. Those that left the guess at other places than
    their siblings get rows of their own."""
    left: list[tuple[int, list[Live]]] = []
    for shared in open_:
        ways: dict[int, list[Live]] = {}
        ended = [live for live in shared.lives if live.environment.done and live.answer is None]
        for live in shared.lives:
            if live not in ended:
                ways.setdefault(live.read, []).append(live)
        first, *others = ways.values() or [[]]
        shared.lives = first + ended
        left += [(shared.row, lives) for lives in others]
    if left:
        rows = engine.fork([row for row, _ in left])
        open_ += [Shared(row, lives) for row, (_, lives) in zip(rows, left, strict=True)]
    engine.trim([shared.row for shared in open_], [shared.lives[0].read for shared in open_])


def part(open_: list[Shared], engine: Engine) -> None:
    """Give rollouts whose next ids differ rows of their own; those that still agree stay together."""
    parted = []
    for shared in open_:
        ways: dict[tuple[int, ...], list[Live]] = {}
        for live in shared.lives:
            ways.setdefault(tuple(live.pending), []).append(live)
        shared.lives, *others = ways.values()
        parted += [(shared.row, lives) for lives in others]
    if parted:
        rows = engine.fork([row for row, _ in parted])
        open_ += [Shared(row, lives) for row, (_, lives) in zip(rows, parted, strict=True)]


def sleep(open_: list[Shared], asleep: list[Shared], engine: Engine) -> None:
    """Move rollouts that wait for an answer, each set of siblings with a row of its own, out of the others' way."""
    waiting = [shared for shared in open_ if any(live.answer is not None for live in shared.lives)]
    mixed = [shared for shared in waiting if any(live.answer is None for live in shared.lives)]
    rows = engine.fork([shared.row for shared in mixed]) if mixed else []
    for shared, row in zip(mixed, rows, strict=True):
        asleep.append(Shared(row, [live for live in shared.lives if live.answer is not None]))
        shared.lives = [live for live in shared.lives if live.answer is None]
    whole = [shared for shared in waiting if shared not in mixed]
    asleep += whole
    open_[:] = [shared for shared in open_ if shared not in whole]


def share(lives: list[Live], workers: int) -> list[list[list[Live]]]:
    """Neighbours with the same prompt form a group; groups are dealt to the workers, the fullest worker last.

    The deal depends on the list alone, never on timing, so that a repeated run has the same batches.
    """
    groups: list[list[Live]] = []
    for live in lives:
        if groups and groups[-1][0].prompt == live.prompt:
            groups[-1].append(live)
        else:
            groups.append([live])
    if len(groups) < workers:
        groups = [some for group in groups for some in split(group, -(-len(group) // workers))]
    shares: list[list[list[Live]]] = [[] for _ in range(min(workers, len(groups)))]
    for group in groups:
        min(shares, key=lambda share: sum(map(len, share))).append(group)
    return shares


def split(group: list[Live], room: int) -> list[list[Live]]:
    """A group in pieces of at most `room`."""
    return [group[i : i + room] for i in range(0, len(group), room)]
