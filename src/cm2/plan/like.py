"""Like: constants and lengths out of a run of `cm2 rl` on this very machine, in place of the table's.

A plan for a processor stands on four rates that were measured on two cores of one machine; yours are another's. After a
few updates of any recipe `cm2 plan RECIPE --like RUN` plans by that run.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from cm2.errors import ConfigError, Where
from cm2.plan.models import Dims, dims_of
from cm2.plan.shape import Shape
from cm2.plan.speed import SMOL

_NAMES = ("rollouts", "tokens_generated", "tokens_shown", "tokens_trained", "seconds_rollout", "seconds_forward")
NAMES = (*_NAMES, "seconds_backward", "seconds")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The mean update of a run."""

    updates: int
    layers: int
    """Trained layers; 0: all."""
    rollouts: float
    tokens_generated: float
    tokens_shown: float
    tokens_trained: float
    seconds_rollout: float
    seconds_forward: float
    seconds_backward: float
    seconds: float

    @property
    def shape(self) -> Shape:
        """Its mean rollout as one step: how its tokens divide into turns is not in the metrics."""
        action, prompt = self.tokens_generated / self.rollouts, self.tokens_shown / self.rollouts
        return Shape(turns=1, steps=1, items=0, action=action, prompt=prompt, user=0, response=0)

    def constants(self, model: Dims) -> dict[str, float]:
        """The rates of its machine, for the model that it trained."""
        layers = self.layers or model.layers
        backward = 4.0 * layers * model.layer + 2.0 * model.head if self.layers else 2 * model.forward()
        return {
            "local_decode": self.tokens_generated / self.seconds_rollout * model.passed / SMOL,
            "local_forward": self.tokens_trained * model.forward() / self.seconds_forward / 1e9,
            "local_backward": self.tokens_trained * backward / self.seconds_backward / 1e9,
            "local_share": self.tokens_trained / (self.tokens_generated + self.tokens_shown),
        }


def measured(run: str) -> Measured:
    """The mean update of a run of `cm2 rl`.

    Raises:
        ConfigError: the folder is none, or has no update yet.
    """
    folder = Path(run)
    file = folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        layers, lora = int(config["layers"]), int(config["lora"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("is no run of cm2 rl", where=Where(file=run), fix="give its folder with --like") from error
    rows = [row for row in rows if all(row.get(name) for name in NAMES)]
    if not rows:
        raise ConfigError("has no measured update", where=Where(file=str(file)), fix="let it make an update first")
    if lora:
        raise ConfigError(
            "trained adapters, from which the rates do not follow", where=Where(file=run), fix="take another"
        )
    means = {name: sum(row[name] for row in rows) / len(rows) for name in NAMES}
    return Measured(updates=len(rows), layers=layers, **means)


def model_of(run: str) -> Dims:
    """The model that a run trained, from the folder that it saved."""
    return dims_of(str(Path(run) / "model"))
