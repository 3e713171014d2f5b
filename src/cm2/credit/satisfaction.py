"""Satisfaction: from verdicts about states to what was earned at which step of a turn (method, eq. 2 and 3).

State x_s is the transcript before step s, so a turn of S steps has the states x_0 … x_S, and step s leads from x_s to
x_{s+1}. Three arrays carry a turn; each may have a leading axis for the rollouts of a group:

- met[s, c] ∈ {1, 0, nan}: what the judges said of item c in x_{s+1}; nan is unscored.
- depends[c, d]: whether item c depends on item d.
- satisfied[s, c], S + 1 states: whether item c is satisfied in x_s. It latches: once satisfied, satisfied for good.

Dependencies are always read in x_s, the state before the step, so nothing here depends on the order of the items: an
item never rests on what the same step brought about.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cm2.checklist import Checklist
from cm2.credit.config import Reading
from cm2.errors import DataError, Where
from cm2.verdict import Verdict

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def tally(checklist: Checklist, verdicts: Iterable[Verdict], steps: int) -> Floats:
    """met[s, c]: the majority of yes and no among the verdicts of item c after step s; ties are no.

    Unscored verdicts do not vote; where nobody voted the entry is nan. Verdicts of other turns, variants and items are
    passed over.

    Raises:
        DataError: a verdict is about a step that the turn does not have.
    """
    column = {item.id: c for c, item in enumerate(checklist.items)}
    votes = np.zeros((2, steps, len(column)))
    for verdict in verdicts:
        if verdict.turn != checklist.turn or verdict.variant != checklist.variant or verdict.item not in column:
            continue
        if not 0 <= verdict.step < steps:
            raise DataError(
                f"there is a verdict about step {verdict.step}, but the turn has {steps} steps",
                where=Where(dialogue=verdict.dialogue, turn=verdict.turn, item=verdict.item),
                fix="pass the verdicts and the step counts of one and the same rollout",
            )
        if verdict.met is not None:
            votes[int(verdict.met), verdict.step, column[verdict.item]] += 1
    no, yes = votes
    return np.where(yes + no == 0, np.nan, (yes > no).astype(float))


def dependencies(checklist: Checklist) -> Bools:
    """depends[c, d] of a checklist.

    Raises:
        DataError: two items share an id, or an item depends on one that the checklist does not have.
    """
    column = {item.id: c for c, item in enumerate(checklist.items)}
    if len(column) < len(checklist.items):
        where = Where(turn=checklist.turn)
        raise DataError("two items of the checklist share an id", where=where, fix="number the items C0, C1 …")
    depends = np.zeros((len(column), len(column)), dtype=bool)
    for c, item in enumerate(checklist.items):
        for id in item.depends_on:
            if id not in column:
                raise DataError(
                    f"it depends on {id}, which is no item of its checklist",
                    where=Where(turn=checklist.turn, item=item.id),
                    fix="correct depends_on (cm2 lint finds all of these)",
                )
            depends[c, column[id]] = True
    return depends


def grounded(satisfied: Bools, depends: Bools) -> Bools:
    """Whether everything that c depends on is satisfied in x_s: ∏_{d: depends[c, d]} satisfied[s, d]."""
    missing: Bools = (~satisfied).astype(np.int64) @ depends.T.astype(np.int64) > 0
    return ~missing


def latch(met: Floats, depends: Bools, reading: Reading) -> Bools:
    """satisfied[s, c] for x_0 … x_S.

    satisfied[0] = 0; satisfied[s+1, c] = satisfied[s, c] ∨ (met[s, c] = 1 ∧ grounded[s, c]) where `gated`;
    `strict` leaves the last condition out, so that an early yes latches (and then can never pay, see `earned`).
    """
    states = [np.zeros((*met.shape[:-2], met.shape[-1]), dtype=bool)]
    for s in range(met.shape[-2]):
        yes = met[..., s, :] == 1
        if reading == "gated":
            yes &= grounded(states[-1], depends)
        states.append(states[-1] | yes)
    return np.stack(states, axis=-2)


def eligible(satisfied: Bools, depends: Bools) -> Bools:
    """E[s, c] (section 4): what c depends on is satisfied in x_s, and c is not yet."""
    before = satisfied[..., :-1, :]
    return grounded(before, depends) & ~before


def earned(satisfied: Bools, depends: Bools) -> Bools:
    """Eq. 2: r[s, c] = grounded[s, c] ∧ ¬satisfied[s, c] ∧ satisfied[s+1, c]. At most one s for each c."""
    return eligible(satisfied, depends) & satisfied[..., 1:, :]


def backfilled(satisfied: Bools, depends: Bools) -> Bools:
    """Eq. 3: r~[s, c] = grounded[s, c] ∧ ¬satisfied[s, c] ∧ c becomes satisfied at s or a later step of the turn.

    What is unsatisfied in x_s becomes satisfied from s on iff it is satisfied in the last state.
    """
    return eligible(satisfied, depends) & satisfied[..., -1:, :]


def scored(met: Floats, depends: Bools, reading: Reading) -> Bools:
    """Which items the verdicts of a turn settle; the others are unscored, which is neither a yes nor a no.

    An item is unscored if it was decided in no state of the turn, or if whether it pays hangs on a dependency that was
    decided in none: taking those for yes throughout would pay it, taking them for no would not. A turn without steps
    (never reached) settles everything: nothing was done.
    """
    if met.shape[-2] == 0:
        return np.ones((*met.shape[:-2], met.shape[-1]), dtype=bool)
    decided = np.any(~np.isnan(met), axis=-2)

    def pays(met: Floats) -> Bools:
        return np.any(earned(latch(met, depends, reading), depends), axis=-2)

    if decided.all():
        return decided
    generous = np.where(decided[..., None, :], met, 1.0)
    settled: Bools = decided & (pays(met) == pays(generous))
    return settled
