"""Hand-made dialogues for the judge's tests: short to write, nothing hidden."""

from __future__ import annotations

import json
from typing import Any

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn


def call(name: str, response: Any = None, origin: str = "recorded", **arguments: Any) -> Step:
    """A step of one call and, where given, its response (a JSON value, or text as it is)."""
    return calls((name, arguments, response), origin=origin)


def calls(*made: tuple[str, dict[str, Any], Any], origin: str = "recorded") -> Step:
    """A step of several parallel calls."""
    step = Step()
    for i, (name, arguments, response) in enumerate(made):
        step.calls.append(ToolCall(name, arguments, id=f"c{i}"))
        if response is not None:
            text = response if isinstance(response, str) else json.dumps(response)
            step.responses.append(ToolResponse(text, call_id=f"c{i}", name=name, origin=origin))
    return step


def say(text: str) -> Step:
    """A step that replies."""
    return Step(reply=text)


def talk(*turns: list[Step], tools: list[Tool] | None = None, id: str = "d") -> Dialogue:
    """A dialogue of these turns."""
    return Dialogue(id=id, turns=[Turn(f"user {t}", list(steps)) for t, steps in enumerate(turns)], tools=tools or [])
