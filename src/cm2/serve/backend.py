"""Backend: prompt ids in, generated text and ids out. The endpoint knows nothing else of who decodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

import msgspec

from cm2.rollout.sampling import Sampling


class Want(msgspec.Struct, kw_only=True):
    """What to generate."""

    ids: list[int]
    sampling: Sampling
    """Temperature, top-k and top-p, and the seed. The n-th choice draws with the n-th stream of that seed."""
    max_tokens: int
    choices: int = 1
    stop: list[str] = []
    """Texts that end a choice and are no part of it."""
    logprobs: int | None = None
    """How many of the likeliest tokens to name at each place; None: no log-probabilities at all."""


class Chance(msgspec.Struct):
    """A token, its log-probability under the model itself (temperature 1), and those of the likeliest."""

    id: int
    logprob: float
    top: list[tuple[int, float]] = []


class Piece(msgspec.Struct):
    """More of one choice."""

    choice: int
    text: str = ""
    ids: list[int] = []
    chances: list[Chance] = []
    finish: Literal["stop", "length"] | None = None
    cached: int = 0
    """Prompt tokens that did not have to be read; told with a choice's first piece."""


class Backend(Protocol):
    """Who decodes."""

    name: str
    context: int
    """Longest sequence, in tokens."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            CM2Error: it cannot be had.
        """
        ...

    def abandon(self) -> None:
        """Stop getting ready: whoever wanted it has gone."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...

    def generate(self, want: Want) -> AsyncGenerator[Piece]:
        """Pieces of all choices as they come; a choice ends with a piece that has `finish`.

        Leaving the iterator early (`aclose`) ends the work.

        Raises:
            Refusal: whoever decodes failed.
        """
        ...

    def alive(self) -> bool:
        """Whether it can still answer."""
        ...
