"""Prove: how often drafted duties apply in the logs and pass, measured by judging the logs with them.

A duty whose check fails to evaluate on many dialogues has no usable check. One with too few occasions, or that nearly
never holds, is proposed as retired: a person may activate it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.judge.judge import ChecksJudge
from cm2.policy.policy import Duty
from cm2.verdict import WHOLE, Verdict

UNDECIDED = 0.05
"""Share of occasions on which a check may fail to evaluate."""
LEVEL = 0.95


class Proof(msgspec.Struct):
    """What judging the logs by one duty found, in dialogues, or in turns for a duty of turns."""

    places: int = 0
    applies: int = 0
    passed: int = 0
    failed: int = 0
    unscored: int = 0
    """Applicable, and the check could not be decided."""
    reason: str = ""
    """Of the first that could not."""

    @property
    def rate(self) -> float | None:
        """passed / (passed + failed)."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None

    @property
    def low(self) -> float:
        """The lower end of the rate's interval (Wilson, 95 %)."""
        from scipy.stats import binomtest  # not above: heavy

        scored = self.passed + self.failed
        return float(binomtest(self.passed, scored).proportion_ci(LEVEL, "wilson").low) if scored else 0.0

    def told(self, scope: str) -> str:
        """The numbers in a sentence."""
        what = "dialogues" if scope == "dialogue" else "turns"
        rate = (
            "" if self.rate is None else f", passes in {self.passed} of {self.passed + self.failed} ({self.rate:.1%})"
        )
        lost = f", could not be decided in {self.unscored}" if self.unscored else ""
        return f"Applies in {self.applies} of {self.places} {what}{rate}{lost}."

    def add(self, verdicts: list[Verdict]) -> None:
        """Count the verdicts on one item of one turn or dialogue."""
        if not verdicts:
            return
        self.places += 1
        if not any(one.applies for one in verdicts):
            return
        self.applies += 1
        if any(one.met for one in verdicts):
            self.passed += 1
            return
        lost = next((one for one in verdicts if one.met is None and one.applies), None)
        if lost is None:
            self.failed += 1
        else:
            self.unscored += 1
            self.reason = self.reason or lost.reason


def prove(duties: list[Duty], dialogues: Iterable[Dialogue]) -> dict[str, Proof]:
    """The proof of every duty, by its id. Of one without a check only the occasions are counted."""
    found = {duty.id: Proof() for duty in duties}
    whole = [duty.item() for duty in duties if duty.scope == "dialogue"]
    each = [duty.item() for duty in duties if duty.scope == "turn"]
    judge = ChecksJudge()
    for dialogue in dialogues:
        turns = [(WHOLE, whole), *((turn, each) for turn in range(len(dialogue.turns)))]
        for turn, items in turns:
            if not items:
                continue
            verdicts: dict[str, list[Verdict]] = {item.id: [] for item in items}
            for verdict in judge.judge(dialogue, turn, Checklist(turn, items)):
                verdicts[verdict.item].append(verdict)
            for id, mine in verdicts.items():
                found[id].add(mine)
    return found


def settled(duty: Duty, proof: Proof, support: int, least: float | None) -> Duty:
    """The duty with its numbers in the note, active where they bear it.

    Args:
        duty: as drafted.
        proof: what the logs say of it.
        support: occasions below which it is proposed as retired.
        least: the pass rate (lower end of its interval) below which it is; None for a duty of a policy's text, which
            holds whatever the agent does.
    """
    note = f"{duty.note} {proof.told(duty.scope)}".strip()
    check = duty.check
    if check is not None and proof.unscored > UNDECIDED * max(1, proof.applies):
        check = None
        note += f" Its check was dropped, it fails too often: {proof.reason[:200]}"
    active = proof.applies >= support and (least is None or proof.low >= least)
    if not active:
        few = proof.applies < support
        note += f" Retired: {f'fewer than {support} occasions' if few else 'the agent often does otherwise'}."
    return msgspec.structs.replace(duty, check=check, note=note, status="active" if active else "retired")
