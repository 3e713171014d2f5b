"""Domain: a small business that an agent works for: its tools, its state, and the dialogues that happen there."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from cm2.worlds.engine import Engine, Tables
from cm2.worlds.script import Script
from cm2.worlds.toolbox import Toolbox


class Options(msgspec.Struct, frozen=True):
    """What varies between the dialogues of a profile beside their seed."""

    thinking: bool = True
    """Whether the agent's steps carry private thinking."""
    two_turns: float = 0.0
    """Share of short dialogues in which the user comes back with a second wish."""


class Domain(msgspec.Struct, frozen=True):
    """See the module. `populate` draws the state; `write` plays one dialogue in it."""

    name: str
    box: Toolbox
    populate: Callable[[random.Random], Tables]
    write: Callable[[random.Random, Engine, Options], Script]

    def engine(self, seed: int) -> Engine:
        """The world of that seed."""
        return Engine(self.box.handlers, self.populate(random.Random(f"{self.name} {seed} state")), seed)

    def script(self, engine: Engine, seed: int, options: Options) -> Script:
        """The dialogue of that seed, played to its end in the world of that seed."""
        return self.write(random.Random(f"{self.name} {seed} talk"), engine, options)
