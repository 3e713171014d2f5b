"""Threads: how many one matrix product runs on, chosen by measurement and then kept for the whole run.

More threads are not always faster: where other work shares the cores, those that are done wait for one that is not
running. Sums that are split otherwise round otherwise, so the choice is written into the run folder, and a resumed run
takes it from there.

    RUN/threads.json     {"threads": 1, "seconds": {"1": 0.021, "2": 0.034}}
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

ROUNDS = 5
"""Products of each kind; the fastest counts."""
WORTH = 1.1
"""How much faster more threads must be to be taken: they also take a core from whoever else is at work."""
SHAPE = (1024, 576, 1536)
"""Rows, columns and columns of a product such as the embedded model's layers take."""


class Choice(msgspec.Struct):
    """What was measured, and what follows from it."""

    threads: int
    seconds: dict[str, float] = {}
    """Of one product, by how many threads it ran on."""


def settle(setting: int | Literal["auto"] | None, folder: Path, measure: Callable[[int], float] | None = None) -> int:
    """Set torch's threads as the setting says; how many they are now.

    Args:
        setting: see `RlConfig.threads`.
        folder: of the run, where a choice is kept.
        measure: seconds of one product on so many threads; measured where it is not given.
    """
    import torch

    if setting == "auto":
        setting = _kept(folder, measure or seconds, torch.get_num_threads()).threads
    if setting is not None:
        torch.set_num_threads(setting)
    return torch.get_num_threads()


def seconds(threads: int) -> float:
    """Of the fastest of some products on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(SHAPE[:2]), torch.ones(SHAPE[1:])
        torch.mm(left, right)  # the threads are made here
        return min(_timed(lambda: torch.mm(left, right)) for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(before)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _kept(folder: Path, measure: Callable[[int], float], most: int) -> Choice:
    file = folder / "threads.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Choice)
    took = {count: measure(count) for count in sorted({1, most})}
    choice = Choice(
        most if took[most] * WORTH < took[1] else 1, {str(count): round(spent, 6) for count, spent in took.items()}
    )
    draft = file.with_name(".threads.json.tmp")
    draft.write_bytes(msgspec.json.encode(choice))
    draft.replace(file)
    return choice
