"""Inspect: a policy as a scorer.

    from cm2.interop.inspect_ai import duties

    @task
    def support():
        return Task(dataset=..., solver=..., scorer=duties("policy.yaml"))

A sample's value is an object: `score` (the severity-weighted share of duties that hold) and every duty by its name.
What does not apply or could not be decided is NaN, which Inspect keeps and leaves out of its metrics; a sample in which
nothing could be decided is `unscored`.
"""

from __future__ import annotations

import math
from typing import Any

from cm2.assure.outcomes import score
from cm2.errors import DataError, MissingExtra
from cm2.interop.duties import Duties, by_duty, lost, read_chat, told
from cm2.judge import Judge
from cm2.policy import Policy

try:
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import TaskState
    from inspect_ai.tool import ToolDef
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("the Inspect scorer", "inspect") from error


@scorer(metrics={"*": [mean(), stderr()]})
def duties(policy: Policy | str, judge: Judge | None = None) -> Scorer:
    """A scorer that judges each sample's conversation by a policy.

    Args:
        policy: the policy, or the file that holds it.
        judge: see `cm2.interop.duties.Duties`.
    """
    own = Duties(policy, judge)

    async def decide(state: TaskState, target: Target) -> Score:
        messages = [message.model_dump(exclude_none=True) for message in state.messages]
        try:
            dialogue = read_chat(messages, _tools(state), f"{state.sample_id}-{state.epoch}")
        except DataError as error:
            return Score.unscored(explanation=str(error))
        outcomes = await own.outcomes_async(dialogue)
        if lost(outcomes):
            return Score.unscored(explanation=told(outcomes))
        values = {"score": score(outcomes), **by_duty(outcomes)}
        return Score(
            value={name: math.nan if value is None else value for name, value in values.items()},
            explanation=told(outcomes),
            metadata={"duties": [_row(one) for one in outcomes]},
        )

    return decide


def _tools(state: TaskState) -> list[dict[str, Any]]:
    found = []
    for tool in state.tools:
        about = ToolDef(tool)
        parameters = about.parameters.model_dump(exclude_none=True)
        function = {"name": about.name, "description": about.description, "parameters": parameters}
        found.append({"type": "function", "function": function})
    return found


def _row(outcome: Any) -> dict[str, Any]:
    return {"duty": outcome.duty, "turn": outcome.turn, "result": outcome.result, "reason": outcome.reason}
