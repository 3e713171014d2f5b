"""Repairs: what can be put right without guessing. Each is asked for by name and recorded on the row it changed.

A repair never changes the row it was given; it builds what is different anew, so that a row that is rejected after all
can be written as it stood. The names of the repairs that changed a row stand in it under `cm2.repairs`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from cm2.curate.tools import contents_of
from cm2.errors import ConfigError
from cm2.formats.content import CLOSE, OPEN
from cm2.formats.json_text import loads
from cm2.formats.jsonlines import parse

Value = dict[str, Any]
KEY = "cm2"


def repair(row: Value, names: Iterable[str]) -> tuple[Value, list[str]]:
    """The repaired row and the names of the repairs that changed it; the same row where none did."""
    done = []
    for name in names:
        changed = REPAIRS[name](row)
        if changed is not None:
            row = changed
            done.append(name)
    if done:
        held = row.get(KEY)
        ours = held if isinstance(held, dict) else {}
        row = {**row, KEY: {**ours, "repairs": [*ours.get("repairs", []), *done]}}
    return row, done


def named(names: Iterable[str]) -> tuple[str, ...]:
    """The repairs of these names, in the order in which they are made.

    Raises:
        ConfigError: there is no such repair.
    """
    asked = set(names)
    for name in asked:
        if name not in REPAIRS:
            raise ConfigError(f"no repair '{name}'", fix=f"repairs: {', '.join(REPAIRS)}")
    return tuple(name for name in REPAIRS if name in asked)


def wrap_plain_text(row: Value) -> Value | None:
    """Tool responses that are not JSON become {"result": text}."""

    def wrap(message: Value) -> Value:
        content = message.get("content")
        if message.get("role") not in ("tool", "function") or not (isinstance(content, str) or content is None):
            return message
        try:
            loads(content or "")
        except ValueError:
            return {**message, "content": json.dumps({"result": content or ""}, ensure_ascii=False)}
        except RecursionError:
            return message
        return message

    return _each_message(row, wrap)


def move_reasoning(row: Value) -> Value | None:
    """Thinking that stands beside the content (`reasoning_content`, `reasoning`) moves into <think> tags."""

    def move(message: Value) -> Value:
        key = next((key for key in ("reasoning_content", "reasoning") if isinstance(message.get(key), str)), None)
        content = message.get("content")
        if key is None or message.get("role") != "assistant" or not (isinstance(content, str) or content is None):
            return message
        if content and (OPEN in content or CLOSE in content):
            return message
        thought = f"{OPEN}\n{message[key].strip()}\n{CLOSE}"
        rest = {name: value for name, value in message.items() if name != key}
        return {**rest, "content": f"{thought}\n\n{content}" if content else thought}

    return _each_message(row, move)


def drop_greeting(row: Value) -> Value | None:
    """Assistant messages without calls before the first user message go."""
    messages = _messages(row)
    first = next((i for i, message in enumerate(messages) if message.get("role") == "user"), 0)
    head = [
        m for m in messages[:first] if m.get("role") != "assistant" or m.get("tool_calls") or m.get("function_call")
    ]
    return {**row, "messages": head + messages[first:]} if len(head) < first else None


def cut_tail(row: Value) -> Value | None:
    """What follows the last reply goes: a dialogue that was cut short ends with the last turn that was finished."""
    messages = _messages(row)
    end = len(messages)
    while end and not _is_reply(messages[end - 1]):
        end -= 1
    return {**row, "messages": messages[:end]} if 0 < end < len(messages) else None


def _is_reply(message: Value) -> bool:
    return message.get("role") == "assistant" and not message.get("tool_calls") and not message.get("function_call")


def add_call_type(row: Value) -> Value | None:
    """Tool calls without a `type` are of type function."""

    def add(message: Value) -> Value:
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or all(not isinstance(call, dict) or "type" in call for call in calls):
            return message
        typed = [{"type": "function", **call} if isinstance(call, dict) else call for call in calls]
        return {**message, "tool_calls": typed}

    return _each_message(row, add)


def dedupe_tools(row: Value) -> Value | None:
    """Of tools with the same name and parameters the first stays."""
    if "tools" in row:
        tools = _deduped(row["tools"])
        return None if tools is None else {**row, "tools": tools}
    metadata = row.get("metadata")
    value = parse(metadata.encode(errors="surrogatepass"))[0] if isinstance(metadata, str) else metadata
    if not isinstance(value, dict):
        return None
    tools = _deduped(value.get("tools"))
    if tools is None:
        return None
    changed = {**value, "tools": tools}
    return {**row, "metadata": json.dumps(changed, ensure_ascii=False) if isinstance(metadata, str) else changed}


def _deduped(tools: Any) -> Any:
    """The tools without repetitions, as text where they were text; None where nothing is repeated."""
    value = parse(tools.encode(errors="surrogatepass"))[0] if isinstance(tools, str) else tools
    if not isinstance(value, list):
        return None
    kept: list[Any] = []
    seen: set[bytes] = set()
    for tool in value:
        function = tool.get("function") if isinstance(tool, dict) else None
        told = (
            [function.get(key) for key in ("name", "description", "parameters")] if isinstance(function, dict) else []
        )
        key = contents_of(*told)[:1] if told else []
        if key and key[0] in seen:
            continue
        seen.update(key)
        kept.append(tool)
    if len(kept) == len(value):
        return None
    return json.dumps(kept, ensure_ascii=False) if isinstance(tools, str) else kept


def _messages(row: Value) -> list[Value]:
    messages = row.get("messages")
    return messages if isinstance(messages, list) and all(isinstance(message, dict) for message in messages) else []


def _each_message(row: Value, change: Callable[[Value], Value]) -> Value | None:
    messages = _messages(row)
    changed = [change(message) for message in messages]
    same = all(new is old for new, old in zip(changed, messages, strict=True))
    return None if same else {**row, "messages": changed}


REPAIRS: dict[str, Callable[[Value], Value | None]] = {
    repairing.__name__: repairing
    for repairing in (add_call_type, move_reasoning, wrap_plain_text, drop_greeting, cut_tail, dedupe_tools)
}
"""In the order in which they are made."""
