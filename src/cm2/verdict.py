"""Verdict: what a judge said about one item after one step, and the append-only store that keeps it.

Three values, always: `met` is True, False or None. None is *unscored* (the judge failed or could not decide); it is
never counted as a no and never votes.
"""

from __future__ import annotations

import msgspec


class Pointer(msgspec.Struct, omit_defaults=True):
    """Where in the judged trajectory the decision rests. `part` is one of the four `focus_on` values."""

    turn: int
    step: int
    part: str
    snippet: str = ""


class Verdict(msgspec.Struct, omit_defaults=True):
    """Whether item `item` of turn `turn` holds in the state after step `step` (x_{s+1} of the method, section 3)."""

    dialogue: str
    turn: int
    step: int
    item: str
    met: bool | None
    variant: int = 0
    reason: str = ""
    evidence: list[Pointer] = []
    judge: str = "checks"
    cost: float = 0.0
    """US dollars; 0 for a check."""
    rollout: str = ""

    @property
    def key(self) -> tuple[str, str, int, int, int, str]:
        """What identifies the verdict in a store."""
        return (self.dialogue, self.rollout, self.variant, self.turn, self.step, self.item)
