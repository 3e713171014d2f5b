"""An endpoint that knows BFCL's answers: it replays the ground truth of the conversation that a request is of."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from cm2.harness.bfcl import MULTI_TURN
from servers.openai_server import Reply, calls, says

MORE = "I have updated some more functions"


class Entry:
    """A conversation: what the user says turn by turn, and the calls that are right."""

    def __init__(self, question: dict[str, Any], truth: dict[str, Any]):
        self.id: str = question["id"]
        self.users = [turn[0]["content"] if turn else MORE for turn in question["question"]]
        self.truth: list[list[str]] = truth["ground_truth"]
        self.missed = {int(turn): set(names) for turn, names in question.get("missed_function", {}).items()}

    def fits(self, users: list[str], tools: set[str]) -> bool:
        """Whether a request may be of this conversation."""
        turn = len(users) - 1
        if len(users) > len(self.users):
            return False
        for told, ours in zip(users, self.users, strict=False):
            if told != ours and not (ours == MORE and told.startswith(MORE)):
                return False
        held = set().union(*(names for at, names in self.missed.items() if at > turn), set())
        return not held & tools and all(_name(call) in tools for call in self.truth[turn])


class Truth:
    """A script for a server; `at` replaces the reply to the first request of some conversations.

    Some conversations of long_context are word for word those of base, and another answer is right: a server that is
    to know all answers of a category is told which one it is.
    """

    def __init__(self, data: Path, *categories: str, at: dict[str, Reply] | None = None, thinking: str = ""):
        self.at, self.thinking = at or {}, thinking
        self.entries = [entry for category in categories or MULTI_TURN for entry in load(data, category)]

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The right answer to a request."""
        messages, tools = body["messages"], {one["function"]["name"]: one["function"] for one in body["tools"]}
        users = [one["content"] for one in messages if one["role"] == "user"]
        fitting = [entry for entry in self.entries if entry.fits(users, set(tools))]
        for entry in fitting:
            if entry.id in self.at:
                return self.at[entry.id]
        more = {"reasoning_content": self.thinking} if self.thinking else {}
        if messages[-1]["role"] != "user" or not fitting:
            return says("Done.", **more)
        # where a function is still held back the conversation is one that holds it back
        entry = max(fitting, key=lambda one: sum(len(names) for names in one.missed.values()))
        made = [_call(text, tools) for text in entry.truth[len(users) - 1]]
        return calls(*made, **more) if made else says("I cannot do that yet.", **more)


def load(data: Path, category: str) -> list[Entry]:
    """The conversations of a category, from the harness's own data."""
    name = f"BFCL_v4_{category}.json"
    questions = [json.loads(line) for line in (data / name).read_text().splitlines()]
    truths = [json.loads(line) for line in (data / "possible_answer" / name).read_text().splitlines()]
    return [Entry(question, truth) for question, truth in zip(questions, truths, strict=True)]


def _name(call: str) -> str:
    return call.split("(")[0]


def _call(text: str, tools: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A call as Python writes it, as a tool call: positional arguments get their names from the schema."""
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    order = list(tools[node.func.id]["parameters"]["properties"])
    given = {name: ast.literal_eval(value) for name, value in zip(order, node.args, strict=False)}
    given |= {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg}
    return node.func.id, given


def junk(body: dict[str, Any], _: int) -> Reply:
    """An agent that talks and does nothing."""
    return says("Lorem ipsum.")
