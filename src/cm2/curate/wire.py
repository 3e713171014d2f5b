"""A row decoded to what the rules look at, and nothing else: messages and calls as typed objects, tools as JSON text.

Most lines decode straight into `Data`, types checked on the way. A line that does not is decoded as plain JSON, and
`from_object` finds what the types refused: content in parts, arguments without a type, or no dialogue at all.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import msgspec

from cm2.curate.finding import Findings
from cm2.formats.content import are_parts
from cm2.formats.jsonlines import encode
from cm2.formats.rows import parse_object
from cm2.formats.tasks import detect_format
from cm2.formats.wire import CHECKLISTS, named

Id = str | int | float | None
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Function(msgspec.Struct, gc=False):
    """What is called. `arguments` is JSON text, or the value itself."""

    name: str
    arguments: Any = None


class ToolCall(msgspec.Struct, gc=False):
    """A call as the row has it."""

    function: Function
    type: Literal["function"]
    id: str | int | None = None


class Message(msgspec.Struct, gc=False):
    """A message as the row has it; parts of content are joined to text."""

    role: Role
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | int | None = None
    function_call: Function | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class Data(msgspec.Struct):
    """A row. `tools`, `metadata` and `checklists` are JSON text, empty where the row has none."""

    messages: list[Message]
    tools: msgspec.Raw | bytes = b""
    metadata: msgspec.Raw | bytes = b""
    id: Id = None
    uuid: Id = None
    checklists: msgspec.Raw | bytes = b""


class _Line(Data):
    tools: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    checklists: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Line).decode
_LONGEST_NUMBER = 4300
"""Digits of a whole number that Python reads."""
_SAMPLE = 1024
_SAMPLED_DIGITS = re.compile(rb"[0-9]{%d}" % (_LONGEST_NUMBER // _SAMPLE))
_TOO_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % (_LONGEST_NUMBER + 1))


def parse_data(line: bytes) -> tuple[Data | dict[str, Any] | None, str | None]:
    """A line as `Data`, else as a plain object; or None and why it is neither."""
    try:
        data = _decode(line)
        if not line.isascii():
            line.decode()  # what the decoder skips it does not look into
        if len(line) > _LONGEST_NUMBER and _SAMPLED_DIGITS.search(line[::_SAMPLE]) and _TOO_MANY_DIGITS.search(line):
            return parse_object(line)  # nor does it see that a number there is too long for any reader
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return parse_object(line)
    return data, None


def from_object(row: dict[str, Any], found: Findings) -> Data | None:
    """The same from a plain object, or None where `found` says why it is no dialogue."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        text = "the row has no 'messages'" if "messages" not in row else "'messages' is not a list"
        found.reject("structure", text, "messages")
        return None
    read = [_message(message, f"messages[{index}]", found) for index, message in enumerate(messages)]
    id, uuid = _id(row, "id", "openai", found), _id(row, "uuid", "nemotron", found)
    try:
        tools = encode(row["tools"]) if "tools" in row else b""
        metadata = encode(row["metadata"]) if row.get("metadata") is not None else b""
        checklists = encode(row[CHECKLISTS]) if row.get(CHECKLISTS) is not None else b""
    except RecursionError:
        found.reject("limit", "the tools are nested too deeply", "tools")
        return None
    kept = [message for message in read if message is not None]
    return None if found.violations else Data(kept, tools, metadata, id, uuid, checklists)


def _id(row: dict[str, Any], key: str, format: str, found: Findings) -> Id:
    """What stands under a key for ids. In a row of the other format it is no id, and anything may stand there."""
    id = row.get(key)
    if id is None or (isinstance(id, (str, int, float)) and not isinstance(id, bool)):
        return id
    if detect_format(row) == format:
        found.reject("structure", f"the id is {named(id)}; expected text or a number", key)
    return None


def _message(message: Any, path: str, found: Findings) -> Message | None:
    if not isinstance(message, dict):
        found.reject("structure", "the message is not an object", path)
        return None
    role = message.get("role")
    if not isinstance(role, str):
        found.reject("structure", "the role is not text" if "role" in message else "no role", path)
        return None
    content = message.get("content")
    if not isinstance(content, str) and content is not None:
        content = _content(content, role in ("tool", "function"), f"{path}.content", found)
    read = Message(cast(Role, role), content, _calls(message.get("tool_calls"), f"{path}.tool_calls", found))
    id = message.get("tool_call_id")
    read.tool_call_id = id if isinstance(id, (str, int)) else None
    if message.get("function_call") is not None:
        read.function_call = _function(message["function_call"], f"{path}.function_call", found)
    read.reasoning_content, read.reasoning = message.get("reasoning_content"), message.get("reasoning")
    return read


def _content(content: Any, tool: bool, path: str, found: Findings) -> str | None:
    parts = content if isinstance(content, list) else []
    if tool and (isinstance(content, dict) or (isinstance(content, list) and not are_parts(content))):
        return encode(content).decode()  # the tool's JSON answer, not yet turned to text
    if not isinstance(content, list):
        found.reject("structure", "the content is neither text, a list of parts nor null", path)
        return None
    texts = []
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        elif isinstance(part, dict):
            kind = part.get("type", "unknown")
            found.flag("non_text_content", f"a part of type '{kind}' is not text", f"{path}[{index}]")
            texts.append(f"[{kind}]")
        else:
            found.reject("structure", "the content part is neither text nor an object", f"{path}[{index}]")
    return "\n".join(texts)


def _calls(calls: Any, path: str, found: Findings) -> list[ToolCall] | None:
    if not calls:
        return None
    if not isinstance(calls, list):
        found.reject("structure", "'tool_calls' is not a list", path)
        return None
    read = []
    for index, call in enumerate(calls):
        function = _function(call.get("function") if isinstance(call, dict) else call, f"{path}[{index}]", found)
        if function is None:
            continue
        if not isinstance(call.get("type"), str):
            found.reject("structure", "the tool call has no 'type'", f"{path}[{index}]")
        id = call.get("id")
        read.append(ToolCall(function, "function", id if isinstance(id, (str, int)) else None))
    return read


def _function(function: Any, path: str, found: Findings) -> Function | None:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        found.reject("structure", "the call has no function with a name", path)
        return None
    return Function(name, function.get("arguments"))
