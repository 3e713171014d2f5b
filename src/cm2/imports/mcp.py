"""MCP: what a client asked of servers of the Model Context Protocol, as JSON-RPC messages.

Such a log has the tools (`tools/list`), the calls (`tools/call`) and their answers, and nothing of what people and the
agent said. The calls of one session become a dialogue; its user message is a placeholder, marked as made. Tool results
inside the logs of clients are opened by `cm2.imports.text.tool_text`, whatever the format.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.errors import DataError
from cm2.imports.draft import Draft
from cm2.imports.notes import Notes, Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.imports.text import Block, Call, Result, as_dict, as_id, as_text, is_mcp_result, tool_text, unpacked

FORMAT = "mcp"
NO_USER = "(this log has no user messages)"
_WRAPPED = ("message", "payload", "data", "msg", "jsonrpc_message")


def rpc_of(value: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON-RPC message of a record, itself or wrapped by a logger; None where there is none."""
    if "jsonrpc" in value and ("method" in value or "result" in value or "error" in value):
        return value
    for key in _WRAPPED:
        inner = unpacked(value.get(key))
        if isinstance(inner, dict) and "jsonrpc" in inner:
            return rpc_of(inner)
    return None


def is_record(value: dict[str, Any]) -> bool:
    """Whether an object is a message of the protocol, or a bare tool result."""
    return rpc_of(value) is not None or is_mcp_result(value)


def session_of(value: dict[str, Any]) -> str | None:
    """The session that a logger wrote beside a message."""
    return next(
        (id for key in ("session_id", "sessionId", "mcp_session_id", "session") if (id := as_id(value.get(key)))), None
    )


class _Asked(msgspec.Struct):
    """A call and its answer, once that came."""

    call: Call
    place: Place
    answer: Result | None = None


def dialogue(values: list[dict[str, Any]], id: str) -> Draft:
    """The messages of one session to a dialogue. Calls that were made before one of them was answered are one action.

    Raises:
        DataError: no tool was called.
    """
    talk, notes = Talk(), Notes()
    waiting: dict[str, _Asked | str] = {}
    actions: list[list[_Asked]] = []
    answered = True
    for index, value in enumerate(values):
        message = rpc_of(value)
        if message is None:
            raise DataError("a tool result without the call that it answers; the log of the client has both")
        place = Place(notes, f"message[{index + 1}]")
        number, method = as_text(message.get("id")), message.get("method")
        if method == "tools/call":
            asked = _Asked(_call(as_dict(message.get("params")), number, place), place)
            waiting[number] = asked
            if answered or not actions:
                actions.append([])
            actions[-1].append(asked)
            answered = False
        elif method is not None:
            if method == "tools/list":
                waiting[number] = "tools/list"
            elif not as_text(method).startswith(("notifications/", "initialize", "ping")):
                place.unmapped(f"a message '{as_text(method)}' is no tool call")
        else:
            known = waiting.pop(number, None)
            if isinstance(known, _Asked):
                known.answer, answered = _answer(message, known.call, place), True
            elif "tools" in as_dict(message.get("result")):
                talk.offer(read_tools(as_dict(message["result"])["tools"], place.at("result.tools")))
    if not actions:
        raise DataError("no tool was called in this session")
    talk.say("user", NO_USER)
    notes.made("", "the user message: a log of this protocol has none")
    for action in actions:
        talk.close()
        talk.act([Block(call=asked.call) for asked in action], action[0].place)
        for asked in action:
            if asked.answer is not None:
                talk.answer(asked.answer, asked.place)
    draft = Draft.of(FORMAT, talk, notes)
    draft.id = id or None
    return draft


def _call(params: dict[str, Any], number: str, place: Place) -> Call:
    for key, one in params.items():
        if key not in ("name", "arguments"):
            place.keep(f"params.{key}", one)
    return Call(as_text(params.get("name")), params.get("arguments") or {}, f"call_{number}" if number else None)


def _answer(message: dict[str, Any], call: Call, place: Place) -> Result:
    if message.get("error") is not None:
        told = as_dict(message["error"]).get("message", message["error"])
        return Result(as_text(told), call.id, call.name, True)
    text, failed = tool_text(message.get("result"), place.at("result"))
    return Result(text, call.id, call.name, failed)
