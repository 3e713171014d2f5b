"""Edited: a reference with its steps, calls or answers replaced; nothing else of it changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any as Json

import msgspec
from msgspec.structs import replace

from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.judge.values import parsed


def with_steps(dialogue: Dialogue, turn: int, steps: list[Step]) -> Dialogue:
    """The dialogue up to and with `turn`, that turn answered by other steps."""
    turns = [*dialogue.turns[:turn], Turn(dialogue.turns[turn].user, steps)]
    return replace(dialogue, turns=turns, wire=None)


def edit_calls(dialogue: Dialogue, turn: int, tool: str, edit: Callable[..., Json]) -> Dialogue:
    """The dialogue with each call of `tool` in `turn` replaced by the (call, response) pairs that `edit` gives."""
    steps = []
    for step in dialogue.turns[turn].steps:
        pairs: list[tuple[ToolCall, ToolResponse | None]] = []
        for i, call in enumerate(step.calls):
            response = step.response_to(i)
            pairs += edit(call, response) if call.name == tool else [(call, response)]
        steps.append(_paired(step, pairs))
    return with_steps(dialogue, turn, steps)


def edit_responses(
    dialogue: Dialogue, turns: range, tool: str | None, edit: Callable[[Json], Json], but: str | None = None
) -> Dialogue:
    """The dialogue with the values of the responses of `tool` (any where None, never of `but`) in `turns` replaced."""
    changed = list(dialogue.turns[: turns.stop])
    for t in turns:
        steps = []
        for step in changed[t].steps:
            pairs = []
            for i, call in enumerate(step.calls):
                response = step.response_to(i)
                if response is not None and tool in (None, call.name) and call.name != but:
                    value = edit(parsed(response.content))
                    text = value if isinstance(value, str) else _json(value)
                    response = replace(response, content=text)
                pairs.append((call, response))
            steps.append(_paired(step, pairs))
        changed[t] = Turn(changed[t].user, steps)
    return replace(dialogue, turns=changed, wire=None)


def _json(value: Json) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value)


def _paired(step: Step, pairs: list[tuple[ToolCall, ToolResponse | None]]) -> Step:
    """The step with these calls and responses, matched by fresh ids so that a copy is answered too."""
    calls = [replace(call, id=f"c{i}") for i, (call, _) in enumerate(pairs)]
    responses = [replace(response, call_id=f"c{i}") for i, (_, response) in enumerate(pairs) if response is not None]
    return replace(step, calls=calls, responses=responses, wire=None)
