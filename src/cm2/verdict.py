"""Verdict: what a judge said about one item after one step, and the append-only store that keeps it.

Three values, always: `met` is True, False or None. None is *unscored* (the judge failed or could not decide); it is
never counted as a no and never votes. A duty that the dialogue gave no occasion for is *not applicable*: it has no
value either, and is not unscored (`Verdict.applies`).
"""

from __future__ import annotations

import msgspec

UNSCORED = "unscored: "
WHOLE = -1
"""The turn and the step of what is judged over the whole dialogue."""
FAILED = ("judge", "provider")


class Pointer(msgspec.Struct, omit_defaults=True):
    """Where in the judged trajectory the decision rests. `part` is one of the four `focus_on` values."""

    turn: int
    step: int
    part: str
    snippet: str = ""


class Verdict(msgspec.Struct, omit_defaults=True):
    """Whether item `item` of turn `turn` holds in the state after step `step` (x_{s+1} of the method, section 3).

    An item about the whole dialogue is judged once, when it is over: its turn and step are `WHOLE`.
    """

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
    """US dollars; 0 for a check. A call's cost is shared by the verdicts that came from it."""
    rollout: str = ""
    owner: str = ""
    """Whose failure an unscored verdict is: judge (no valid answer), provider, data (a broken item). Empty where nobody
    failed and there was nothing to decide by."""
    votes: list[bool | None] = []
    """What each of several judgements said, where the verdict is their majority; None did not vote."""
    applies: bool = True
    """False: the dialogue gave no occasion for the duty (`Item.applies_when`): `met` is None, and nobody failed."""

    @property
    def key(self) -> tuple[str, str, int, int, int, str]:
        """What identifies the verdict in a store."""
        return (self.dialogue, self.rollout, self.variant, self.turn, self.step, self.item)

    @property
    def failed(self) -> bool:
        """Whether a model or its provider failed to decide it: another try may."""
        return self.met is None and self.applies and self.owner in FAILED

    @property
    def why_unscored(self) -> str:
        """The kind of reason, for counting; "" where it is scored."""
        return "" if self.met is not None or not self.applies else unscored_reason(self.reason)


def unscored(kind: str, detail: str = "") -> str:
    """The reason of an unscored verdict: its kind, which is counted, and what there is to say about this one."""
    return f"{UNSCORED}{kind}: {detail}" if detail else f"{UNSCORED}{kind}"


def unscored_reason(reason: str) -> str:
    """The kind in a reason that `unscored` wrote."""
    return reason.removeprefix(UNSCORED).split(":")[0]
