"""Rows by hand: a good one in both formats, and a way to spoil it."""

from __future__ import annotations

import copy
import json
from typing import Any

TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "enum": ["Roma", "Lido"]},
                "people": {"type": "integer", "minimum": 1},
                "when": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["day"]}]},
            },
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def call(name: str = "book", arguments: Any = '{"place": "Roma"}', id: str | None = "c1") -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if id is None else {"id": id, **made}


def think(text: str) -> str:
    return f"<think>\nhm\n</think>\n\n{text}" if text else "<think>\nhm\n</think>"


def openai(**changes: Any) -> dict[str, Any]:
    """A row that passes every rule of both profiles."""
    row = {
        "id": "d1",
        "tools": [TOOL],
        "messages": [
            {"role": "system", "content": "You book tables."},
            {"role": "user", "content": "A table at Roma, please."},
            {"role": "assistant", "content": think(""), "tool_calls": [call()]},
            {"role": "tool", "tool_call_id": "c1", "content": '{"booking": "B1"}'},
            {"role": "assistant", "content": think("It is booked.")},
        ],
    }
    return {**copy.deepcopy(row), **changes}


def nemotron() -> dict[str, Any]:
    """The same row as the Nemotron data set writes it."""
    row = openai()
    for message in row["messages"]:
        message.pop("tool_call_id", None)
        message.setdefault("tool_calls", [])
    metadata = json.dumps({"tools": row["tools"]})
    return {"uuid": "u1", "category": "tool_calling", "messages": row["messages"], "metadata": metadata}


def silent() -> dict[str, Any]:
    """The same row as most agents log it: no thinking, null content beside calls, text from the tool."""
    row = openai()
    row["messages"][2]["content"] = None
    row["messages"][3]["content"] = "Booked: B1"
    row["messages"][4]["content"] = "It is booked."
    return row
