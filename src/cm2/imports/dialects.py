"""Dialects: how one message is written by each provider and library, read into a `Talk`.

A list of messages may mix dialects (a tracer keeps what it was given), so each message tells its own:

- chat: `role` and `content` (OpenAI, Inspect, tau2, Ollama); Anthropic's has typed blocks as content
- items of OpenAI's Responses: a `type` and no role
- parts: `role` and `parts` (OpenTelemetry GenAI)
- LangChain: serialized (`lc`, `kwargs`), stored (`type`, `data`) or bare (`type: human`)
- ShareGPT: `from` and `value`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm2.errors import DataError
from cm2.imports.fields import names
from cm2.imports.items import is_item, read_item
from cm2.imports.langchain import is_langchain, unwrapped
from cm2.imports.notes import Place
from cm2.imports.sharegpt import ROLES as SHAREGPT_ROLES
from cm2.imports.sharegpt import is_sharegpt, read_sharegpt
from cm2.imports.talk import Talk
from cm2.imports.text import Block, Call, Result, as_dict, as_id, as_list, as_text, blocks, said, tool_text, unpacked

_USER, _ASSISTANT, _TOOL = "user", "assistant", "tool"
ROLES = {
    **dict.fromkeys(("user", "human", "customer", "client"), _USER),
    **dict.fromkeys(("assistant", "ai", "model", "gpt", "bot", "chatbot", "agent"), _ASSISTANT),
    **dict.fromkeys(("tool", "function", "ipython", "observation", "tool_result", "environment"), _TOOL),
    "system": "system",
    "developer": "developer",
}
_KNOWN = names("message", "taken")
_BOOKKEEPING = names("message", "left")


def read_messages(values: Any, talk: Talk, place: Place) -> None:
    """A list of messages in any dialect into `talk`.

    Raises:
        DataError: one of them is no message.
    """
    if not isinstance(values, list):
        raise DataError(f"the messages at {place.path or 'the top'} are no list")
    for index, value in enumerate(values):
        read_message(value, talk, place.at(index))


def is_message(value: Any) -> bool:
    """Whether a value is a message in one of the dialects."""
    if not isinstance(value, dict):
        return False
    if _role(value) is not None and not _CONTENTS.isdisjoint(value):
        return True
    return is_langchain(value) or is_item(value) or is_sharegpt(value)


_CONTENTS = frozenset({"content", "parts", "tool_calls", "function_call", "tool_messages", "refusal", "output_text"})


def are_messages(value: Any) -> bool:
    """Whether a value is a list of messages, told by the first; reading them tells of a broken one."""
    return isinstance(value, list) and bool(value) and is_message(value[0])


def read_message(value: Any, talk: Talk, place: Place) -> None:
    """One message in any dialect.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, str):
        value = unpacked(value)
    if not isinstance(value, dict):
        raise DataError(f"the message at {place.path} is no object")
    if is_langchain(value):
        value = unwrapped(value, place)
    elif is_sharegpt(value):
        return read_sharegpt(value, talk, place)
    elif is_item(value):
        return read_item(value, talk, place)
    role = _role(value)
    if role is None:
        if value.get("role") == "remove":
            return place.unmapped("a message that removes others says nothing")
        told = f"has the role {value['role']!r}" if "role" in value else "has no role"
        raise DataError(f"the message at {place.path} {told}; known are {', '.join(ROLES)}")
    if not _KNOWN.issuperset(value):
        for key, one in value.items():
            if key in _BOOKKEEPING:
                if one not in (None, "", [], {}):
                    place.left(key)
            elif key not in _KNOWN:
                place.keep(key, one)
    _BY_ROLE[role](value, talk, place)


def _role(value: dict[str, Any]) -> str | None:
    role = value.get("role")
    return ROLES.get(role.lower()) if isinstance(role, str) else None


def _parts(value: dict[str, Any], place: Place) -> list[Block]:
    if isinstance(value.get("parts"), list):
        return blocks(value["parts"], place.at("parts"))
    return blocks(value.get("content"), place.at("content"))


def _system(value: dict[str, Any], talk: Talk, place: Place) -> None:
    talk.say(ROLES[value["role"].lower()], said(_parts(value, place)), **_named(value))


def _named(value: dict[str, Any]) -> dict[str, Any]:
    name = value.get("name")
    return {"name": name} if isinstance(name, str) and name else {}


def _user(value: dict[str, Any], talk: Talk, place: Place) -> None:
    """A person's message. Anthropic puts the tools' answers into it: they come first, the text after them."""
    found = _parts(value, place)
    results = [block.result for block in found if block.result is not None]
    for result in results:
        talk.answer(result, place)
    texts = [block for block in found if block.text is not None]
    for block in found:
        if block.call is not None:
            place.unmapped("a call in a message of the user")
    for call in as_list(value.get("tool_calls")):
        place.unmapped(f"the user called a tool of its own: {as_text(call)[:200]}", "tool_calls")
    if texts or not results:
        if not texts and as_list(value.get("tool_calls")):
            return
        talk.say(_USER, said(texts), **_named(value))


def _assistant(value: dict[str, Any], talk: Talk, place: Place) -> None:
    found = _thinking(value, place) + _parts(value, place)
    if not any(block.text for block in found):
        refusal = value.get("refusal", value.get("output_text"))
        if isinstance(refusal, str) and refusal:
            found.append(Block(text=refusal))
    seen = [block.call.id for block in found if block.call is not None]
    calls = unpacked(value.get("tool_calls"))
    if not calls:
        more = as_dict(value.get("additional_kwargs"))
        calls = more.get("tool_calls")
        if value.get("function_call") is None and more.get("function_call") is not None:
            value = {**value, "function_call": more["function_call"]}
    if isinstance(calls, dict):
        calls = [calls]
    for index, one in enumerate(as_list(calls) + as_list(value.get("invalid_tool_calls"))):
        call = read_call(one, place.at("tool_calls").at(index))
        if call.id is None or call.id not in seen:
            found.append(Block(call=call))
    function = unpacked(value.get("function_call"))
    if isinstance(function, dict) and function:
        found.append(Block(call=read_call(function, place.at("function_call"))))
    content = value.get("content")
    if isinstance(content, str) and not content and any(b.call or b.thought for b in found):
        found = [block for block in found if block.text != ""]
    talk.act(found, place, **_named(value))


def _thinking(value: dict[str, Any], place: Place) -> list[Block]:
    more = as_dict(value.get("additional_kwargs"))
    for key in ("reasoning_content", "reasoning", "thinking"):
        text = value.get(key, more.get(key))
        if isinstance(text, str) and text:
            return [Block(thought=text)]
        if isinstance(text, dict):
            return blocks({"type": "reasoning", **text}, place.at(key))
    return []


def read_call(value: Any, place: Place) -> Call:
    """A call of a message: `function` with name and arguments, its name alone (Inspect), or both at the top (tau2,
    LangChain)."""
    value = unpacked(value)
    if not isinstance(value, dict):
        raise DataError(f"the call at {place.path} is no object")
    id = as_id(value.get("id", value.get("tool_call_id")))
    function = value.get("function")
    if isinstance(function, dict):
        name, given = function.get("name"), function.get("arguments", {})
    elif isinstance(value.get("custom"), dict):
        name, given = value["custom"].get("name"), {"input": value["custom"].get("input")}
        place.made("the text of a custom tool call is written as its argument 'input'")
    else:
        name = function if isinstance(function, str) else value.get("name", value.get("tool_name"))
        given = next((value[key] for key in ("arguments", "args", "parameters", "input") if key in value), {})
    if isinstance(value.get("parse_error"), str):
        place.unmapped(f"the log could not parse this call: {value['parse_error'][:200]}")
        raw = as_dict(given).get("raw")
        given = raw if isinstance(raw, str) and len(given) == 1 else given
    if not isinstance(name, str):
        raise DataError(f"the call at {place.path} has no name")
    return Call(name, given, id)


def _tool(value: dict[str, Any], talk: Talk, place: Place) -> None:
    if isinstance(value.get("tool_messages"), list):  # tau2: several answers in one message
        return read_messages(value["tool_messages"], talk, place.at("tool_messages"))
    if value.get("requestor") == "user":
        return place.unmapped(f"a tool of the user's own answered: {as_text(value.get('content'))[:200]}")
    names = (value.get("name"), value.get("tool_name"), value.get("toolName"), value.get("function"))
    name = next((one for one in names if isinstance(one, str) and one), None)
    id = as_id(value.get("tool_call_id", value.get("tool_use_id")))
    if id is None and "requestor" in value:
        id = as_id(value.get("id"))  # tau2 names the call so
    parts = value.get("parts")
    if isinstance(parts, list):
        for block in blocks(parts, place.at("parts")):
            result = block.result or (Result(block.text, id) if block.text is not None else None)
            if result is not None:
                talk.answer(result, place)
        return
    found = blocks(value["content"], place.at("content")) if _has_results(value.get("content")) else []
    if found:
        for block in found:
            if block.result is not None:
                talk.answer(block.result, place)
        return
    text, failed = tool_text(value.get("content"), place.at("content"))
    error = value.get("error")
    if isinstance(error, dict) and error:
        text, failed = text or as_text(error.get("message", error)), True
    elif isinstance(error, str) and error:
        text, failed = text or error, True
    failed = failed or error is True or value.get("is_error") is True or value.get("isError") is True
    failed = failed or value.get("status") == "error"
    talk.answer(Result(text, id, name, failed), place)


def _has_results(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") in ("tool_result", "tool-result") for part in content
    )


_BY_ROLE: dict[str, Callable[[dict[str, Any], Talk, Place], None]] = {
    "system": _system,
    "developer": _system,
    _USER: _user,
    _ASSISTANT: _assistant,
    _TOOL: _tool,
}
assert set(SHAREGPT_ROLES.values()) <= {*_BY_ROLE, "call"}
