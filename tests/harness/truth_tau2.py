"""Two endpoints for tau2-bench: a user that names its task, and an agent that does what the task's answer says.

In telecom the user acts too, on its own phone. A task's answer is then a row of blocks: calls of the agent, calls of
the user, and so on by turns. Both endpoints see how far they are by their own half of the conversation:

    agent: its calls … "YOUR TURN" ─▶ user: its calls … "YOUR TURN" ─▶ agent: … "FINISHED:" ─▶ user: "###STOP###"

Many tasks of telecom tell their user the same words and differ in what is broken, which no prompt shows. They are told
apart by their order: play them one at a time (`concurrency` 1).
"""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

from servers.openai_server import Reply, calls, says

DONE = "FINISHED:"
TURN = "YOUR TURN"
ACTS = ["telecom"]
"""Domains whose users have tools."""


class Task:
    """A task: what its user knows, and what is right to do and to say."""

    def __init__(self, domain: str, row: dict[str, Any]):
        self.name = f"{domain}/{row['id']}"
        scenario = row["user_scenario"]
        parts = ("reason_for_call", "known_info", "unknown_info", "task_instructions")
        told = [*(scenario["instructions"].get(part) for part in parts), scenario.get("persona")]
        self.told = tuple(_words(text) for text in told if text)
        criteria = row["evaluation_criteria"]
        made = [
            (one.get("requestor", "assistant"), (one["name"], one["arguments"])) for one in criteria["actions"] or []
        ]
        self.blocks = [(who, [call for _, call in group]) for who, group in itertools.groupby(made, lambda one: one[0])]
        self.say: list[str] = criteria["communicate_info"] or []

    def step(self, who: str, made: int, turns: int) -> tuple[str, Any] | str:
        """What somebody does next: a call, or TURN where the other one acts, or DONE where the agent has nothing left.

        Args:
            made: its calls so far.
            turns: how often the user was given the turn.
        """
        for whose, block in self.blocks:
            if whose == "user":
                if not turns:
                    return TURN
                turns -= 1
            if whose == who:
                if made < len(block):
                    return block[made]
                made -= len(block)
        return DONE if who == "assistant" else TURN


def load(data: Path, *domains: str) -> dict[str, Task]:
    """The tasks of some domains, by name, from the harness's own data and in its order."""
    found = {}
    for domain in domains:
        split = data / domain / "split_tasks.json"
        base = json.loads(split.read_text())["base"] if split.exists() else None
        for row in json.loads((data / domain / "tasks.json").read_text()):
            if base is None or row["id"] in base:
                task = Task(domain, row)
                found[task.name] = task
    return found


class User:
    """A script for the user's server; `at` replaces its first words in some tasks.

    Tasks whose users are told the same are taken in their order.
    """

    def __init__(self, tasks: dict[str, Task], at: dict[str, Reply] | None = None):
        self.tasks, self.at = tasks, at or {}
        self.begun: dict[tuple[str, ...], int] = {}
        self.lock = threading.Lock()

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The task's name, then its own calls when it is its turn, and the end when the agent has finished."""
        messages = body["messages"]
        said = [one["content"] for one in messages if one["role"] == "assistant" and one.get("content")]
        if not said:
            task = self._new(_words(messages[0]["content"]))
            return self.at.get(task.name) or says(f"TASK {task.name}")
        if messages[-1]["role"] == "user" and messages[-1]["content"].startswith(DONE):
            return says("###STOP###")
        task = self.tasks[said[0].removeprefix("TASK ")]
        made = sum(one["role"] == "tool" for one in messages)
        turns = sum(one["role"] == "user" and one["content"] == TURN for one in messages)
        step = task.step("user", made, turns)
        return says(step) if isinstance(step, str) else calls(step)

    def _new(self, prompt: str) -> Task:
        fitting = [task.told for task in self.tasks.values() if all(part in prompt for part in task.told)]
        told = max(fitting, key=lambda parts: sum(map(len, parts)))
        same = [task for task in self.tasks.values() if task.told == told]
        with self.lock:
            number = self.begun.get(told, 0)
            self.begun[told] = number + 1
        return same[number % len(same)]


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
        turns = sum(one["role"] == "assistant" and one.get("content") == TURN for one in messages)
        step = task.step("assistant", made, turns)
        if not isinstance(step, str):
            return calls(step, **more)
        return says(" | ".join([DONE, *task.say]) if step == DONE else step, **more)


def junk(body: dict[str, Any], _: int) -> Reply:
    """An agent that calls what does not exist, until the conversation ends."""
    return calls(("lorem_ipsum", {}))


def _words(text: str) -> str:
    return " ".join(text.split())
