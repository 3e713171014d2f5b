"""LangChain: its messages as chat messages, in the three ways in which they are stored.

`{"lc": 1, "type": "constructor", "id": […, "HumanMessage"], "kwargs": {…}}` (serialized), `{"type": "human", "data":
{…}}` (a stored history) and `{"type": "human", "content": …}` (a dumped model).
"""

from __future__ import annotations

from typing import Any

from cm2.imports.notes import Place
from cm2.imports.text import as_dict, as_list

_TYPES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "function",
    "developer": "developer",
    "remove": "remove",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "FunctionMessage": "function",
    "RemoveMessage": "remove",
}
_NOISE = ("response_metadata", "usage_metadata")


def is_langchain(value: dict[str, Any]) -> bool:
    """Whether an object is a message of LangChain."""
    if value.get("lc") == 1 and "kwargs" in value:
        return _named(value) is not None
    return "role" not in value and _kind(value.get("type")) is not None and ("content" in value or "data" in value)


def _kind(kind: Any) -> str | None:
    if not isinstance(kind, str):
        return None
    return _TYPES.get(kind.removesuffix("Chunk")) or ("chat" if kind.removesuffix("Chunk") in _CHAT else None)


_CHAT = ("chat", "ChatMessage")


def _named(value: dict[str, Any]) -> str | None:
    path = as_list(value.get("id"))
    return _kind(path[-1] if path else None) or _kind(as_dict(value.get("kwargs")).get("type"))


def unwrapped(value: dict[str, Any], place: Place) -> dict[str, Any]:
    """The same message with `role` and the fields of a chat message at its top."""
    if value.get("lc") == 1:
        kind, inner = _named(value), as_dict(value.get("kwargs"))
    elif isinstance(value.get("data"), dict):
        kind, inner = _kind(value.get("type")), value["data"]
    else:
        kind, inner = _kind(value.get("type")), value
    role = inner.get("role") if kind == "chat" else kind
    for name in _NOISE:
        if inner.get(name):
            place.left(name)
    place.keep("artifact", inner.get("artifact"))
    more = as_dict(inner.get("additional_kwargs"))
    for name, one in more.items():
        if name not in ("tool_calls", "function_call", "reasoning_content", "refusal", "parsed"):
            place.keep(f"additional_kwargs.{name}", one)
    taken = ("content", "tool_calls", "tool_call_id", "name", "status", "invalid_tool_calls", "additional_kwargs", "id")
    message = {key: inner[key] for key in taken if inner.get(key) is not None}
    if role == "assistant" and not message.get("content") and isinstance(more.get("refusal"), str):
        message["refusal"] = more["refusal"]
    return {**message, "role": role}
