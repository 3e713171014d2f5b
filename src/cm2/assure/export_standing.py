"""Standing: what an export may make of a dialogue, by how its duties came out.

Blocking are the duties from a severity on (critical and major, unless told otherwise; items of a reference, which have
none, count as major). A dialogue *passes* when no blocking duty fails, none is unscored, and at least one was decided:
what nobody could judge is no pass. Of others the turns before the first that fails may be good; a fail of the whole
dialogue counts from the first turn to which its evidence points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from cm2.assure.outcomes import Judged, Outcome
from cm2.checklist import Severity
from cm2.verdict import WHOLE

RANK: dict[Severity | None, int] = {"critical": 3, "major": 2, None: 2, "minor": 1}
Verdict = Literal["pass", "fail", "unscored", "nothing"]


class Standing(msgspec.Struct):
    """How a dialogue stands."""

    whole: Verdict
    """Its duties about the whole dialogue; nothing: there is none that applies."""
    turns: list[Verdict]
    """Its turns, by their own duties."""
    spoilt: list[int]
    """Turns in which a duty failed that does not block."""
    decided: bool
    """Whether any blocking duty passed or failed."""
    failing: list[Outcome]
    """Blocking duties that failed."""
    whole_from: int = 0
    """Where the whole fails: the first turn to which the evidence of a fail points; 0 where one has none."""

    @property
    def passes(self) -> bool:
        """Whether the whole dialogue is good."""
        return self.why_not == ""

    @property
    def why_not(self) -> str:
        """Why it does not pass, for counting."""
        all_of = [self.whole, *self.turns]
        if "fail" in all_of:
            return "a duty fails"
        if "unscored" in all_of:
            return "a duty is unscored"
        return "" if self.decided else "nothing was decided"

    @property
    def good_turns(self) -> int:
        """Turns before the first that fails or could not be judged. A fail of the whole counts from the first turn to
        which its evidence points; where the whole could not be judged there is none."""
        if self.whole == "unscored" or not self.decided:
            return 0
        bad = (number for number, verdict in enumerate(self.turns) if verdict in ("fail", "unscored"))
        first = next(bad, len(self.turns))
        return min(first, self.whole_from) if self.whole == "fail" else first

    def of_turn(self, turn: int) -> Verdict:
        """How a turn stands, together with the whole dialogue."""
        both = (self.whole, self.turns[turn] if turn < len(self.turns) else "nothing")
        return next((verdict for verdict in ("fail", "unscored", "pass") if verdict in both), "nothing")


def standing_of(judged: Judged, blocking: Severity = "major") -> Standing:
    """How a dialogue stands; duties from severity `blocking` on block."""
    heavy = [one for one in judged.outcomes if RANK[one.item.severity] >= RANK[blocking]]
    light = [one for one in judged.outcomes if RANK[one.item.severity] < RANK[blocking]]
    failing = [one for one in heavy if one.result == "fail"]
    whole = [one for one in heavy if one.turn == WHOLE]
    places = [[place.turn for place in one.verdict.evidence] if one.verdict else [] for one in whole if one in failing]
    unscored = any(one.result == "unscored" for one in whole)
    count = max([len(judged.dialogue.turns), *(one.turn + 1 for one in heavy)])
    return Standing(
        whole=_verdict(whole),
        turns=[_verdict([one for one in heavy if one.turn == turn]) for turn in range(count)],
        spoilt=sorted({one.turn for one in light if one.result == "fail" and one.turn != WHOLE}),
        decided=any(one.result in ("pass", "fail") for one in heavy),
        failing=failing,
        whole_from=0 if unscored else min((min(turns, default=0) for turns in places), default=0),
    )


def _verdict(outcomes: Sequence[Outcome]) -> Verdict:
    results = {one.result for one in outcomes}
    return next((one for one in ("fail", "unscored", "pass") if one in results), "nothing")
