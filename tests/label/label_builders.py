"""Hand-made references for the labeller's tests: what the user said, what was called, what was replied."""

from __future__ import annotations

import json
from typing import Any

from cm2.checklist import Checklist, Item
from cm2.credit import satisfied
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.judge import ChecksJudge
from cm2.label.reference import Labelled, ReferenceLabeler


def call(name: str, response: Any = None, /, **arguments: Any) -> Step:
    """A step of one call and its response (a JSON value, or text as it is)."""
    return calls((name, arguments, response))


def calls(*made: tuple[str, dict[str, Any], Any]) -> Step:
    """A step of several parallel calls."""
    step = Step()
    for i, (name, arguments, response) in enumerate(made):
        step.calls.append(ToolCall(name, arguments, id=f"c{i}"))
        if response is not None:
            text = response if isinstance(response, str) else json.dumps(response)
            step.responses.append(ToolResponse(text, call_id=f"c{i}", name=name))
    return step


def say(text: str) -> Step:
    """A step that replies."""
    return Step(reply=text)


def talk(*turns: tuple[str, list[Step]], tools: list[Tool], system: str | None = None, id: str = "d") -> Dialogue:
    """A dialogue of (user message, steps) turns."""
    return Dialogue(id=id, turns=[Turn(user, list(steps)) for user, steps in turns], tools=tools, system=system)


def tool(name: str, required: tuple[str, ...] = (), /, **properties: Any) -> Tool:
    """A tool; a property is a JSON type or a whole schema."""
    schemas = {key: {"type": kind} if isinstance(kind, str) else kind for key, kind in properties.items()}
    return Tool(name, "", {"type": "object", "properties": schemas, "required": list(required)})


def label(dialogue: Dialogue) -> Labelled:
    """The dialogue, labelled."""
    return ReferenceLabeler().label(dialogue)


def checklist(dialogue: Dialogue, turn: int = 0) -> Checklist:
    """The checklist of one turn of the labelled dialogue; empty where it has none."""
    return label(dialogue).task.checklist(turn) or Checklist(turn, [])


def items(dialogue: Dialogue, kind: str, turn: int = 0) -> list[Item]:
    """The items of one kind."""
    return [item for item in checklist(dialogue, turn).items if item.kind == kind]


def failing(reference: Checklist, run: Dialogue, turn: int = 0) -> set[str]:
    """The kinds of the reference's items that another run of the dialogue does not satisfy."""
    verdicts = ChecksJudge().judge(run, turn, reference)
    state = satisfied(reference, verdicts)
    assert None not in state.values()
    return {item.kind for item in reference.items if not state[item.id]}
