"""A run folder that several processes hold: the first one locks and writes it, the others know where it is.

A checkpoint is the exception: every process puts its own random state into it, so all write into one draft, which the
first one makes before and names after they have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cm2.rollout.trace import Rollout, decode, encode
from cm2.train import space
from cm2.train.processes import Processes
from cm2.train.runs import KEPT, Run


class JointRun(Run):
    """See the module, and `Run` for everything else.

    Args:
        processes: those that hold it.
    """

    def __init__(
        self,
        processes: Processes,
        folder: str | os.PathLike[str],
        verb: str,
        config: msgspec.Struct,
        inputs: dict[str, str],
        free: tuple[str, ...] = (),
    ):
        self.processes = processes
        if processes.first:
            processes.together(lambda: super(JointRun, self).__init__(folder, verb, config, inputs, free))
        else:
            self._paths(folder)
            processes.agree()
            self.summary = None
        self.summary = processes.every(self.summary)[0]

    def close(self) -> None:
        """See `Run.close`."""
        if self.processes.first:
            super().close()

    def resume_to(self, step: int) -> None:
        """See `Run.resume_to`."""
        self.processes.lead(lambda: super(JointRun, self).resume_to(step))

    def log(self, step: int, **numbers: float | int | str | None) -> None:
        """See `Run.log`."""
        self.processes.lead(lambda: super(JointRun, self).log(step, **numbers))

    @contextlib.contextmanager
    def saving_checkpoint(self, step: int, keep: int = KEPT) -> Iterator[Path]:
        """See `Run.saving_checkpoint`; all processes write into the same folder."""
        opened = super().saving_checkpoint(step, keep) if self.processes.first else None
        with contextlib.ExitStack() as stack:
            scratch = self.processes.lead(lambda: stack.enter_context(opened) if opened else Path())
            error: Exception | None = None
            try:
                yield scratch
            except Exception as problem:
                error = problem
            self.processes.agree(error)
            self.processes.lead(stack.close)  # the checkpoint takes its name

    def make_room(self, bytes: int) -> None:
        """See `Run.make_room`. The first process makes room; each looks whether there is, for each writes there."""
        self.processes.lead(lambda: super(JointRun, self).make_room(bytes))
        self.processes.together(lambda: space.need(self.checkpoints_folder, bytes, "a checkpoint"))

    def finish(self, summary: dict[str, Any]) -> None:
        """See `Run.finish`."""
        self.processes.lead(lambda: super(JointRun, self).finish(summary))
        self.summary = summary


def claim(
    processes: Processes,
    folder: str | os.PathLike[str],
    verb: str,
    config: msgspec.Struct,
    inputs: dict[str, str],
    free: tuple[str, ...] = (),
) -> Run:
    """The run folder, claimed for these processes; see `Run`."""
    if processes.alone:
        return Run(folder, verb, config, inputs, free)
    return JointRun(processes, folder, verb, config, inputs, free)


def collected(groups: list[list[Rollout]], processes: Processes) -> list[list[Rollout]]:
    """The groups of all processes, in the order of the update's tasks, for the first one; elsewhere the own ones."""
    told = processes.collect(None if processes.first else [[encode(rollout) for rollout in group] for group in groups])
    others = [] if told is None else told[1:]
    return groups + [[decode(line) for line in group] for own in others for group in own or []]
