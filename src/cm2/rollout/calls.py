"""Calls: an agent's calls as they are executed and put on record, each with an id of its own."""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.dialogue import ToolCall

DEEPEST = 64
"""Levels of nested arguments; deeper ones make the call malformed, which the agent is told and may mend."""


def identified(calls: list[ToolCall], prefix: str) -> list[ToolCall]:
    """The calls, each with an id of its own: the agent's where it is the only one of that name, else ours."""
    seen: set[str] = set()
    found = []
    for index, call in enumerate(calls):
        id = call.id if call.id and call.id not in seen else f"{prefix}_{index}"
        while id in seen:  # an agent may have given another call the id that is ours
            id += "_"
        seen.add(id)
        if _too_deep(call.arguments):
            raw = call.raw or msgspec.json.encode(call.arguments).decode()
            found.append(ToolCall(call.name, None, id, raw, f"the arguments nest deeper than {DEEPEST} levels"))
        else:
            found.append(ToolCall(call.name, call.arguments, id, call.raw, call.error))
    return found


def _too_deep(value: Any, left: int = DEEPEST) -> bool:
    if isinstance(value, dict):
        return left == 0 or any(_too_deep(item, left - 1) for item in value.values())
    if isinstance(value, list):
        return left == 0 or any(_too_deep(item, left - 1) for item in value)
    return False
