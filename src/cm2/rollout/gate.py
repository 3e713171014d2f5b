"""Gate: an environment whose strict items need not end the rollout (`Credit.gate`).

The plain `Environment` ends at a final reply that leaves a strict item unsatisfied. Here the conversation may go on:
the gate is asked, and its answer is the same for every member of a group, so that siblings are compared under one rule.
What a later turn is then worth is the score's business (`cm2.credit.graded`), which reads it off the verdicts.
"""

from __future__ import annotations

import msgspec
import numpy as np

from cm2.checklist import Task
from cm2.credit import Credit
from cm2.judge import Judge
from cm2.rollout.environment import Environment, JudgeOne, ToolSession
from cm2.rollout.limits import Limits


class Gate(msgspec.Struct, frozen=True):
    """Whether an unsatisfied strict item ends a rollout of one group."""

    credit: Credit
    """Its `gate` and `strictness`."""
    seed: int = 0
    """Of the group; decides where a gate of chance ends."""

    def ends(self, turn: int) -> bool:
        """Whether a rollout that missed a strict item of this turn is over. At strictness 1 every gate ends: what
        follows would count nothing."""
        if self.credit.gate == "ends" or self.credit.strictness >= 1:
            return True
        if self.credit.gate == "graded":
            return False
        return bool(np.random.default_rng([self.seed % 2**32, turn]).random() < self.credit.strictness)


class GatedEnvironment(Environment):
    """An `Environment` that asks `gate` before it ends a rollout for a strict item."""

    def __init__(self, task: Task, session: ToolSession, judge: Judge | None, limits: Limits | None, gate: Gate):
        super().__init__(task, session, judge, limits)
        self.gate = gate

    async def _judge_turn(self, judge: JudgeOne) -> bool:
        return await super()._judge_turn(judge) and self.gate.ends(self.turn)


def environment_of(
    task: Task, session: ToolSession, judge: Judge | None, limits: Limits | None, gate: Gate
) -> Environment:
    """The plain environment where the gate is the method's, else a gated one."""
    if gate.credit.gate == "ends":
        return Environment(task, session, judge, limits)
    return GatedEnvironment(task, session, judge, limits, gate)
