"""Chat messages and rows, written out as logs have them."""

from __future__ import annotations

import json

TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "Find.", "parameters": {"type": "object", "properties": {}}},
}


def user(content="Find it.", **more) -> dict:
    return {"role": "user", "content": content, **more}


def say(content="Here it is.", **more) -> dict:
    return {"role": "assistant", "content": content, **more}


def wanted(id="c0", arguments='{"q": "x"}', name="find") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def ask(*calls, content=None, **more) -> dict:
    return {"role": "assistant", "content": content, "tool_calls": list(calls or [wanted()]), **more}


def answer(content='{"id": 7}', id="c0", **more) -> dict:
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


def row(*messages, **more) -> dict:
    return {"id": "d", "source": "test", "tools": [TOOL], "messages": list(messages), **more}


def nemotron(*messages, **more) -> dict:
    return {
        "uuid": "d",
        "license": "CC BY 4.0",
        "generator": "someone",
        "version": "v1",
        "category": "tool_calling",
        "reasoning": "on",
        "messages": list(messages),
        "metadata": json.dumps({"tools": [TOOL]}),
        **more,
    }
