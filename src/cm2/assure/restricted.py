"""Restricted: the checklists of a dialogue with nothing but what failed in it, for tasks that train just that."""

from __future__ import annotations

from collections.abc import Iterable

from cm2.assure.outcomes import Outcome
from cm2.checklist import Checklist
from cm2.verdict import WHOLE


def restricted(
    outcomes: Iterable[Outcome], failing: Iterable[Outcome], everywhere: bool, turns: int
) -> list[Checklist]:
    """The checklists of the turns, with nothing but the duties that failed and what these depend on.

    Args:
        outcomes: all of the dialogue.
        failing: those that failed.
        everywhere: keep a duty that failed in one turn in every turn (a policy's duties are the same in all).
        turns: how many turns the task has.
    """
    failed = {(one.turn, one.variant, one.item.id) for one in failing}
    names = {one.duty for one in failing}
    by_turn: dict[tuple[int, int], list[Outcome]] = {}
    for one in outcomes:
        if one.turn != WHOLE and one.turn < turns:
            by_turn.setdefault((one.turn, one.variant), []).append(one)
    made = []
    for (turn, variant), mine in sorted(by_turn.items()):
        items = {one.item.id: one.item for one in mine}
        kept = {
            one.item.id for one in mine if (everywhere and one.duty in names) or (turn, variant, one.item.id) in failed
        }
        waiting = list(kept)
        while waiting:
            for id in items[waiting.pop()].depends_on:
                if id in items and id not in kept:
                    kept.add(id)
                    waiting.append(id)
        if kept:
            chosen = [item for id, item in items.items() if id in kept]
            made.append(Checklist(turn, chosen, variant, labeler="export").normalised())
    return made
