"""Agreement: what makes the processes of a run save and stop at the same step, whoever has reason to.

A signal reaches one process, the clock of the first one decides when to save and when time is up, an alarm is raised
where the metrics are. After every step each says what it wants; what one wants, all do. Add it last, so that it sees
what the other callbacks have asked for.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from cm2.train.processes import Processes
from cm2.train.progress import Stop


class Agreement(TrainerCallback):
    """See the module.

    Args:
        processes: those that train together.
        stop: whether a stop was asked for; set where another process was asked.
    """

    def __init__(self, processes: Processes, stop: Stop):
        self.processes, self.stop = processes, stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Meet the others."""
        if self.processes.alone:
            return
        # Every process has a clock for saving; that of the first one counts, the others save to stop only.
        saves = control.should_save and (self.processes.first or self.stop.requested)
        votes = self.processes.every((self.stop.requested, saves, control.should_training_stop))
        wanted = [any(each) for each in zip(*votes, strict=True)]
        self.stop.requested, control.should_save, control.should_training_stop = wanted
