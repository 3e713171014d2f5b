"""Simulations of tau2-bench become outcomes: rewards of the agent, and errors of whoever made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.harness import tau2
from cm2.harness.process import HarnessFailed


def row(reason: str | None, reward: float = 0.0, owner: str | None = None, **checks: Any) -> dict[str, Any]:
    """A simulation's file as the runner writes it."""
    made = None
    if reason is not None:
        made = {"termination_reason": reason, "reward_info": {"reward": reward, **checks}}
    return {"task": "7", "domain": "retail", "owner": owner, "error": "said" if owner else "", "simulation": made}


@pytest.mark.parametrize(
    ("given", "score", "passed", "owner"),
    [
        (row("user_stop", 1.0), 1.0, True, None),
        (row("agent_stop", 0.0), 0.0, False, None),
        (row("user_stop", 0.9999999), 0.9999999, True, None),  # products of floats, as its own metrics round them
        (row("user_stop", 0.5), 0.5, False, None),
        (row("max_steps"), 0.0, False, None),
        (row("too_many_errors"), 0.0, False, None),
        (row("agent_error"), 0.0, False, None),
        (row("user_error"), None, None, "user"),
        (row("judge_stop"), None, None, "judge"),
        (row(None, owner="user"), None, None, "user"),
        (row(None, owner="infrastructure"), None, None, "infrastructure"),
        (row(None, owner="agent"), 0.0, False, "agent"),
    ],
)
def test_rewards_are_the_agents_and_errors_their_owners(
    given: dict[str, Any], score: float | None, passed: bool | None, owner: str | None
) -> None:
    found = tau2.outcome(given, 3, "raw/x.json")
    assert (found.score, found.passed, found.owner) == (score, passed, owner)
    assert (found.task, found.category, found.run, found.raw) == ("7", "retail", 3, "raw/x.json")


def test_a_failed_task_says_what_was_wrong() -> None:
    given = row(
        "user_stop",
        db_check={"db_match": False},
        communicate_checks=[{"info": "10", "met": False}, {"info": "11", "met": True}],
    )
    said = tau2.outcome(given, 0, "").error
    assert "database" in said and "'10'" in said and "'11'" not in said
    assert "steps" in tau2.outcome(row("max_steps"), 0, "").error


def write(folder: Path, rows: dict[str, dict[str, Any]], planned: list[str]) -> None:
    """A repetition's files."""
    (folder / "tasks.json").write_text(json.dumps({"tasks": {"retail": planned, "airline": []}, "hash": "0"}))
    place = folder / "simulations" / "retail"
    place.mkdir(parents=True)
    for task, one in rows.items():
        (place / f"{task}.json").write_text(json.dumps(one | {"task": task}))
    (folder / "metrics-retail.json").write_text(json.dumps({"simulations": 2, "of": 2, "pass_hat_1": 0.5}))


def test_a_repetition_is_read_in_the_order_of_its_tasks(tmp_path: Path) -> None:
    write(tmp_path, {"0": row("user_stop", 1.0), "1": row("user_stop")}, ["1", "0"])
    outcomes, official = tau2.parse(tmp_path, 0, "raw/run-0")
    assert [(one.task, one.score) for one in outcomes] == [("1", 0.0), ("0", 1.0)]
    assert official == {"retail": [0.5]}
    assert (tmp_path / outcomes[0].raw.removeprefix("raw/run-0/")).exists()


def test_a_simulation_that_is_not_there_is_no_result(tmp_path: Path) -> None:
    write(tmp_path, {"0": row("user_stop", 1.0)}, ["0", "1"])
    with pytest.raises(HarnessFailed, match="1 simulations are missing"):
        tau2.parse(tmp_path, 0, "raw")
