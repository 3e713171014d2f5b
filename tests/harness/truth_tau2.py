"""Two endpoints for tau2-bench: a user that names its task, and an agent that does what the task's answer says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from servers.openai_server import Reply, calls, says

DONE = "FINISHED:"


class Task:
    """A task: what its user knows, and what is right to do and to say."""

    def __init__(self, domain: str, row: dict[str, Any]):
        self.name = f"{domain}/{row['id']}"
        told = row["user_scenario"]["instructions"]
        parts = ("reason_for_call", "known_info", "unknown_info", "task_instructions")
        self.told = [_words(told[part]) for part in parts if told.get(part)]
        criteria = row["evaluation_criteria"]
        self.actions = [(one["name"], one["arguments"]) for one in criteria["actions"] or []]
        self.say: list[str] = criteria["communicate_info"] or []


def load(data: Path, *domains: str) -> dict[str, Task]:
    """The tasks of some domains, by name, from the harness's own data."""
    rows = [(domain, row) for domain in domains for row in json.loads((data / domain / "tasks.json").read_text())]
    return {task.name: task for task in (Task(domain, row) for domain, row in rows)}


class User:
    """A script for the user's server; `at` replaces its first words in some tasks."""

    def __init__(self, tasks: dict[str, Task], at: dict[str, Reply] | None = None):
        self.tasks, self.at = tasks, at or {}

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The task's name, and the end when the agent has finished."""
        messages = body["messages"]
        if messages[-1]["content"].startswith(DONE):
            return says("###STOP###")
        prompt = _words(messages[0]["content"])
        fitting = [task for task in self.tasks.values() if all(part in prompt for part in task.told)]
        task = max(fitting, key=lambda one: sum(map(len, one.told)))
        return self.at.get(task.name) or says(f"TASK {task.name}")


class Agent:
    """A script for the agent's server; `at` replaces its first reply in some tasks."""

    def __init__(self, tasks: dict[str, Task], at: dict[str, Reply] | None = None, thinking: str = ""):
        self.tasks, self.at, self.thinking = tasks, at or {}, thinking

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The next right call, and at last what is right to say."""
        messages = body["messages"]
        name = next(one["content"] for one in messages if one["role"] == "user").removeprefix("TASK ")
        if name in self.at:
            return self.at[name]
        task, more = self.tasks[name], {"reasoning_content": self.thinking} if self.thinking else {}
        made = sum(one["role"] == "tool" for one in messages)
        if made < len(task.actions):
            return calls(task.actions[made], **more)
        return says(" | ".join([DONE, *task.say]), **more)


def junk(body: dict[str, Any], _: int) -> Reply:
    """An agent that calls what does not exist, until the conversation ends."""
    return calls(("lorem_ipsum", {}))


def _words(text: str) -> str:
    return " ".join(text.split())
