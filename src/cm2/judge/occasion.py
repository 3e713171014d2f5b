"""Occasion: whether a dialogue gives one for a duty at all (`Item.applies_when`).

It is a check, so it is free, and it is decided before anything else, whoever judges. It looks at the turn as it stands
when it is judged, with nothing to follow, or at the whole dialogue. Where it does not hold the item is not applicable
in every state of the turn: no yes, no no, and nobody failed. Where it cannot be decided the item is unscored.
"""

from __future__ import annotations

from collections.abc import Iterable

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.judge.checks import decide_in
from cm2.judge.expression import Unevaluable
from cm2.judge.scope import State, state_of
from cm2.verdict import WHOLE, Pointer, Verdict, unscored

NO_OCCASION = "no occasion: "
BROKEN_CHECK = "the check is broken"
FAILED_CHECK = "the check fails on this dialogue"


def states_of(dialogue: Dialogue, turn: int) -> list[int]:
    """The steps after which items of the turn are judged; for a whole dialogue there is one state, `WHOLE`. A turn that
    the dialogue has not got has none; turns are never counted from the end."""
    if turn == WHOLE:
        return [WHOLE]
    return list(range(len(dialogue.turns[turn].steps))) if 0 <= turn < len(dialogue.turns) else []


def last_state(dialogue: Dialogue, turn: int) -> State:
    """The turn as it stands, with nothing to follow; or the whole dialogue."""
    if turn == WHOLE:
        return state_of(dialogue, WHOLE, WHOLE)
    return State(dialogue, turn, len(dialogue.turns[turn].steps) - 1, over=True)


def without_occasion(
    dialogue: Dialogue, turn: int, checklist: Checklist, state: State | None = None, but: Iterable[str] = ()
) -> dict[str, list[Verdict]]:
    """By item, the verdicts on those for which there is no occasion, or of which that cannot be decided.

    Args:
        dialogue, turn, checklist: what is judged.
        state: its last state, where somebody has made it already.
        but: items that are left out.
    """
    found: dict[str, list[Verdict]] = {}
    steps = states_of(dialogue, turn)
    passed_over = set(but)
    for item in checklist.items:
        if item.applies_when is None or item.id in passed_over or not steps:
            continue
        state = last_state(dialogue, turn) if state is None else state
        evidence: list[Pointer] = []
        owner, applies = "", False
        try:
            decision = decide_in(item.applies_when, state)
            if decision.met:
                continue
            reason, evidence = f"{NO_OCCASION}{decision.reason}", decision.evidence
        except DataError as error:
            reason, owner, applies = broken(error, "applies_when: "), "data", True
        found[item.id] = [
            Verdict(
                dialogue.id,
                turn,
                step,
                item.id,
                None,
                checklist.variant,
                reason,
                evidence,
                owner=owner,
                applies=applies,
            )
            for step in steps
        ]
    return found


def broken(error: DataError, where: str = "") -> str:
    """The reason of a verdict whose check could not be decided."""
    return unscored(FAILED_CHECK if isinstance(error, Unevaluable) else BROKEN_CHECK, f"{where}{error}")
