"""Text out of JSON values: what a message says, whatever shape its content has.

`blocks` reads a content that is text, a list of typed parts, or one part; it knows the parts of every tool here, since
their names do not clash. What is no text becomes `[kind]` in the text and is said in the notes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.dialogue import ToolResponse
from cm2.formats.json_text import loads
from cm2.formats.jsonlines import encode
from cm2.imports.notes import Place
from cm2.judge.values import is_error

TEXTS = frozenset({"text", "input_text", "output_text", "summary_text", "refusal", "plain_text"})
THOUGHTS = frozenset({"thinking", "reasoning", "reasoning_text", "thought"})
HIDDEN = frozenset({"redacted_thinking", "encrypted_reasoning"})
CALLS = frozenset({"tool_use", "tool_call", "server_tool_use", "mcp_tool_use", "function_call", "tool-call"})
RESULTS = frozenset(
    {"tool_result", "tool_call_response", "mcp_tool_result", "function_call_output", "function_response", "tool-result"}
)
_MCP = frozenset({"content", "isError", "is_error", "structuredContent", "structured_content", "_meta", "meta"})


class Call(msgspec.Struct):
    """A tool call of a message: its arguments as text or as a value."""

    name: str
    arguments: Any
    id: str | None = None


class Result(msgspec.Struct):
    """What a tool answered, as the agent saw it. `failed` is what the log says beside the text."""

    text: str
    id: str | None = None
    name: str | None = None
    failed: bool = False


class Block(msgspec.Struct):
    """One part of a content: exactly one of the four is there."""

    text: str | None = None
    thought: str | None = None
    call: Call | None = None
    result: Result | None = None


def as_text(value: Any) -> str:
    """Text as it is, null as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()


def as_id(value: Any) -> str | None:
    """An id as text; None where there is none."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def as_dict(value: Any) -> dict[str, Any]:
    """An object; an empty one for everything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A list; an empty one for everything else."""
    return value if isinstance(value, list) else []


def unpacked(value: Any) -> Any:
    """JSON objects and lists that a log holds as text, as values; everything else as it is."""
    if isinstance(value, str) and value[:1].isspace():
        return _unpacked(value.strip(), value)
    return _unpacked(value, value)


def _unpacked(text: Any, value: Any) -> Any:
    if isinstance(text, str) and text[:1] in "{[" and text[-1:] in "}]" and len(text) > 1:
        try:
            found = loads(text)
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, (dict, list)) else value
    return value


def blocks(content: Any, place: Place) -> list[Block]:
    """The parts of a content in order."""
    if content is None:
        return []
    if isinstance(content, str):
        return [Block(text=content)]
    if isinstance(content, dict):
        return _block(content, place)
    if not isinstance(content, list):
        return [Block(text=as_text(content))]
    found: list[Block] = []
    for index, part in enumerate(content):
        if isinstance(part, dict):
            found += _block(part, place.at(index))
        elif isinstance(part, str):
            found.append(Block(text=part))
        elif part is not None:
            found.append(Block(text=as_text(part)))
    return found


def _block(part: dict[str, Any], place: Place) -> list[Block]:
    kind = part.get("type", part.get("kind"))
    kind = kind if isinstance(kind, str) else ("text" if "text" in part else "")
    if kind in TEXTS:
        text = next((part[key] for key in ("text", "content", "refusal") if isinstance(part.get(key), str)), None)
        rest(part, ("type", "text", "content", "refusal"), place)
        return [] if text is None else [Block(text=text)]
    if kind in THOUGHTS:
        return _thought(part, place)
    if kind in HIDDEN:
        place.unmapped("thinking that the provider hid or encrypted")
        return []
    if kind in CALLS or (kind.endswith("_tool_use") and "name" in part):
        return [Block(call=_call(part, place))]
    if kind in RESULTS or (kind.endswith("_tool_result") and "tool_use_id" in part):
        return [Block(result=_result(part, place))]
    for key, inner in part.items():  # Google's parts have no type
        if key in ("functionCall", "function_call") and isinstance(inner, dict):
            return [Block(call=_call(inner, place.at(key)))]
        if key in ("functionResponse", "function_response") and isinstance(inner, dict):
            return [Block(result=_result(inner, place.at(key)))]
    kind = kind or next(iter(part), "unknown")
    place.unmapped(f"a part of type '{kind}' is no text; the dialogue says [{kind}]")
    place.keep("", part)
    return [Block(text=f"[{kind}]")]


def _thought(part: dict[str, Any], place: Place) -> list[Block]:
    summary = part.get("summary")
    said = [as_dict(one).get("text", one) for one in as_list(summary)] or [summary]
    if part.get("redacted") is True:
        texts = said
        place.unmapped("thinking that the provider hid or encrypted")
    else:
        found = next((part[key] for key in ("thinking", "reasoning", "text", "content") if part.get(key)), None)
        inner = [as_dict(one).get("text", one) for one in found] if isinstance(found, list) else [found]
        texts = inner if any(isinstance(text, str) and text for text in inner) else said
    if part.get("signature"):
        place.left("signature")
    if isinstance(part.get("encrypted_content"), str):
        place.unmapped("thinking that the provider hid or encrypted", "encrypted_content")
    text = "\n".join(text for text in texts if isinstance(text, str) and text)
    return [Block(thought=text)] if text else []


def _call(part: dict[str, Any], place: Place) -> Call:
    given: Any = next((part[key] for key in ("input", "arguments", "args") if key in part), {})
    name = part.get("name", part.get("toolName"))
    id = next((as_id(part[key]) for key in ("call_id", "id", "tool_call_id", "toolCallId") if part.get(key)), None)
    known = ("type", "kind", "id", "call_id", "tool_call_id", "toolCallId", "name", "toolName", "input", "arguments")
    rest(part, (*known, "args", "tool_call", "index"), place)
    return Call(name if isinstance(name, str) else "", given, id)


def _result(part: dict[str, Any], place: Place) -> Result:
    ids = ("tool_use_id", "call_id", "tool_call_id", "toolCallId", "id")
    id = next((as_id(part[key]) for key in ids if part.get(key)), None)
    name = part.get("name", part.get("toolName"))
    key = next((key for key in ("content", "response", "result", "output") if key in part), "content")
    text, failed = tool_text(part.get(key), place.at(key))
    failed = failed or part.get("is_error") is True or part.get("isError") is True
    rest(part, (*ids, "type", "kind", "name", "toolName", key, "is_error", "isError"), place)
    return Result(text, id, name if isinstance(name, str) else None, failed)


def rest(part: dict[str, Any], known: tuple[str, ...], place: Place) -> None:
    """Keep the fields of a part that nobody knows."""
    for key, value in part.items():
        if key not in known:
            place.keep(key, value)


def said(found: list[Block]) -> str:
    """The texts of a content, joined by newlines."""
    return "\n".join(block.text for block in found if block.text is not None)


def tool_text(value: Any, place: Place) -> tuple[str, bool]:
    """The text that the agent saw of a tool's answer, and whether the answer says that it is an error.

    A tool result of the Model Context Protocol (`content`, `isError`, `structuredContent`) is opened, also where a
    message holds it as JSON text; a list of typed parts is joined; other values stay JSON.
    """
    inner = unpacked(value) if isinstance(value, str) and '"content"' in value else value
    if is_mcp_result(inner):
        return _mcp_text(inner, place)
    if isinstance(value, str):
        return value, False
    if isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value):
        return said(_results_as_text(value, place)), False
    return as_text(value), False


def is_mcp_result(value: Any) -> bool:
    """Whether a value is a tool result of the Model Context Protocol."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), list):
        return False
    typed = all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in value["content"])
    told = any(key in value for key in ("isError", "structuredContent", "is_error", "structured_content"))
    return typed and (told or bool(value["content"])) and _MCP.issuperset(value)


def _mcp_text(value: dict[str, Any], place: Place) -> tuple[str, bool]:
    texts = _results_as_text(value["content"], place.at("content"))
    text = said(texts)
    structured = value.get("structuredContent", value.get("structured_content"))
    if structured is not None:
        if not any(block.text for block in texts):
            text = as_text(structured)
            place.made("the structured content stands for the missing text", "structuredContent")
        elif unpacked(text) != structured:
            place.keep("structuredContent", structured)
    place.keep("_meta", value.get("_meta", value.get("meta")))
    return text, value.get("isError", value.get("is_error")) is True


def _results_as_text(parts: list[Any], place: Place) -> list[Block]:
    found: list[Block] = []
    for index, part in enumerate(parts):
        inner = as_dict(as_dict(part).get("resource"))
        if isinstance(inner.get("text"), str):
            found.append(Block(text=inner["text"]))
            place.at(index).keep("resource.uri", inner.get("uri"))
        else:
            found += [block for block in blocks(part, place.at(index)) if block.text is not None]
    return found


def error_text(result: Result, place: Place) -> str:
    """The text of a tool's answer. Where the log marks it as an error and the text itself does not look like one, it
    is written as `{"error": …}`, so that every later command sees the error."""
    if not result.failed or is_error(ToolResponse(result.text)):
        return result.text
    value = ToolResponse(result.text).value
    place.made("the log marks this answer as an error; it is written as {'error': …}")
    return encode({"error": value if value != "" else "the tool failed"}).decode()
