"""ToolSandbox: tools with state, milestones and minefields, on a phone (129 scenarios in 8 variants of their tools).

A scenario's score is how near the conversation came to its milestones, from 0 to 1, so there is no yes and no. Any
exception becomes a 0 there; here it has an owner. An agent that refuses everything scores high where the right answer
is that something is missing: its score stands beside every category. 38 of the 129 need a search service on the web;
without its key they are left out, and what is left is not comparable with published tables.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from cm2.harness.environments import Environment
from cm2.harness.process import HarnessFailed, run
from cm2.harness.results import Outcome
from cm2.harness.settings import EvalConfig

ALL = "scenarios"
"""The category of every outcome; the others are groups of them."""
VARIANTS = (
    *("NO_DISTRACTION_TOOLS", "THREE_DISTRACTION_TOOLS", "TEN_DISTRACTION_TOOLS", "ALL_TOOLS_AVAILABLE"),
    *("TOOL_NAME_SCRAMBLED", "TOOL_DESCRIPTION_SCRAMBLED", "ARG_DESCRIPTION_SCRAMBLED", "ARG_TYPE_SCRAMBLED"),
)
KINDS = (
    *("SINGLE_TOOL_CALL", "MULTIPLE_TOOL_CALL", "SINGLE_USER_TURN", "MULTIPLE_USER_TURN", "STATE_DEPENDENCY"),
    *("CANONICALIZATION", "INSUFFICIENT_INFORMATION"),
)
SIZES = (152, 656, 584, 224, 192, 472, 224)
WHOLE = {ALL: 1032} | dict(zip(KINDS, SIZES, strict=True)) | dict.fromkeys(VARIANTS, 129)
GROUPS = {"toolsandbox": (ALL,)}
DEFAULT = [ALL]
KEY = "RAPID_API_KEY"


def run_once(config: EvalConfig, environment: Environment, folder: Path, run_index: int, chosen: list[str]) -> Any:
    """Run one repetition; yields how many scenarios are done."""
    settings = {
        **config.conversing(),
        "categories": [] if ALL in chosen else chosen,
        "version": environment.version,
        "baseline": config.baseline and run_index == 0,
    }
    variables = {"CM2_AGENT_KEY": config.secret("agent"), "CM2_USER_KEY": config.secret("user")}
    if os.environ.get(KEY):
        variables[KEY] = os.environ[KEY]
    return run(environment, "run_toolsandbox.py", settings, variables, folder, lambda: _played(folder))


def parse(folder: Path, run_index: int, raw: str) -> tuple[list[Outcome], dict[str, list[float]]]:
    """The outcomes of one repetition, and the harness's own means by category.

    Raises:
        HarnessFailed: there is no summary, or a scenario is missing in it.
    """
    summary = _summary(folder)
    groups = orjson.loads((folder / "tasks.json").read_bytes())["tasks"]
    rows = {row["name"]: row for row in summary["per_scenario_results"]}
    missing = [name for name in groups if name not in rows]
    if missing:
        raise HarnessFailed(f"{len(missing)} scenarios are missing", fix="run the same command again")
    outcomes = [outcome(rows[name], groups[name], run_index, raw) for name in groups]
    means = summary["category_aggregated_results"]
    official = {name: [found["similarity"]] for name, found in means.items()}
    official[ALL] = official.pop("ALL_CATEGORIES")
    return outcomes, official


def outcome(row: dict[str, Any], groups: list[str], run_index: int, raw: str) -> Outcome:
    """One scenario as an outcome."""
    error = ""
    if row["exception_type"] is not None:
        error = (row["traceback"] or row["exception_type"]).strip().splitlines()[-1][:300]
    elif row["minefield_similarity"]:
        error = "stepped on a minefield"
    return Outcome(
        task=row["name"],
        category=ALL,
        groups=list(groups),
        run=run_index,
        score=float(row["similarity"]),
        owner=row["owner"],
        error=error,
        raw=f"{raw}/trajectories/{row['name']}",
    )


def baseline(folder: Path) -> dict[str, float]:
    """What an agent that refuses everything gets, by category; empty where it was not run."""
    place = folder / "baseline"
    if not (place / "result_summary.json").exists():
        return {}
    means = _summary(place)["category_aggregated_results"]
    return {ALL if name == "ALL_CATEGORIES" else name: found["similarity"] for name, found in means.items()}


def _summary(folder: Path) -> Any:
    path = folder / "result_summary.json"
    if not path.exists():
        raise HarnessFailed("there is no summary of the scenarios", fix=f"look into {folder / 'log.txt'}")
    return orjson.loads(path.read_bytes())


def _played(folder: Path) -> int:
    return sum(1 for _ in (folder / "scenarios").glob("*.json"))
