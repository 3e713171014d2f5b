"""Keeping: what makes a transformers trainer resume, log and stop as a run folder promises.

`Kept` is mixed into a trainer: its checkpoints are written under a temporary name and take their own when they are
complete; one that has no room ends the run before anything of it is written. `Keeper` is its callback: it saves by the
clock (a checkpoint with optimizer state is three times the model), puts every step on record, and turns a request to
stop into a checkpoint and a clean end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors import SafetensorError
from transformers import TrainerCallback

from cm2.errors import CM2Error
from cm2.train.progress import Every, Live, Stop
from cm2.train.runs import KEPT, Run
from cm2.train.space import size_of

_INNER = "checkpoint-"


class Kept:
    """Mixed in before a `transformers.Trainer`; set `run` before training."""

    run: Run
    _scratch: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._scratch is None else str(self._scratch)  # type: ignore[misc]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the run folder says what the run is."""

    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint is: as the last one, before it weights and two moments of what is trained."""
        last = self.run.last_checkpoint()
        if last is not None:
            return size_of(last[1])
        model = self.model  # type: ignore[attr-defined]
        sizes = [(one.numel() * one.element_size(), one.requires_grad) for one in model.parameters()]
        trained = sum(size for size, is_trained in sizes if is_trained)
        return 2 * trained + (trained if hasattr(model, "peft_config") else sum(size for size, _ in sizes))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step  # type: ignore[attr-defined]
        self.run.expected_bytes = self.checkpoint_bytes()
        try:
            with self.run.saving_checkpoint(step, KEPT) as scratch:
                self._scratch = scratch
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:
            # A full disk shows as OSError, or as torch's and safetensors' own errors. Training goes on without this
            # checkpoint: the last complete one is untouched, and there may be room for the next.
            last = self.run.last_checkpoint()
            kept = f"the checkpoint of step {last[0]} is kept" if last else "there is no earlier checkpoint"
            Console(stderr=True).print(
                f"the checkpoint of step {step} could not be written: {str(error).splitlines()[0]}; {kept}",
                markup=False,
            )
        finally:
            self._scratch = None


def resume_path(run: Run) -> tuple[int, str | None]:
    """The step to go on from (0: the beginning) and the trainer's own folder inside the checkpoint.

    A checkpoint that is not what was written is passed over, and that is said.
    """
    last, said = run.sound_checkpoint()
    for sentence in said:
        onward = f"going on from the one of step {last[0]}" if last else "there is no other: beginning anew"
        Console(stderr=True, highlight=False).print(f"cm2: {sentence}; {onward}", markup=False)
    if last is None:
        return 0, None
    step, folder = last
    return step, str(folder / f"{_INNER}{step}")


class Keeper(TrainerCallback):
    """See the module.

    Args:
        run: where steps go on record.
        live: the progress line.
        stop: asked after every step.
        save_every: seconds between checkpoints.
        numbers: what to record of a step beside loss, lr, grad_norm and seconds; called with the step.
        shows: which numbers stand on the progress line.
        whole: steps between the places where a run can be saved and resumed: those that share a batch of rollouts go
            together.
    """

    def __init__(
        self,
        run: Run,
        live: Live,
        stop: Stop,
        save_every: float | None,
        numbers: Callable[[int], dict[str, Any]],
        shows: tuple[str, ...] = ("loss",),
        whole: int = 1,
    ):
        self.run, self.live, self.stop, self.numbers, self.shows, self.whole = run, live, stop, numbers, shows, whole
        self._save = Every(save_every)
        self._began = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save when it is time or a stop is wanted."""
        last = state.global_step >= state.max_steps
        if state.global_step % self.whole:
            return
        if self.stop.requested:
            control.should_training_stop = True
        if not last and (self._save.due() or self.stop.requested):
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Record the step. Fails with CM2Error where the loss is no number."""
        if not logs or "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm") or 0.0)
        step = state.global_step
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise CM2Error(
                f"step {step}: the loss is {loss} and the gradient norm {norm}; the weights are lost",
                fix="start again with a lower --lr",
            )
        seconds = time.monotonic() - self._began
        told = {"loss": loss, "lr": float(logs["learning_rate"]), "grad_norm": norm, **self.numbers(step)}
        self.run.log(step, **told, seconds=round(seconds, 3))
        self.live.update(step, **{name: told[name] for name in self.shows if told.get(name) is not None})
