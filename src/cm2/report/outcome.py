"""Outcome: how each item of a checklist came out for a rollout, and at which step.

The rules are those of `cm2.credit`: verdicts latch, wait for what they depend on, and an unscored item is no no. Here
they are only told: the step that satisfied an item, and the verdict that speaks for it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cm2.checklist import Checklist
from cm2.credit import Ledger, Score, score
from cm2.credit.config import Reading
from cm2.credit.score import ledger
from cm2.errors import DataError
from cm2.report.source import is_number
from cm2.rollout.trace import Rollout
from cm2.verdict import Verdict

State = Literal["met", "unmet", "unscored", "unreached", "failed"]


class Came(msgspec.Struct):
    """How one item came out."""

    id: str
    state: State
    step: int | None = None
    """The step that satisfied it."""
    verdict: Verdict | None = None
    """What speaks for it: the yes that satisfied it, or the last word on it."""


def outcomes(rollout: Rollout, checklist: Checklist) -> list[Came]:
    """How the items of one of the rollout's checklists came out, in the checklist's order."""
    said: dict[str, list[Verdict]] = {}
    for verdict in rollout.verdicts:
        if (verdict.turn, verdict.variant) == (checklist.turn, checklist.variant):
            said.setdefault(verdict.item, []).append(verdict)
    turns = rollout.dialogue.turns
    reached = checklist.turn < len(turns)
    try:
        steps = len(turns[checklist.turn].steps) if reached else 0
        account = ledger(checklist, [verdict for each in said.values() for verdict in each], steps, reading_of(rollout))
    except DataError:  # a checklist or verdicts that do not fit together settle nothing
        account = None
    return [
        _came(item.id, c, account, said.get(item.id, []), reached, rollout.valid)
        for c, item in enumerate(checklist.items)
    ]


def _came(id: str, c: int, account: Ledger | None, said: list[Verdict], reached: bool, valid: bool) -> Came:
    last = max(said, key=lambda verdict: verdict.step, default=None)
    if not valid:
        return Came(id, "failed", None, last)
    if not reached:
        return Came(id, "unreached")
    if account is None or not account.scored[c]:
        return Came(id, "unscored", None, last)
    states = account.satisfied[:, c]
    if not states[-1]:
        return Came(id, "unmet", None, last)
    step = int(states.argmax()) - 1
    speaks = next((verdict for verdict in said if verdict.step == step and verdict.met), last)
    return Came(id, "met", step, speaks)


def reading_of(rollout: Rollout) -> Reading:
    """How the run that recorded the rollout paid items that were judged true before what they depend on."""
    return "strict" if rollout.score.get("reading") == "strict" else "gated"


def score_of(rollout: Rollout) -> Score | None:
    """The rollout's score, by the reading and the gate that its run recorded; None where it failed, or its checklists
    and verdicts do not fit together."""
    if not rollout.valid:
        return None
    turns = rollout.dialogue.turns
    discount = rollout.score.get("discount")
    try:
        return score(
            rollout.checklists,
            rollout.verdicts,
            [len(turn.steps) for turn in turns],
            max(rollout.reference_turns, len(turns)),
            reading_of(rollout),
            float(discount) if is_number(discount) and 0 <= discount < 1 else 1.0,
        )
    except DataError:
        return None


def reward(rollout: Rollout) -> float | None:
    """R as the run itself recorded it, else as `cm2.credit` gives it; None where the rollout says nothing."""
    if not rollout.valid:
        return None
    recorded = rollout.score.get("reward")
    if is_number(recorded):
        return float(recorded)
    found = score_of(rollout)
    return None if found is None else found.reward
