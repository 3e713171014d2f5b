"""Processes: those that train one run together, as `torchrun` or `accelerate launch` started them.

Every process rolls out its share of an update's tasks, whole groups of them, and computes its share of the gradient;
the first one alone writes. What must not differ between them is agreed here, over a group of its own that passes plain
objects and waits as long as a rollout may take:

- `lead`: the first process works and everybody has the result;
- `together`: everybody works; what fails in one fails in all, with the same sentence, so that nobody waits for ever;
- what the first process does alone may ask for company again (an evaluation hands over weights): it is answered there;
- a process that is gone (killed, out of memory) shows as a `CM2Error` in the others.

One process needs none of this: `Processes()` is alone, answers at once and imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from cm2.errors import CM2Error, ConfigError, told

T = TypeVar("T")
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: longer than any rollout, or an outage of the judge that is waited out."""


class Processes:
    """See the module.

    Args:
        rank: which one this is, from 0.
        ranks: how many there are.
        group: torch.distributed's group for plain objects; None where there is one process.

    Attributes:
        first: whether this is the one that writes.
        alone: whether there is no other.
    """

    def __init__(self, rank: int = 0, ranks: int = 1, group: Any = None):
        self.rank, self.ranks, self._group = rank, ranks, group
        self.first, self.alone = rank == 0, ranks == 1
        self._solo = self.alone

    def every(self, value: T) -> list[T]:
        """What each of the processes gave, in their order."""
        if self._solo:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.ranks
        self._exchange(lambda: dist.all_gather_object(found, value, group=self._group))
        return found

    def collect(self, value: T) -> list[T] | None:
        """What each of the processes gave, for the first one; None elsewhere."""
        if self._solo:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.ranks if self.first else None
        self._exchange(lambda: dist.gather_object(value, found, dst=0, group=self._group))
        return found

    def agree(self, error: Exception | None = None) -> None:
        """Meet the others; what happened to one of them happens to all.

        Raises:
            Exception: this process's own, else the one of the first that has one.
        """
        lost = self.every(_carried(error, self.rank) if error is not None and not self._solo else None)
        if error is not None:
            raise error
        for other in lost:
            if other is not None:
                raise other

    def together(self, work: Callable[[], T]) -> T:
        """Everybody does this; see `agree` for what happens where it fails."""
        error, found = None, None
        try:
            found = work()
        except Exception as problem:
            if self._solo:
                raise
            error = problem
        self.agree(error)
        return found  # type: ignore[return-value]

    def lead(self, work: Callable[[], T]) -> T:
        """The first process does this, and everybody has its result or its error."""
        if self._solo:
            return work()
        found = self.together(lambda: self._without_others(work) if self.first else None)
        result: T = self.every(found)[0]  # type: ignore[assignment]
        return result

    def in_turn(self, work: Callable[[], T]) -> T:
        """Everybody does this, the first one before the others: what it puts in a cache, they find there."""
        if self._solo:
            return work()
        found = self.together(lambda: self._without_others(work) if self.first else None)
        others = self.together(lambda: None if self.first else work())
        return found if self.first else others  # type: ignore[return-value]

    def _without_others(self, work: Callable[[], T]) -> T:
        self._solo = True
        try:
            return work()
        finally:
            self._solo = False

    def share(self, count: int, what: str) -> int:
        """This process's part of so many.

        Raises:
            ConfigError: they cannot be dealt out evenly.
        """
        if count % self.ranks:
            raise ConfigError(
                f"{count} {what} cannot be dealt evenly to {self.ranks} processes",
                fix="choose a multiple of the processes, or other processes",
            )
        return count // self.ranks

    def _exchange(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except RuntimeError as error:
            raise self.lost(error) from error

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Say of a broken connection inside the block that another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.alone or not any(name in str(error).lower() for name in ("gloo", "nccl", "peer")):
                raise
            raise self.lost(error) from error

    def lost(self, error: Exception) -> CM2Error:
        """What to say where this process cannot reach the others."""
        return CM2Error(
            f"process {self.rank} of {self.ranks} has lost another one: {str(error).splitlines()[0]}",
            fix="what the others said before tells why; the same command goes on from the last checkpoint",
        )


def launched() -> int:
    """How many processes a launcher started for this run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def leads() -> bool:
    """Whether this process is the one that prints; known before anything is imported."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def join() -> Processes:
    """The processes of this run. Called again it gives the same ones."""
    global _joined
    if launched() == 1:
        return Processes()
    if _joined is None:
        import torch
        import torch.distributed as dist
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        _joined = Processes(state.process_index, state.num_processes, group)
    return _joined


def leave(code: int) -> NoReturn:
    """End this process with the code.

    One of several ends at once: threads of the connection between them may still run when C++ takes its objects apart,
    which aborts the process now and then, and the launcher would take a run that ended well for one that failed.
    """
    if _joined is None:
        sys.exit(code)
    import torch.distributed as dist

    with contextlib.suppress(Exception):  # the others may be gone
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_joined: Processes | None = None


def _carried(error: Exception, rank: int) -> Exception:
    """The error as other processes can raise it."""
    named = f"process {rank}: {error.message if isinstance(error, CM2Error) else told(error)}"
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # an error need not be made for travelling; what it says is
        return CM2Error(named)
    if isinstance(copy, CM2Error):
        copy.message = named
        return copy
    return copy if isinstance(copy, OSError) else CM2Error(named)
