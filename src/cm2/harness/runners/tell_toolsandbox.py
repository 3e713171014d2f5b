"""Tells what ToolSandbox's scenarios are: the tools as the agent is shown them, scrambled where the variant says so.

There are no right calls to tell: a scenario has milestones (states of its databases, rows of its log) and no answer
that reaches them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from cm2_shared import settings
from tool_sandbox.cli import utils
from tool_sandbox.common.execution_context import RoleType, new_context
from tool_sandbox.common.tool_conversion import convert_to_openai_tools
from tool_sandbox.roles.base_role import BaseRole


class Agent(BaseRole):
    """Whoever is shown the tools."""

    role_type = RoleType.AGENT


def main() -> None:
    """One line a scenario, into told.jsonl."""
    given = settings()
    random.seed(42)  # as its command line does: the order of tools is drawn while scenarios are made
    wanted = {name for names in given["tasks"].values() for name in names or []}
    with open(Path.cwd() / "told.jsonl", "w", encoding="utf-8") as out:
        for name, scenario in utils.resolve_scenarios(None, "DEFAULT").items():
            if not wanted or name in wanted:
                out.write(json.dumps(one(name, scenario)) + "\n")


def one(name: str, scenario: Any) -> dict[str, Any]:
    """A scenario."""
    with new_context(scenario.starting_context):
        tools = convert_to_openai_tools(Agent.get_available_tools())
    return {"category": "scenarios", "task": name, "tools": tools, "system": None, "turns": []}


if __name__ == "__main__":
    main()
