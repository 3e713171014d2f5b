"""tau2-bench: a customer-service agent, a simulated user and a database (airline 50, retail 114, telecom 114 tasks).

A task passes when the database ends as it should and the user was told what had to be told. The simulated user is a
model of its own, and its failures are its own: a user that answers nothing did not meet a bad agent. Simulations that
run into the limit of steps or of errors are the agent's failures, as the benchmark has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from cm2.harness.environments import Environment
from cm2.harness.process import HarnessFailed, run
from cm2.harness.results import Outcome
from cm2.harness.settings import EvalConfig

WHOLE = {"airline": 50, "retail": 114, "telecom": 114}
GROUPS = {"tau2": tuple(WHOLE)}
DEFAULT = ["airline", "retail", "telecom"]
PASSES = 1 - 1e-6
_PREMATURE = {"max_steps": "ran into the limit of steps", "too_many_errors": "made too many calls that are errors"}


def run_once(config: EvalConfig, environment: Environment, folder: Path, run_index: int, chosen: list[str]) -> Any:
    """Run one repetition; yields how many simulations are done."""
    settings = {
        **config.conversing(),
        "categories": chosen,
        "seed": config.seed + run_index,
    }
    variables = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches one from the web before it starts
        "LITELLM_MODE": "PRODUCTION",  # else it reads a .env
        "CM2_AGENT_KEY": config.secret("agent"),
        "CM2_USER_KEY": config.secret("user"),
    }
    return run(environment, "run_tau2.py", settings, variables, folder, lambda: _simulations(folder))


def parse(folder: Path, run_index: int, raw: str) -> tuple[list[Outcome], dict[str, list[float]]]:
    """The outcomes of one repetition, and the harness's own Pass^1 by domain.

    Raises:
        HarnessFailed: a simulation is missing.
    """
    chosen = orjson.loads((folder / "tasks.json").read_bytes())["tasks"]
    outcomes, official = [], {}
    for domain, ids in chosen.items():
        rows = {}
        for path in sorted((folder / "simulations" / domain).glob("*.json")):
            row = orjson.loads(path.read_bytes())
            rows[row["task"]] = (row, path)
        missing = [id for id in ids if id not in rows]
        if missing:
            raise HarnessFailed(f"{domain}: {len(missing)} simulations are missing", fix="run the same command again")
        for id in ids:
            row, path = rows[id]
            outcomes.append(outcome(row, run_index, f"{raw}/{path.relative_to(folder)}"))
        metrics = folder / f"metrics-{domain}.json"
        if ids and metrics.exists():
            found = orjson.loads(metrics.read_bytes())
            if "pass_hat_1" in found:
                official[domain] = [found["pass_hat_1"]]
    return outcomes, official


def outcome(row: dict[str, Any], run_index: int, raw: str) -> Outcome:
    """One simulation as an outcome."""
    simulation, owner, error = row["simulation"], row["owner"], row["error"]
    score: float | None = 0.0
    if simulation is not None:
        reason = simulation["termination_reason"]
        score = float(simulation["reward_info"]["reward"])
        if reason == "user_error":
            owner, error = "user", "the user broke the rules of the conversation"
        elif reason == "judge_stop":
            owner, error = "judge", "a judge stopped the conversation"
        elif reason in _PREMATURE:
            error = _PREMATURE[reason]
        elif score < PASSES:
            error = _why(simulation["reward_info"])
    return Outcome(
        task=row["task"],
        category=row["domain"],
        run=run_index,
        score=score,
        passed=score is not None and score >= PASSES,
        owner=owner,
        error=error,
        raw=raw,
    )


def _why(reward: dict[str, Any]) -> str:
    parts = []
    if (reward.get("db_check") or {}).get("db_match") is False:
        parts.append("the database does not end as it should")
    parts += [
        f"the user was not told {check['info']!r}"
        for check in reward.get("communicate_checks") or []
        if not check.get("met")
    ]
    parts += ["an assertion on the environment fails" for c in reward.get("env_assertions") or [] if not c.get("met")]
    return "; ".join(parts)[:300]


def _simulations(folder: Path) -> int:
    return sum(1 for _ in (folder / "simulations").rglob("*.json"))
