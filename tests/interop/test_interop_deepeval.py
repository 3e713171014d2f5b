"""The DeepEval metric, through DeepEval's own evaluation."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "YES")
pytest.importorskip("deepeval", reason="DeepEval is not installed here: make test-interop")

from deepeval import evaluate
from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
from deepeval.test_case import ConversationalTestCase, ToolCall, Turn

from cm2.check import Before, Called, Reply
from cm2.errors import DataError
from cm2.interop.deepeval import PolicyMetric
from cm2.policy import Duty, Policy

POLICY = Policy(
    "shop",
    [
        Duty(id="look-first", question="?", severity="critical", check=Before(Called("get_order"), Called("refund"))),
        Duty(id="says-done", question="?", severity="minor", check=Reply(pattern="(?i)done")),
        Duty(id="cancel", question="?", applies_when=Called("cancel"), check=Called("cancel", answered=True)),
    ],
)


def case(*names: str, reply: str = "Done.") -> ConversationalTestCase:
    turns = [Turn(role="user", content="Please refund order 7.")]
    for name in names:
        call = ToolCall(name=name, input_parameters={"order": 7}, output={"ok": True})
        turns.append(Turn(role="assistant", content="One moment.", tools_called=[call]))
        turns.append(Turn(role="user", content="Yes?"))
    return ConversationalTestCase(turns=[*turns, Turn(role="assistant", content=reply)])


def test_a_good_conversation_scores_one_with_a_breakdown():
    metric = PolicyMetric(POLICY)
    assert metric.measure(case("get_order", "refund")) == 1.0
    assert metric.is_successful() and metric.score_breakdown == {"look-first": 1.0, "says-done": 1.0, "cancel": None}


def test_a_failure_weighs_by_its_severity_and_is_explained():
    metric = PolicyMetric(POLICY, threshold=0.9)
    assert metric.measure(case("refund", "get_order")) == pytest.approx(1 / 5)
    assert not metric.is_successful() and "look-first: critical, failed" in metric.reason


def test_what_nobody_could_decide_is_an_error_and_no_score():
    metric = PolicyMetric(Policy("p", [Duty(id="polite", question="Is it polite?")]))
    with pytest.raises(DataError, match="no duty could be decided"):
        metric.measure(case())
    assert metric.score is None and metric.error and not metric.is_successful()


@pytest.mark.parametrize("run_async", [True, False])
def test_deepeval_runs_it(run_async: bool):
    result = evaluate(
        [case("get_order", "refund"), case("refund", "get_order")],
        [PolicyMetric(POLICY, threshold=0.9)],
        async_config=AsyncConfig(run_async=run_async),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False),
        error_config=ErrorConfig(ignore_errors=False),
    )
    assert sorted(each.success for each in result.test_results) == [False, True]
    (good,) = [each for each in result.test_results if each.success]
    assert good.metrics_data[0].name == "Policy: shop" and good.metrics_data[0].score == 1.0
