"""Row: one choice that is being decoded, and how far its prompt has been read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Chance, Piece, Want
from cm2.serve.prefixes import Kept
from cm2.serve.writing import Writing


class Job:
    """A request that is being decoded: what it wants, and where its pieces go.

    Args:
        want: what to generate.
        tell: is called, from the decoding thread, with each piece, or with what went wrong.
    """

    def __init__(self, want: Want, tell: Callable[[Piece | Exception], None]):
        self.want, self.tell = want, tell
        self.cancelled = False
        """Set by whoever no longer listens; the decoding thread looks at it before each step."""


class Row:
    """One choice. It begins as the whole request, whose prompt is read once, and is forked into its choices after."""

    def __init__(self, job: Job, template: ChatTemplate, context: int, choice: int = 0):
        self.job, self.choice = job, choice
        self.writing = Writing(job.want, choice, template, context)
        self.row: int | None = None
        """The engine's row; None until something has been read."""
        self.pending: list[int] = list(job.want.ids)
        """Ids that the model has not read yet."""
        self.read = 0
        self.stems: list[int] = []
        """Where reading stops for a moment, so that others can go on from there."""
        self.base: Kept | None = None
        """The kept row that it continues."""

    @property
    def decoding(self) -> bool:
        """Whether the prompt has been read."""
        return bool(self.writing.tokens)

    @property
    def ids(self) -> np.ndarray:
        """What the engine's row has read."""
        return np.array([*self.job.want.ids, *self.writing.tokens][: self.read])

    def sibling(self, choice: int, row: int) -> Row:
        """Another choice of the same request, whose prompt has just been read."""
        other = Row(self.job, self.writing.template, self.writing.context, choice)
        other.row, other.pending, other.read = row, [], self.read
        other.writing.cached = self.writing.cached
        return other

    def take(self, token: int, chance: Chance | None) -> None:
        """A sampled token: tell what it makes certain."""
        self.pending = [token]
        self.job.tell(self.writing.take(token, chance))
