"""Tells what tau2-bench's tasks are: policy, tools, what the user wants, and the right actions with their answers.

The right actions are run on the domain's own environment, in their order, those of the user's own tools too (they
change the world that the agent's look-ups read); each is told with its answer. A world is made anew only after it was
changed: reading its database takes longer than everything else here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dotenv
from cm2_shared import settings

dotenv.load_dotenv = lambda *_, **__: False


def main() -> None:
    """One line a task, into told.jsonl."""
    given = settings()
    from loguru import logger
    from tau2.registry import registry
    from tau2.run import get_tasks

    logger.remove()
    with open(Path.cwd() / "told.jsonl", "w", encoding="utf-8") as out:
        for domain in given["categories"]:
            wanted, world = set(given["tasks"].get(domain) or []), None
            for task in get_tasks(domain, "base"):
                if not wanted or task.id in wanted:
                    world = world or registry.get_env_constructor(domain)()
                    told = one(domain, task, world)
                    out.write(json.dumps(told) + "\n")
                    if task.initial_state or any(call["changed"] for turn in told["turns"] for call in turn["calls"]):
                        world = None


def one(domain: str, task: Any, world: Any) -> dict[str, Any]:
    """A task; `world` is in the domain's first state."""
    from tau2.agent.llm_agent import LLMAgent

    if start := task.initial_state:
        world.set_state(
            initialization_data=start.initialization_data,
            initialization_actions=start.initialization_actions,
            message_history=start.message_history or [],
        )
    tools = world.get_tools()
    criteria = task.evaluation_criteria
    return {
        "category": domain,
        "task": task.id,
        "tools": [tool.openai_schema for tool in tools],
        "system": LLMAgent(tools=tools, domain_policy=world.get_policy(), llm="none").system_prompt,
        "writes": may_write(world),
        "turns": [
            {"user": scenario(task), "calls": [run(world, action) for action in (criteria and criteria.actions) or []]}
        ],
        "told": list((criteria and criteria.communicate_info) or []),
        "basis": [basis.value for basis in (criteria.reward_basis if criteria else [])],
        "assertions": [one.model_dump(mode="json") for one in (criteria and criteria.env_assertions) or []],
    }


def scenario(task: Any) -> str:
    """What the user was told to want."""
    return str(task.user_scenario.instructions)


def run(world: Any, action: Any) -> dict[str, Any]:
    """A right action, its answer, and whether it changed a database."""
    told = {"name": action.name, "arguments": action.arguments, "by": action.requestor, "failed": False}
    try:
        made = world.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
        told["answer"] = world.to_json_str(made)
        world.sync_tools()
    except Exception as error:  # the grader goes on too
        told |= {"answer": f"Error: {error}", "failed": True}
    user = action.requestor != "assistant"
    told["changed"] = not told["failed"] and (user or action.name in may_write(world))
    return told


def may_write(world: Any) -> list[str]:
    """The agent's tools that the domain marks as writing."""
    from tau2.environment.toolkit import ToolType

    return [tool.name for tool in world.get_tools() if world.tools.tool_type(tool.name) == ToolType.WRITE]


if __name__ == "__main__":
    main()
