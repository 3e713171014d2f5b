"""The Inspect scorer, in a real evaluation with Inspect's own mock model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="Inspect is not installed here: make test-interop")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool

from cm2.check import Called, Reply
from cm2.interop.inspect_ai import duties
from cm2.policy import Duty, Policy

POLICY = Policy(
    "shop",
    [
        Duty(id="look-first", question="Was the order looked up?", severity="critical", check=Called("get_order")),
        Duty(
            id="says-shipped",
            question="Does the reply say that it was shipped?",
            severity="minor",
            check=Reply(pattern="(?i)shipped"),
        ),
        Duty(id="refund", question="?", applies_when=Called("refund"), check=Called("refund", answered=True)),
    ],
)


@tool
def get_order():
    async def execute(order: str) -> str:
        """Look up an order.

        Args:
            order: its number
        """
        return '{"status": "shipped"}'

    return execute


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspect counts its mock model's tokens with a vocabulary that it would fetch."""
    monkeypatch.setattr("inspect_ai.model._model.count_text_tokens", lambda text: len(text) // 4 + 1)


def run(tmp_path: Path, outputs: list[ModelOutput], policy: Policy = POLICY):
    model = get_model("mockllm/model", custom_outputs=outputs)
    task = Task(dataset=[Sample(input="Where is order 7?")], solver=[use_tools(get_order()), generate()],
                scorer=duties(policy))  # fmt: skip
    (log,) = eval(task, model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    return log


def test_a_conversation_with_calls_is_scored_duty_by_duty(tmp_path: Path) -> None:
    call = ModelOutput.for_tool_call("mockllm/model", "get_order", {"order": "7"})
    log = run(tmp_path, [call, ModelOutput.from_content("mockllm/model", "It was shipped.")])
    (score,) = log.samples[0].scores.values()
    assert {name: value for name, value in score.value.items() if name != "refund"} == {
        "score": 1.0,
        "look-first": 1.0,
        "says-shipped": 1.0,
    }
    assert math.isnan(score.value["refund"])
    assert [row["result"] for row in score.metadata["duties"]] == ["pass", "pass", "not_applicable"]


def test_a_failure_weighs_by_its_severity_and_is_explained(tmp_path: Path) -> None:
    log = run(tmp_path, [ModelOutput.from_content("mockllm/model", "It was shipped.")])
    (score,) = log.samples[0].scores.values()
    assert score.value["look-first"] == 0.0 and score.value["score"] == pytest.approx(1 / 5)
    assert "look-first: critical, failed: " in score.explanation
    metrics = {each.name: each.metrics["mean"].value for each in log.results.scores}
    assert metrics["score"] == pytest.approx(1 / 5) and metrics["says-shipped"] == 1.0


def test_what_nobody_could_decide_is_unscored_and_no_failure(tmp_path: Path) -> None:
    log = run(
        tmp_path,
        [ModelOutput.from_content("mockllm/model", "It was shipped.")],
        Policy("p", [Duty(id="polite", question="Is it polite?")]),
    )
    (score,) = log.samples[0].scores.values()
    assert isinstance(score.value, float) and math.isnan(score.value)
    assert "polite: major, not decided" in score.explanation
