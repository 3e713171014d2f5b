"""The Nemotron row: nvidia/Nemotron-Post-Training-Dataset-v1, split tool_calling.

`{"uuid", "license", "generator", "version", "category", "reasoning", "messages", "metadata"}`: the tools live in the
JSON text of `metadata`, tool messages carry no call id and answer the calls by position, thinking stands in <think>
tags inside the content, and every message has `tool_calls`, empty where there are none.

Top-level keys that are not ours are the dialogue's `meta`, and the other way round, so nothing is lost between formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.formats.chat import Conversation, read_talk, write_messages
from cm2.formats.json_text import loads
from cm2.formats.message_write import Style
from cm2.formats.tools import read_tools, write_tools
from cm2.formats.wire import CHECKLISTS, keep, named, read_id, restore, same

FORMAT = "nemotron"
_OURS = {"uuid", "source", "tools", "messages", "metadata", CHECKLISTS}
"""Keys with a meaning of their own. A `meta` entry of such a name is written into `metadata`, under `_ASIDE`."""
_ASIDE = "cm2_meta"


def read_nemotron(row: dict[str, Any], where: Where = Where()) -> Dialogue:
    """A row to a dialogue.

    Raises:
        DataError: the messages, metadata or uuid are not what the format says.
    """
    id, made = read_id(row.get("uuid"), row, where.but(path="uuid"))
    here = where.but(dialogue=id)
    metadata = _metadata(row.get("metadata"), here)
    tools = read_tools(metadata.get("tools"), here.but(path="metadata.tools"))
    talk = read_talk(row, here, bare=True)
    dialogue = Dialogue(id, talk.turns, tools, talk.system, talk.opening)
    usual = _usual(dialogue)
    dialogue.source = _source(row.get("source"))
    dialogue.meta = {
        key: value for key, value in row.items() if key not in _OURS and not (key in usual and same(value, usual[key]))
    }
    dialogue.meta |= _aside(metadata)
    wire = keep(row, _canonical(dialogue), set(dialogue.meta) - _OURS)
    wire["format"] = FORMAT
    if made:
        wire["id"] = made
    if talk.head is not None:
        wire["head"] = talk.head
    dialogue.wire = wire
    return dialogue


def write_nemotron(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue to a row, as it was read where it was read from this format and has not changed.

    From another format, what the messages of this one cannot say is lost: names of tool messages, system messages in
    the middle, and which part of a content was an image.
    """
    ours = dialogue.wire is not None and dialogue.wire.get("format") == FORMAT
    wire = dialogue.wire if ours else {}
    talk = Conversation(
        Style(tags=True, bare=True), dialogue.system, dialogue.opening, dialogue.turns, wire.get("head")
    )
    row = _canonical(dialogue)
    row["messages"] = write_messages(talk, wires=ours)
    if not ours:
        return row
    usual = _usual(dialogue)
    fields = {
        "uuid": lambda old: dialogue.id == (wire.get("id") if old in (None, "") else str(old)),
        "source": lambda old: dialogue.source == _source(old),
        "metadata": lambda old: _still(old, dialogue),
        **{key: _unsaid(key, dialogue) for key in usual},
    }
    held = wire.get("rest", {}).get("metadata")
    restore(row, wire, fields)
    if held is not None and row["metadata"] is not held:
        others = {key: value for key, value in _metadata(held, Where()).items() if key not in ("tools", _ASIDE)}
        row["metadata"] = _text({**others, **json.loads(row["metadata"])})
    return row


def _canonical(dialogue: Dialogue) -> dict[str, Any]:
    """The row in our form; the messages come later."""
    row: dict[str, Any] = {"uuid": dialogue.id}
    if dialogue.source:
        row["source"] = dialogue.source
    row |= {**_usual(dialogue), **{key: value for key, value in dialogue.meta.items() if key not in _OURS}}
    metadata: dict[str, Any] = {"tools": write_tools(dialogue.tools)}
    aside = {key: value for key, value in dialogue.meta.items() if key in _OURS}
    if aside:
        metadata[_ASIDE] = aside
    row["messages"], row["metadata"] = [], _text(metadata)
    return row


def _usual(dialogue: Dialogue) -> dict[str, str]:
    """What the fields of the format say where nobody said anything else; not worth a place in `meta`."""
    steps = [*dialogue.opening, *(step for turn in dialogue.turns for step in turn.steps)]
    reasoning = "on" if any(step.thinking is not None for step in steps) else "off"
    return {
        "license": "",
        "generator": "",
        "version": "v1",
        "category": "tool_calling",
        "reasoning": reasoning,
    }


def _metadata(value: Any, where: Where) -> dict[str, Any]:
    where = where.but(path="metadata")
    if isinstance(value, str):
        try:
            value = loads(value)
        except (ValueError, RecursionError) as error:
            fix = 'expected JSON text such as {"tools": […]}'
            raise DataError(f"the metadata is not JSON: {error}", where=where, fix=fix) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        fix = 'expected JSON text such as {"tools": […]}'
        raise DataError(f"the metadata is {named(value)}, not an object", where=where, fix=fix)
    return value


def _aside(metadata: dict[str, Any]) -> dict[str, Any]:
    """The entries of `meta` that this format had no other place for."""
    aside = metadata.get(_ASIDE)
    return {key: value for key, value in aside.items() if key in _OURS} if isinstance(aside, dict) else {}


def _still(old: Any, dialogue: Dialogue) -> bool:
    """Whether the metadata as it was read still says what the dialogue says."""
    metadata = _metadata(old, Where())
    aside = {key: value for key, value in dialogue.meta.items() if key in _OURS}
    tools = read_tools(metadata.get("tools"), Where(path="metadata.tools"))
    return same(tools, dialogue.tools) and same(_aside(metadata), aside)


def _unsaid(key: str, dialogue: Dialogue) -> Callable[[Any], bool]:
    """Whether a usual field that the row had not is still not said by the dialogue."""
    return lambda old: old is None and key not in dialogue.meta


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _source(value: Any) -> str:
    return value if isinstance(value, str) else ""
