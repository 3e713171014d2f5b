"""Two endpoints for ToolSandbox: an agent that looks something up and answers, and a user that then leaves."""

from __future__ import annotations

from typing import Any

from servers.openai_server import Reply, calls, says

ID = "chatcmpl-tool-0123456789abcdef"
"""What vLLM calls a tool call: no Python identifier."""


class Agent:
    """A script for the agent's server: calls a tool that needs no arguments where there is one, then answers.

    `at` replaces its first reply where the user's first words hold a text.
    """

    def __init__(self, at: dict[str, Reply] | None = None, thinking: str = ""):
        self.at, self.thinking = at or {}, thinking

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The next reply."""
        messages = body["messages"]
        asked = next(one["content"] for one in messages if one["role"] == "user")
        for text, reply in self.at.items():
            if text in asked:
                return reply
        more = {"reasoning_content": self.thinking} if self.thinking else {}
        free = [one["function"]["name"] for one in body["tools"] if not one["function"]["parameters"].get("required")]
        if free and messages[-1]["role"] == "user":
            made = calls((free[0], {}), **more)
            made.body["choices"][0]["message"]["tool_calls"][0]["id"] = ID
            return made
        return says("It is done.", tool_calls=[], **more)  # an empty list is what some servers send


class User:
    """A script for the user's server: leaves at once; `at` replaces the reply where its instructions hold a text."""

    def __init__(self, at: dict[str, Reply] | None = None):
        self.at = at or {}

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        """The end of the conversation."""
        told = "\n".join(one["content"] or "" for one in body["messages"])
        for text, reply in self.at.items():
            if text in told:
                return reply
        return calls(("end_conversation", {}))
