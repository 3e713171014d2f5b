"""ToolSandbox's transcripts: `conversation.json`, which holds chat messages and, beside them, the milestones they met.

Its own history has no place for thinking, so there is none here. The user's tool (ending the conversation) is not in
it. Milestones are the benchmark's own word on why a scenario failed; they are told beside the dialogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

FILE = "conversation.json"
_KEPT = ("role", "content", "tool_calls", "tool_call_id", "name")
Message = dict[str, Any]


def transcripts(folder: Path, categories: list[str]) -> Iterator[tuple[str, str, list[Message]]]:
    """Category, scenario and messages of every scenario of one repetition."""
    for path in sorted((folder / "trajectories").glob(f"*/{FILE}")):
        yield "scenarios", path.parent.name, messages(orjson.loads(path.read_bytes()))


def messages(conversation: list[Message]) -> list[Message]:
    """A conversation as chat messages: an empty text beside calls is no reply."""
    found = []
    for one in conversation:
        made = {name: one[name] for name in _KEPT if name in one}
        if made.get("tool_calls") and not made.get("content"):
            made["content"] = None
        found.append(made)
    return found


def milestones(folder: Path, scenario: str) -> dict[str, float]:
    """How near the conversation came to each milestone, by its number; empty where nothing was told."""
    path = folder / "scenarios" / f"{scenario}.json"
    if not path.exists():
        return {}
    mapping = orjson.loads(path.read_bytes()).get("milestone_mapping") or {}
    return {number: similarity for number, (_, similarity) in mapping.items()}
