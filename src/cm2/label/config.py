"""Drafting (the configuration): how a model is asked for checklists."""

from __future__ import annotations

from typing import Literal

import msgspec

from cm2.errors import ConfigError
from cm2.label.reference import MOST_ITEMS


class Drafting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a model is asked for checklists. The same for `llm` and `hybrid`."""

    checklists: int = 1
    """Independent checklists of every turn. Their rewards are averaged, which takes out some of the labeller's whims;
    the cost grows with it."""
    per: Literal["turn", "dialogue"] = "turn"
    """One question a turn, or one for all turns of a dialogue: fewer calls, and less thought about each turn."""
    most_items: int = MOST_ITEMS
    """Items of a turn; of more the heaviest stay."""
    thinking: bool = True
    """Whether the reference's private thinking is shown and may be asked about. Turn it off where the agents that will
    be judged do not think aloud."""
    tools: int = 64
    """Tools that are shown; of more, those that were called and the first others. A dialogue may carry thousands."""
    cut: int | None = None
    """Characters of a tool response that are shown; a longer one loses its middle. None shows all of it."""
    repair_checks: bool = False
    """Also ask again for items whose only flaw is that their check was refused: more items are judged for free later,
    and more second questions are paid for now."""
    width: int = 32
    """Dialogues under way at once. Calls under way are limited by the models' own configuration."""

    def __post_init__(self) -> None:
        for name in ("checklists", "most_items", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="give 1 or more")
        if self.tools < 0 or (self.cut is not None and self.cut < 100):
            raise ConfigError("tools is 0 or more, cut at least 100 characters")
