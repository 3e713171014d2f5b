"""Items: what OpenAI's Responses API takes and gives, one thing an item.

One action of the agent is several items (a reasoning item, calls, a message); they join into one message. Tools that
the provider runs itself (web search, code, MCP servers) are calls with their answers, since the agent chose them.
"""

from __future__ import annotations

from typing import Any

from cm2.imports.fields import names
from cm2.imports.notes import Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.imports.text import Block, Call, Result, as_dict, as_id, as_list, as_text, blocks, rest, said, tool_text

_HOSTED = {  # what the arguments and the answer of a hosted call stand in
    "web_search_call": (("action",), ("results",)),
    "file_search_call": (("queries",), ("results",)),
    "code_interpreter_call": (("code",), ("outputs",)),
    "computer_call": (("action", "actions"), ()),
    "local_shell_call": (("action",), ()),
    "shell_call": (("action",), ()),
    "apply_patch_call": (("operation",), ()),
    "image_generation_call": (("revised_prompt",), ()),
    "tool_search_call": (("arguments",), ()),
}
_ANSWERS = names("item", "answers")
_SPOKEN = names("item", "spoken")
_ASIDE = names("item", "aside")
_ANSWERED_LATER = names("item", "answered_later")
_ROLES = {"user": "user", "system": "system", "developer": "developer"}


def is_item(value: dict[str, Any]) -> bool:
    """Whether an object is an item of a response: a known type, and no role unless it is a message of that type."""
    kind = value.get("type")
    if not isinstance(kind, str):
        return False
    if kind == "message":
        return isinstance(value.get("role"), str) and "content" in value
    return "role" not in value and (kind in _SPOKEN or kind in _HOSTED or kind in _ANSWERS or kind in _ASIDE)


def read_item(value: dict[str, Any], talk: Talk, place: Place) -> None:
    """One item into `talk`."""
    kind = value["type"]
    if kind == "message":
        _message(value, talk, place)
    elif kind == "reasoning":
        talk.act(blocks(value, place), place, join=True)
        rest(value, ("type", "id", "summary", "content", "encrypted_content", "status"), place)
    elif kind in ("function_call", "custom_tool_call"):
        _call(value, kind, talk, place)
    elif kind in _ANSWERS:
        text, failed = tool_text(value.get("output"), place.at("output"))
        talk.answer(Result(text, as_id(value.get("call_id")), failed=failed), place)
        rest(value, ("type", "id", "output", "call_id", "status"), place)
    elif kind == "mcp_call":
        _mcp(value, talk, place)
    elif kind in _HOSTED:
        _hosted(value, kind, talk, place)
    elif kind == "mcp_list_tools":
        talk.offer(read_tools(value.get("tools"), place.at("tools")))
    else:
        place.unmapped(f"an item of type '{kind}' is no message")
        place.keep("", value)


def _message(value: dict[str, Any], talk: Talk, place: Place) -> None:
    found = blocks(value.get("content"), place.at("content"))
    role = value["role"]
    if role in _ROLES:
        talk.say(_ROLES[role], said(found))
    else:
        talk.act(found, place, join=True)
    rest(value, ("type", "id", "role", "content", "status"), place)


def _call(value: dict[str, Any], kind: str, talk: Talk, place: Place) -> None:
    given = value.get("arguments", {})
    if kind == "custom_tool_call":
        given = {"input": value.get("input")}
        place.made("the text of a custom tool call is written as its argument 'input'")
    name = value.get("name")
    call = Call(name if isinstance(name, str) else "", given, as_id(value.get("call_id")))
    talk.act([Block(call=call)], place, join=True)
    rest(value, ("type", "id", "name", "arguments", "input", "call_id", "status"), place)


def _mcp(value: dict[str, Any], talk: Talk, place: Place) -> None:
    name = as_text(value.get("name"))
    id = as_id(value.get("id", value.get("call_id")))
    talk.hosted.add(name)
    talk.act([Block(call=Call(name, value.get("arguments", {}), id))], place, join=True)
    error = value.get("error")
    text, failed = tool_text(value.get("output"), place.at("output"))
    if error:
        text, failed = text or as_text(as_dict(error).get("message", error)), True
    talk.answer(Result(text, id, name, failed), place)
    rest(value, ("type", "id", "call_id", "name", "arguments", "output", "error", "status"), place)


def _hosted(value: dict[str, Any], kind: str, talk: Talk, place: Place) -> None:
    given, answers = _HOSTED[kind]
    name = kind.removesuffix("_call")
    id = as_id(value.get("call_id")) or as_id(value.get("id"))
    arguments = {key: value[key] for key in given if value.get(key) is not None}
    action = arguments.get("action")
    talk.hosted.add(name)
    talk.act([Block(call=Call(name, action if isinstance(action, dict) else arguments, id))], place, join=True)
    known = ("type", "id", "call_id", "status", *given, *answers)
    if kind not in _ANSWERED_LATER:
        found = [one for key in answers for one in as_list(value.get(key))]
        if not found:
            place.made("the log does not tell what this hosted tool answered; its status stands for the answer")
        text = as_text(found if found else {"status": value.get("status") or "completed"})
        talk.answer(Result(text, id, name), place)
    rest(value, known, place)
