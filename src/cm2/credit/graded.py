"""Graded gates: partial credit where a strict item failed, in place of the all-or-nothing end of the rollout.

The method ends a rollout at a final reply that leaves a strict item unsatisfied (section 3): everything after it is
lost, so a dialogue whose first turn went nearly right earns as little of its later turns as one that went wholly wrong,
and late turns are hardly ever practised. A graded gate lets the conversation go on and makes what follows worth less:

    m[t] = Π_{t' < t} (1 − strictness if a strict item of turn t' is unsatisfied, else 1)
    R    = (1/L) Σ_t m[t]·R_t

At strictness 1 this is the method's reward exactly (what follows a missed gate counts 0); at 0 the gate is open. The
expected reward is that of a gate which ends the rollout with probability `strictness`, without that coin's variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cm2.credit.satisfaction import Floats


def carried(missed: Sequence[bool], strictness: float) -> Floats:
    """m[t] for every turn, from whether a strict item of each turn was left unsatisfied."""
    passes = np.where(np.asarray(missed, dtype=bool), 1.0 - strictness, 1.0)
    worth: Floats = np.concatenate([[1.0], np.cumprod(passes)[:-1]]) if len(passes) else np.ones(0)
    return worth
