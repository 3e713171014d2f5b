"""Best: the checkpoint that was best on held-out dialogues, and not the luckiest one.

    before the first update, after every `evaluate_every`-th and after the last:
        roll out the same held-out tasks with the weights of the moment → compare with the best so far, task by task
        → better beyond noise: its model takes the place of RUN/best/

A reward that is measured on a few tasks jumps, and the highest of many such numbers is mostly the one with the most
luck. The best therefore is challenged, never ranked: a candidate takes its place only if, over the same tasks, it earns
more on average with a two-sided sign-flip p below `ALPHA` (`cm2.evals.intervals`). So the best moves late rather than
for nothing; of two that cannot be told apart the earlier one stays. The start is the first to be challenged: a run that
only did harm leaves its start as the best.

    RUN/heldout.jsonl    one line an evaluation: step, means, every task's reward, and how it compares with the best
    RUN/best/            the best model, a Hugging Face folder

Both follow resuming: evaluations of steps that are forgotten are taken out, and a best of such a step gives way to the
one before it, which is kept until a checkpoint covers the newer one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.evals.intervals import Difference, difference, interval
from cm2.formats.jsonlines import encode
from cm2.rollout.trace import Rollout
from cm2.train import space
from cm2.train.runs import Run

ALPHA = 0.05
"""How unlikely a candidate's lead must be by luck alone."""
FELL = 0.01
"""The same for the alarm that the held-out reward fell: it is looked at often."""
_BEFORE = re.compile(r"\.best-(\d{8})")


class Look(msgspec.Struct, omit_defaults=True):
    """One evaluation of the held-out tasks."""

    step: int
    reward: float
    strict_pass: float | None = None
    outcome: float | None = None
    low: float | None = None
    high: float | None = None
    """The 95 % interval of the reward, over tasks."""
    tasks: dict[str, float] = {}
    """Mean reward by task."""
    failures: int = 0
    best: bool = False
    """It took the place of the best so far."""
    against: int | None = None
    """The step of the best that it was compared with."""
    change: Difference | None = None
    """It minus that best, over the tasks that both have."""


class Best:
    """Keeps RUN/best and RUN/heldout.jsonl.

    Args:
        run: the run, after `Run.resume_to`.
        resumed: the step that it goes on from.
    """

    def __init__(self, run: Run, resumed: int):
        self.run, self.folder, self.file = run, run.folder / "best", run.folder / "heldout.jsonl"
        self.looks = [look for look in read_looks(self.file) if look.step <= resumed]
        run.write(self.file, b"".join(encode(look) + b"\n" for look in self.looks))
        self._restore()

    @property
    def best(self) -> Look | None:
        """The best so far."""
        return next((look for look in reversed(self.looks) if look.best), None)

    def looked(self, step: int) -> bool:
        """Whether the evaluation of this step is on record."""
        return any(look.step == step for look in self.looks)

    def take(self, step: int, rollouts: Sequence[Rollout], model: Any, tokenizer: Any) -> Look:
        """Put an evaluation on record; its model becomes the best where it is.

        Args:
            step: after which it was made; 0 is the start.
            rollouts: of the held-out tasks.
            model: with the weights of the moment; adapters are merged into a copy.
            tokenizer: saved with it.

        Raises:
            DiskFull: there is no room for the model.
        """
        look = compare(look_of(step, rollouts), self.best)
        if look.best:
            self._save(look.step, model, tokenizer)
        self.looks.append(look)
        with space.telling(self.file, "an evaluation"):
            self.run.write(self.file, b"".join(encode(one) + b"\n" for one in self.looks))
        return look

    def covered(self, step: int) -> None:
        """A checkpoint of `step` is complete: the bests that it makes superfluous go."""
        best = self.best
        for before, path in self._before():
            if best is not None and before < best.step <= step:
                shutil.rmtree(path, ignore_errors=True)

    def _save(self, step: int, model: Any, tokenizer: Any) -> None:
        space.need(self.run.folder, _bytes(model), "the best model")
        old = self.best
        with space.telling(self.folder, "the best model"), self.run.saving(self.run.folder / "best-new") as scratch:
            merged(model).save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            (scratch / "cm2-step.json").write_bytes(encode({"step": step}))
        if self.folder.exists():
            aside = self.run.folder / f".best-{(old.step if old else 0):08d}"
            shutil.rmtree(aside, ignore_errors=True)
            self.folder.rename(aside)
        (self.run.folder / "best-new").rename(self.folder)

    def _restore(self) -> None:
        """Let RUN/best be the model of the best that is on record, as far as it is still there."""
        shutil.rmtree(self.run.folder / "best-new", ignore_errors=True)
        wanted = self.best
        if wanted is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            for _, path in self._before():
                shutil.rmtree(path, ignore_errors=True)
            return
        if step_of(self.folder) != wanted.step:
            shutil.rmtree(self.folder, ignore_errors=True)
            for before, path in self._before():
                if before == wanted.step:
                    path.rename(self.folder)
        for before, path in self._before():
            if before > wanted.step:
                shutil.rmtree(path, ignore_errors=True)

    def _before(self) -> list[tuple[int, Path]]:
        found = ((path, _BEFORE.fullmatch(path.name)) for path in self.run.folder.iterdir())
        return sorted((int(match[1]), path) for path, match in found if match)


def look_of(step: int, rollouts: Sequence[Rollout]) -> Look:
    """The numbers of an evaluation. Rollouts that failed, or of which nothing was scored, are in none of them."""
    valid = [one for one in rollouts if one.valid and one.score.get("reward") is not None]
    rewards: dict[str, list[float]] = {}
    for one in valid:
        rewards.setdefault(one.task, []).append(float(one.score["reward"]))
    tasks = {task: sum(values) / len(values) for task, values in rewards.items()}
    if not tasks:
        raise DataError(
            f"not one of {len(rollouts)} held-out rollouts was scored",
            where=Where(file="heldout"),
            fix="see that the held-out tasks have checklists that the judge can decide",
        )
    strict = [float(one.score["strict_pass"]) for one in valid if one.score.get("strict_pass") is not None]
    told = [float(one.outcome["success"]) for one in valid if "success" in one.outcome]
    found = interval(list(tasks.values()))
    assert found is not None
    return Look(
        step,
        found.mean,
        strict_pass=float(np.mean(strict)) if strict else None,
        outcome=float(np.mean(told)) if told else None,
        low=found.low,
        high=found.high,
        tasks=tasks,
        failures=len(rollouts) - len(valid),
    )


def compare(look: Look, best: Look | None) -> Look:
    """The evaluation beside the best so far; `best` where it takes its place."""
    if best is None:
        look.best = True
        return look
    look.against, look.change = best.step, difference(best.tasks, look.tasks)
    look.best = look.change is not None and look.change.difference > 0 and look.change.p < ALPHA
    return look


def fallen(look: Look) -> float | None:
    """How far the held-out reward fell below its best, beyond noise; None where it did not."""
    change = look.change
    return -change.difference if change is not None and change.difference < 0 and change.p < FELL else None


def numbers_of(look: Look, best: Look | None) -> dict[str, Any]:
    """What the metrics of a step tell of the evaluation after it."""
    found: dict[str, Any] = {
        "heldout_reward": look.reward,
        "heldout_low": look.low,
        "heldout_high": look.high,
        "heldout_strict_pass": look.strict_pass,
        "heldout_outcome": look.outcome,
        "heldout_failures": look.failures,
        "best_step": best.step if best is not None else None,
    }
    if (fell := fallen(look)) is not None:
        found["heldout_fallen"] = fell
    return found


def read_looks(file: Path) -> list[Look]:
    """The evaluations of a heldout.jsonl; a torn last line is left out."""
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=Look) for line in lines if line.endswith(b"\n")]


def step_of(folder: Path) -> int | None:
    """The step whose weights a best model has."""
    try:
        found = msgspec.json.decode((folder / "cm2-step.json").read_bytes())["step"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return None
    return int(found)


def heldout_tasks(tasks: Sequence[Task], trained: Sequence[Task], file: str) -> list[Task]:
    """The held-out tasks, which must not be trained on and must differ in their ids.

    Raises:
        DataError: one is trained on, or two have the same id.
    """
    seen: set[str] = set()
    mine = {task.dialogue.id for task in trained}
    for task in tasks:
        id = task.dialogue.id
        where = Where(file=file, dialogue=id)
        if id in mine:
            raise DataError("a held-out task is trained on too", where=where, fix="take it out of one of the files")
        if id in seen:
            raise DataError("two held-out tasks have the same id", where=where, fix="make the ids unique")
        seen.add(id)
    return list(tasks)


def merged(model: Any) -> Any:
    """The model itself; of one with adapters a copy into which they are merged, for merging in place is not exact."""
    if not hasattr(model, "merge_and_unload"):
        return model
    from copy import deepcopy

    return deepcopy(model).merge_and_unload()


def _bytes(model: Any) -> int:
    return sum(one.numel() * one.element_size() for one in model.parameters())
