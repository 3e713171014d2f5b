"""The OpenAI row: `{"id", "source", "tools", "messages", "meta"?}`, chat messages as the OpenAI API has them.

Tools stand under "tools" (a list, or its JSON text) or, in older logs, under "functions". Keys that are not ours
survive in `Dialogue.wire`.
"""

from __future__ import annotations

from typing import Any

from cm2.dialogue import Dialogue
from cm2.errors import Where
from cm2.formats.chat import Conversation, read_talk, write_messages
from cm2.formats.message_write import Style
from cm2.formats.tools import read_tools, write_tools
from cm2.formats.wire import keep, read_id, restore, same

FORMAT = "openai"


def read_openai(row: dict[str, Any], where: Where = Where()) -> Dialogue:
    """A row to a dialogue.

    Raises:
        DataError: the messages, tools or id are not what the format says.
    """
    id, made = read_id(row.get("id"), row, where.but(path="id"))
    here = where.but(dialogue=id)
    key = "functions" if "tools" not in row and "functions" in row else "tools"
    tools = read_tools(row.get(key), here.but(path=key))
    talk = read_talk(row, here)
    dialogue = Dialogue(id, talk.turns, tools, talk.system, talk.opening, _source(row.get("source")))
    dialogue.meta = _meta(row.get("meta"))
    wire = keep(row, _canonical(dialogue), set())
    if made:
        wire["id"] = made
    if talk.head is not None:
        wire["head"] = talk.head
    if talk.style.tags:
        wire["tags"] = True
    dialogue.wire = wire or None
    return dialogue


def write_openai(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue to a row, as it was read where it was read from this format and has not changed."""
    ours = dialogue.wire is None or dialogue.wire.get("format", FORMAT) == FORMAT
    wire = (dialogue.wire or {}) if ours else {}
    style = Style(tags=wire.get("tags", False))
    talk = Conversation(style, dialogue.system, dialogue.opening, dialogue.turns, wire.get("head"))
    row = _canonical(dialogue)
    row["messages"] = write_messages(talk, wires=ours)
    if not wire:
        return row
    fields = {
        "id": lambda old: dialogue.id == (wire.get("id") if old in (None, "") else str(old)),
        "source": lambda old: dialogue.source == _source(old),
        "tools": lambda old: _still(old, dialogue),
        "meta": lambda old: same(dialogue.meta, _meta(old)),
    }
    functions = wire.get("rest", {}).get("functions")
    if functions is not None and "tools" in wire.get("absent", []):
        if _still(functions, dialogue):
            del row["tools"]
        else:
            wire = {**wire, "rest": {key: value for key, value in wire["rest"].items() if key != "functions"}}
    restore(row, wire, fields)
    return row


def _still(old: Any, dialogue: Dialogue) -> bool:
    """Whether the tools as they were read are still the dialogue's."""
    return same(read_tools(old, Where(path="tools")), dialogue.tools)


def _canonical(dialogue: Dialogue) -> dict[str, Any]:
    """The row in our form; the messages come later."""
    row: dict[str, Any] = {"id": dialogue.id}
    if dialogue.source:
        row["source"] = dialogue.source
    row["tools"] = write_tools(dialogue.tools)
    row["messages"] = []
    if dialogue.meta:
        row["meta"] = dialogue.meta
    return row


def _source(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _meta(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
