"""One of the processes of test_processes.py: does what a file of scenarios says, and writes down how each ended.

    python -m torch.distributed.run --nproc_per_node 2 process_worker.py SCENARIOS.json

A scenario is {"name", "config", "interrupt": [rank, generation] or "fail": [rank, generation]}; with "verb": "sft" its
configuration is one of fine-tuning, and an interruption comes at a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from cm2.errors import CM2Error
from cm2.train.processes import join, leave
from cm2.train.progress import hush
from cm2.train.rl import Batch, RlConfig, train_rl
from cm2.train.sft import SftConfig, train_sft


def main(file: str) -> None:
    hush()
    rank, rolled = join().rank, Batch.__call__

    def disturbed(self, indices, generation):
        rows = rolled(self, indices, generation)
        if scenario.get("interrupt") == [rank, generation]:
            os.kill(os.getpid(), signal.SIGINT)
        return rows

    Batch.__call__ = disturbed
    found = {}
    for scenario in json.loads(Path(file).read_text()):
        tunes = scenario.get("verb") == "sft"
        config = msgspec.convert(scenario["config"], SftConfig if tunes else RlConfig)
        try:
            with failing(scenario.get("fail"), rank), stopping(scenario.get("interrupt") if tunes else None, rank):
                found[scenario["name"]] = train_sft(config) if tunes else train_rl(config)
        except (CM2Error, KeyboardInterrupt) as error:
            found[scenario["name"]] = f"{type(error).__name__}: {error}"
    Path(file).with_name(f"ended-{rank}.json").write_text(json.dumps(found))
    leave(0)


class failing:
    """While it lasts, the rollouts of a generation fail in one process."""

    def __init__(self, when, rank):
        self.when, self.rank = when, rank

    def __enter__(self):
        from cm2.train.roll import Roller

        self.roll = Roller.roll

        def fails(roller, tasks, seed, start=0):
            if self.when and self.when == [self.rank, seed % 1_000_003]:
                raise CM2Error("the machine room is on fire", fix="put it out")
            return self.roll(roller, tasks, seed, start)

        Roller.roll = fails

    def __exit__(self, *_):
        from cm2.train.roll import Roller

        Roller.roll = self.roll


class stopping:
    """While it lasts, this process is asked to stop at a step of its fine-tuning."""

    def __init__(self, when, rank):
        self.when, self.rank = when, rank

    def __enter__(self):
        from cm2.train.trainer import Trainer

        self.step = Trainer.training_step

        def asks(trainer, *args, **kwargs):
            if self.when == [self.rank, trainer.state.global_step]:
                os.kill(os.getpid(), signal.SIGINT)
            return self.step(trainer, *args, **kwargs)

        Trainer.training_step = asks

    def __exit__(self, *_):
        from cm2.train.trainer import Trainer

        Trainer.training_step = self.step


if __name__ == "__main__":
    main(sys.argv[1])
