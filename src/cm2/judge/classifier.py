"""Classifier: a light local model of a judge, which knows when it does not know.

A linear model over hashed TF-IDF and signs (`cm2.judge.features`) gives each item and step a probability that the judge
says yes; Platt's sigmoid, fitted on dialogues that the model never saw, calibrates it. Of an item in its turn it gives

    verdicts     p ≥ 1/2 after each step; a yes latches, as it does for the judge
    confidence   the smallest max(p, 1 − p) over the steps

and decides the item only where the confidence is at least the threshold of its side (yes: it holds after some step; no:
after none). Thresholds come from `cm2.judge.fitting`; a side without one is never decided.

The file is a NumPy archive of plain arrays and one JSON header: nothing in it can run. Training needs scikit-learn,
using a model does not.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cm2.checklist import Item
from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.formats.target import replacing
from cm2.judge.agreement import Floats
from cm2.judge.features import SIGN_BITS, WORD_BITS, describe, rows_of

VERSION = 1
SIZE = (1 << WORD_BITS) + (1 << SIGN_BITS)


class Header(msgspec.Struct, kw_only=True):
    """What a model says of itself."""

    version: int = VERSION
    slope: float = 1.0
    offset: float = 0.0
    """Platt: p = 1 / (1 + exp(−(slope·score + offset)))."""
    yes_from: float | None = None
    """Confidence from which an item is decided as yes; None: never."""
    no_from: float | None = None
    """Confidence from which an item is decided as no; None: never."""
    target: float = 0.02
    """The error that the thresholds were chosen for, on each side."""
    judges: list[str] = []
    """Whose verdicts it was trained on."""
    report: dict[str, Any] = {}
    """How it did on dialogues that neither its weights nor its thresholds saw."""


class Guess(msgspec.Struct, frozen=True):
    """What the model makes of one item in its turn."""

    met: tuple[bool, ...]
    confidence: float
    decided: bool

    @property
    def yes(self) -> bool:
        """Whether it holds after some step."""
        return any(self.met)


class Classifier:
    """See the module.

    Args:
        weights: of the columns of `features.rows_of`.
        intercept: what is added to every score.
        idf: of the hashed words.
        header: calibration, thresholds, report.
    """

    name = "classifier"

    def __init__(self, weights: Floats, intercept: float, idf: Floats, header: Header | None = None):
        self.weights, self.intercept, self.idf = weights, intercept, idf
        self.header = Header() if header is None else header

    def scores(self, described: Sequence[Any]) -> Floats:
        """Uncalibrated scores of described items and states."""
        found: Floats = rows_of(described, self.idf) @ self.weights + self.intercept
        return found

    def probabilities(self, described: Sequence[Any]) -> Floats:
        """Calibrated probabilities of a yes."""
        found: Floats = 1 / (1 + np.exp(-(self.header.slope * self.scores(described) + self.header.offset)))
        return found

    def guess(self, items: Sequence[Item], dialogue: Dialogue, turn: int) -> list[Guess]:
        """What it makes of each item of a turn that has steps."""
        steps = len(dialogue.turns[turn].steps)
        if not items or not steps:
            return [Guess((), 0.0, False) for _ in items]
        described = [describe(item, dialogue, turn, step) for item in items for step in range(steps)]
        chances = self.probabilities(described).reshape(len(items), steps)
        met, confidence = settle(chances)
        found = []
        for says, sure in zip(met, confidence, strict=True):
            limit = self.header.yes_from if says.any() else self.header.no_from
            found.append(Guess(tuple(bool(one) for one in says), float(sure), limit is not None and sure >= limit))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all."""
        header = np.frombuffer(msgspec.json.encode(self.header), dtype=np.uint8)
        try:
            with replacing(path) as draft, draft.open("wb") as file:
                np.savez_compressed(
                    file,
                    header=header,
                    weights=self.weights.astype(np.float32),
                    idf=self.idf.astype(np.float32),
                    intercept=np.array(self.intercept),
                )
        except OSError as error:
            error.filename = os.fspath(path)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """A model that was saved.

        Raises:
            DataError: there is none, or the file is something else.
        """
        where = Where(file=os.fspath(path))
        fix = "make it with cm2 judge train"
        try:
            with np.load(path, allow_pickle=False) as archive:
                header = msgspec.json.decode(archive["header"].tobytes(), type=Header)
                weights, idf = archive["weights"].astype(float), archive["idf"].astype(float)
                intercept = float(archive["intercept"])
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DataError("there is no such model", where=where, fix=fix) from error
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.DecodeError) as error:
            raise DataError(f"is no classifier: {error}", where=where, fix=fix) from error
        if header.version != VERSION or weights.shape != (SIZE,) or idf.shape != (1 << WORD_BITS,):
            raise DataError(f"is a classifier of another version ({header.version})", where=where, fix=fix)
        return cls(weights, intercept, idf, header)


def settle(chances: Floats) -> tuple[np.ndarray, Floats]:
    """(verdicts after each step, confidence) of items, from the probabilities [item, step]."""
    met = np.maximum.accumulate(chances >= 0.5, axis=1)
    # Once it holds it stays so: what the model thinks of later steps is neither a verdict nor a doubt.
    before = np.concatenate([np.zeros((len(met), 1), dtype=bool), met[:, :-1]], axis=1)
    confidence: Floats = np.where(before, 1.0, np.maximum(chances, 1 - chances)).min(axis=1)
    return met, confidence
