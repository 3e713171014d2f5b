"""DeepEval: a policy as a conversational metric.

    from cm2.interop.deepeval import PolicyMetric

    evaluate([ConversationalTestCase(turns=[...])], [PolicyMetric("policy.yaml", threshold=0.9)])

The score is the severity-weighted share of the duties that apply and were decided; `score_breakdown` has each duty. A
case in which nothing could be decided has an `error` and no score, and is no success; one in which no duty applies has
score 1. Calls come from a turn's `tools_called`, with their output.
"""

from __future__ import annotations

import json
from typing import Any

from cm2.assure.outcomes import Outcome, score
from cm2.dialogue import Dialogue
from cm2.errors import DataError, MissingExtra
from cm2.interop.duties import Duties, by_duty, lost, read_chat, told
from cm2.judge import Judge
from cm2.policy import Policy

try:
    from deepeval.metrics import BaseConversationalMetric
    from deepeval.test_case import ConversationalTestCase
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("the DeepEval metric", "deepeval") from error


class PolicyMetric(BaseConversationalMetric):  # type: ignore[misc]
    """Judges a conversation by a policy.

    Args:
        policy: the policy, or the file that holds it.
        threshold: the least score that is a success.
        judge: see `cm2.interop.duties.Duties`.
        tools: the tools' schemas (chat functions), where checks need them.
    """

    async_mode = True

    def __init__(
        self,
        policy: Policy | str,
        threshold: float = 1.0,
        judge: Judge | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> None:
        self.policy, self.judge = policy, judge  # DeepEval copies a metric by the names of its arguments
        self.duties = Duties(policy, judge)
        self.threshold = threshold
        self.tools = tools or []
        self.outcomes: list[Outcome] = []
        self.score: float | None = None
        self.error: str | None = None

    def measure(self, test_case: ConversationalTestCase, *_: Any, **__: Any) -> float:
        """The score of a conversation; see the module.

        Raises:
            DataError: it is no conversation, or nothing in it could be decided.
        """
        return self._take(self.duties.outcomes(self._read(test_case)))

    async def a_measure(self, test_case: ConversationalTestCase, *_: Any, **__: Any) -> float:
        """The same, awaited."""
        return self._take(await self.duties.outcomes_async(self._read(test_case)))

    def is_successful(self) -> bool:
        """Whether the score reaches the threshold."""
        self.success = self.error is None and self.score is not None and self.score >= self.threshold
        return bool(self.success)

    @property
    def __name__(self) -> str:
        return f"Policy: {self.duties.policy.name}"

    def _read(self, test_case: ConversationalTestCase) -> Dialogue:
        self.error, self.score, self.outcomes = None, None, []
        messages: list[dict[str, Any]] = []
        for number, turn in enumerate(test_case.turns):
            calls = list(turn.tools_called or [])
            if turn.role == "assistant" and calls:
                messages += _called(calls, number)
            messages.append({"role": turn.role, "content": turn.content})
        try:
            return read_chat(messages, self.tools, getattr(test_case, "name", None) or "conversation")
        except DataError as error:
            self.error = str(error)
            raise

    def _take(self, outcomes: list[Outcome]) -> float:
        self.outcomes, self.reason = outcomes, told(outcomes)
        if lost(outcomes):
            self.error = self.reason
            raise DataError(f"no duty could be decided: {self.reason}", fix="see the reasons; run the case again")
        value = score(outcomes)
        value = 1.0 if value is None else value
        self.score, self.score_breakdown = value, by_duty(outcomes)
        self.is_successful()
        return value


def _called(calls: list[Any], number: int) -> list[dict[str, Any]]:
    """The calls of a turn, which stand before its text, and their answers."""
    asked, answers = [], []
    for index, call in enumerate(calls):
        id = f"call-{number}-{index}"
        arguments = json.dumps(call.input_parameters or {}, default=str)
        asked.append({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        if call.output is not None:
            output = call.output if isinstance(call.output, str) else json.dumps(call.output, default=str)
            answers.append({"role": "tool", "tool_call_id": id, "content": output})
    return [{"role": "assistant", "content": None, "tool_calls": asked}, *answers]
