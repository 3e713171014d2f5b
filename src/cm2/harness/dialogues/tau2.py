"""tau2-bench's transcripts: a simulation's messages as the agent saw them.

The simulated user has tools of its own in telecom (its phone). The agent sees neither these calls nor their answers,
only what the user says of them, so they are no part of the dialogue. Thinking stands in `raw_data.kept`, under the name
under which the server gave it, or in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cm2.dialogue import ToolResponse
from cm2.judge.values import is_error

ENDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""What the simulated user writes to end a conversation; nobody answers it."""
Message = dict[str, Any]


def transcripts(folder: Path, categories: list[str]) -> Iterator[tuple[str, str, list[Message]]]:
    """Domain, task and messages of every simulation of one repetition; none where it was lost before its end."""
    for domain in categories:
        for path in sorted((folder / "simulations" / domain).glob("*.json")):
            row = orjson.loads(path.read_bytes())
            yield domain, row["task"], messages(row["simulation"]) if row["simulation"] else []


def messages(simulation: dict[str, Any]) -> list[Message]:
    """A simulation as chat messages, without the user's own calls and without the mark that ends it."""
    found: list[Message] = []
    for one in _flat(simulation["messages"]):
        if one["role"] == "assistant":
            found.append(_answer(one))
        elif one["role"] == "tool" and one.get("requestor", "assistant") == "assistant":
            found.append({"role": "tool", "tool_call_id": one["id"], "content": _told(one)})
        elif one["role"] == "user" and one.get("content") and not any(end in one["content"] for end in ENDS):
            found.append({"role": "user", "content": one["content"]})
    return found


def _flat(messages: list[Message]) -> Iterator[Message]:
    for one in messages:
        yield from one.get("tool_messages") or [one]


def _told(one: Message) -> str:
    """A tool's answer. One that is marked as an error and does not look like one (several lines, say) is written so."""
    text: str = one.get("content") or ""
    if one.get("error") and not is_error(ToolResponse(text)):
        return orjson.dumps({"error": text}).decode()
    return text


def _answer(one: Message) -> Message:
    kept = (one.get("raw_data") or {}).get("kept") or {}
    made: Message = {"role": "assistant", "content": kept.get("content") or one.get("content")}
    made |= {name: kept[name] for name in ("reasoning_content", "reasoning") if kept.get(name)}
    if one.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": orjson.dumps(call["arguments"]).decode()},
            }
            for call in one["tool_calls"]
        ]
    return made
