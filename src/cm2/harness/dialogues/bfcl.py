"""BFCL's transcripts: what the harness logged of a conversation, as chat messages.

`inference_log` has, for each turn, the user's words and the steps: what the model answered, what the handler made of it
and what the back ends said. Calls have no ids there; they get some. A last answer without calls and without text stands
where the harness's handler did not log the text: a mark says so, since the agent did end its turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cm2.harness.bfcl import _file

FAILED = "Error during execution:"
"""How the back ends' answer begins where a call failed."""
NOT_LOGGED = "[an answer without calls, whose text was not logged]"
_STEP = re.compile(r"step_\d+")
Message = dict[str, Any]


def transcripts(folder: Path, categories: list[str]) -> Iterator[tuple[str, str, list[Message]]]:
    """Category, task and messages of every conversation of one repetition."""
    for category in categories:
        with open(_file(folder, "result", category), "rb") as file:
            for line in file:
                answer = orjson.loads(line)
                yield category, answer["id"], messages(answer)


def messages(answer: dict[str, Any]) -> list[Message]:
    """A line of a result file as chat messages; without any where the conversation broke down at once."""
    found: list[Message] = []
    for number, turn in enumerate(one for one in answer.get("inference_log") or [] if isinstance(one, dict)):
        said = [one for one in turn.get("begin_of_turn_query") or [] if one.get("role") in ("user", "system")]
        found += [{"role": one["role"], "content": one["content"]} for one in said]
        for name in turn:
            if _STEP.fullmatch(name):
                found += _step(turn[name], f"{number}-{name[5:]}")
    return found


def _step(log: list[Message], name: str) -> list[Message]:
    """One answer of the agent and what the back ends said."""
    found: list[Message] = []
    for one in log:
        if one.get("role") == "assistant":
            found.append(_answer(one, name))
    calls = [call for message in found for call in message.get("tool_calls", [])]
    told = [one["content"] for one in log if one.get("role") == "tool"]
    for call, content in zip(calls, told, strict=False):
        text = content if isinstance(content, str) else orjson.dumps(content).decode()
        found.append({"role": "tool", "tool_call_id": call["id"], "content": as_error(text)})
    return found


def as_error(text: str) -> str:
    """An answer in a form in which everything that reads it sees that the call failed, where it did."""
    return orjson.dumps({"error": text}).decode() if text.startswith(FAILED) else text


def _answer(one: Message, name: str) -> Message:
    content = one.get("content")
    made: Message = {"role": "assistant", "content": None}
    if calls := _calls(content):
        made["tool_calls"] = [
            {"id": f"call-{name}-{number}", "type": "function", "function": {"name": called, "arguments": given}}
            for number, (called, given) in enumerate(calls)
        ]
    else:
        made["content"] = content if isinstance(content, str) and content else NOT_LOGGED
    if one.get("reasoning_content"):
        made["reasoning_content"] = one["reasoning_content"]
    return made


def _calls(content: Any) -> list[tuple[str, str]]:
    """The calls of an answer, with the text of their arguments; none where it is no list of them."""
    if not isinstance(content, list) or not all(isinstance(call, dict) for call in content):
        return []
    return [
        (name, given if isinstance(given, str) else orjson.dumps(given).decode())
        for call in content
        for name, given in call.items()
    ]
