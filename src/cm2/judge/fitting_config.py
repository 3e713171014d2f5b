"""Configuration of a classifier's fitting."""

from __future__ import annotations

import msgspec

from cm2.errors import ConfigError


class TrainConfig(msgspec.Struct):
    """What is learnt from what."""

    verdicts: str
    """The store of verdicts of the judge that is to be imitated."""
    input: str
    """The dialogues that were judged."""
    output: str
    """Where the model goes."""
    checklists: str | None = None
    """Where their checklists are, when not on the rows of `input`."""
    format: str = "auto"
    """The format of `input` and `checklists`, when it cannot be told from the rows."""
    target: float = 0.02
    """The share of items decided by the model, on each side, whose verdict may differ from the judge's."""
    surety: float = 0.95
    """How sure it must be that the target is kept, on each side."""
    seed: int = 0
    """Of the split."""

    def __post_init__(self) -> None:
        if not 0 < self.target < 0.5 or not 0.5 <= self.surety < 1:
            raise ConfigError("target is an error rate below one half, surety a probability from one half to one")
