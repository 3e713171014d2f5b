"""ToolSandbox by its own harness, where the user brought it, against scripted endpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.harness import results
from cm2.harness.results import Results
from cm2.harness.run import evaluate
from cm2.harness.settings import EvalConfig
from harness import real
from harness.play_toolsandbox import Agent, User
from servers.openai_server import calls

TASKS = ["cellular_off", "get_cellular", "wifi_off", "get_wifi", "turn_on_location_low_battery_mode"]


@pytest.fixture(scope="module", autouse=True)
def harness() -> None:
    real.environment("toolsandbox")


def go(agent: Any, user: Any, folder: Path, **more: Any) -> tuple[Results, real.Server]:
    """Evaluate two scripted endpoints on the scenarios without distracting tools."""
    with real.Server(agent) as agents, real.Server(user) as users:
        agents.keeps = "tasks" in more
        given = {"benchmark": "toolsandbox", "output": str(folder), "base_url": agents.url, "model": "some/model-1"}
        given |= {"user_base_url": users.url, "user_model": "a-user", "categories": ["NO_DISTRACTION_TOOLS"]}
        return evaluate(EvalConfig(**(given | {"concurrency": 2} | more))), agents


def test_errors_have_their_owner_and_only_what_was_lost_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAPID_API_KEY", raising=False)
    asks = {"Turn off cellular": real.BROKEN, "Is my cellular": real.MALFORMED, "Turn off wifi": real.SLOW}
    asks |= {"Is my wifi": real.nonsense("get_wifi_status")}
    asks |= {"Turn on location": calls(*[("get_location_service_status", {})] * 12)}  # 479,001,600 orders of them
    names = TASKS
    more = {"tasks": names, "timeout": real.TIMEOUT, "retries": 0, "baseline": False}
    found, _ = go(Agent(asks), User(), tmp_path / "o", **more)
    assert found.failed and found.errors == {"agent": 2, "infrastructure": 3}
    outcomes = {one.task: one for one in results.read(tmp_path / "o")[1]}
    assert [outcomes[name].owner for name in names] == [*["infrastructure"] * 3, "agent", "agent"]
    assert [outcomes[name].score for name in names] == [None, None, None, 0.0, 0.0]

    again, agents = go(Agent(), User({"Turn off wifi": real.BROKEN}), tmp_path / "o", **more)
    assert {one["messages"][1]["content"] for one in agents.requests} == {
        "Turn off cellular",
        "Is my cellular service on?",
        "Turn off wifi",
    }
    assert again.errors == {"agent": 2, "user": 1} and again.failed


@pytest.mark.parametrize("thinking", ["keep", "drop"])
def test_thinking_stays_in_the_history_or_leaves_it(tmp_path: Path, thinking: str) -> None:
    more = {"tasks": ["get_cellular"], "thinking": thinking, "baseline": False}
    found, agents = go(Agent(thinking="first this"), User(), tmp_path / "o", **more)
    assert not found.failed and found.errors == {}
    last = agents.requests[-1]["messages"]
    told = [one for one in last if one["role"] == "assistant"]
    assert told and all(("reasoning_content" in one) == (thinking == "keep") for one in told)
    assert told[0]["tool_calls"][0]["id"].isidentifier()  # whatever the server had called it
    assert last[-1]["role"] == "tool"


@pytest.mark.slow
def test_scenarios_that_need_no_web_play_without_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPID_API_KEY", raising=False)
    found, _ = go(Agent(), User(), tmp_path / "o")
    part = found.category("NO_DISTRACTION_TOOLS")
    assert (part.n, part.scored, found.errors) == (91, 91, {})
    assert not found.comparable and not found.failed
    summary = json.loads((tmp_path / "o" / "raw" / "run-0" / "result_summary.json").read_text())
    assert [row["exception_type"] for row in summary["per_scenario_results"]] == [None] * 91
    assert summary["git_sha"] == found.harness
    refusing = found.category("INSUFFICIENT_INFORMATION").baseline
    others = found.category("MULTIPLE_TOOL_CALL").baseline
    assert refusing is not None and others is not None and refusing > 0.9 > 0.5 > others
