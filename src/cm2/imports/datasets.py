"""Data sets: chat rows as they are kept on the Hugging Face hub, beside those of the APIs.

`conversations` of `from` and `value` (ShareGPT, LLaMA-Factory, Hermes), `prompt` with `completion`, `chosen` and
`rejected` (preferences: a row becomes two dialogues), `instruction` with `input` and `output` (Alpaca), and NVIDIA's
Nemotron rows, which `cm2.formats` reads itself.
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError
from cm2.formats.tasks import detect_format
from cm2.formats.tasks import read_row as read_formats
from cm2.formats.tasks import write_row as write_formats
from cm2.imports.bodies import Exchange, read_request, read_response
from cm2.imports.chat_rows import describe
from cm2.imports.dialects import are_messages, read_messages
from cm2.imports.draft import Draft
from cm2.imports.notes import Notes, Place
from cm2.imports.schemas import read_tools
from cm2.imports.sharegpt import is_sharegpt
from cm2.imports.talk import Talk
from cm2.imports.text import as_list, as_text, unpacked

FORMAT = "huggingface"
_LISTS = ("conversations", "conversation", "messages", "dialogue", "dialog", "chat", "turns", "items")
_ANSWERS = ("completion", "response", "output", "answer")
_PROMPTS = ("prompt", "instruction", "question", "query")
_TOOLS = ("tools", "functions", "available_tools", "tool_schemas")
_TAKEN = frozenset(
    (*_LISTS, *_ANSWERS, *_PROMPTS, *_TOOLS, "system", "system_prompt", "chosen", "rejected", "input", "history")
)


def is_row(value: dict[str, Any]) -> bool:
    """Whether an object is a row of such a data set, and not one that the APIs' readers take."""
    if "messages" in value and "conversations" not in value:
        inner = unpacked(value["messages"])
        first = as_list(inner)[:1]
        if first and isinstance(first[0], dict) and is_sharegpt(first[0]):
            return True
        if isinstance(value["messages"], str) or _is_nemotron(value):
            return isinstance(inner, list)
        return False
    if any(
        isinstance(unpacked(value.get(key)), list) for key in ("conversations", "conversation", "dialogue", "dialog")
    ):
        return True
    if "chosen" in value and "rejected" in value:
        return True
    prompted = any(key in value for key in _PROMPTS) and any(key in value for key in _ANSWERS)
    return prompted and "object" not in value


def _is_nemotron(value: dict[str, Any]) -> bool:
    return "uuid" in value and detect_format(value) == "nemotron" and isinstance(value.get("metadata"), str)


def read_row(value: dict[str, Any]) -> list[Draft]:
    """A row to its dialogues: one, or two where it holds a preference.

    Raises:
        DataError: it cannot be read.
    """
    if _is_nemotron(value):
        return [_nemotron(value)]
    if "chosen" in value and "rejected" in value:
        return [_one(value, name) for name in ("chosen", "rejected")]
    return [_one(value, None)]


def _one(value: dict[str, Any], preferred: str | None) -> Draft:
    talk, notes = Talk(), Notes()
    place = Place(notes)
    for key in ("system", "system_prompt"):
        if isinstance(value.get(key), str) and value[key]:
            talk.say("system", value[key])
    for key in _TOOLS:
        if value.get(key):
            talk.offer(read_tools(value[key], place.at(key)))
    listed = next((key for key in _LISTS if isinstance(unpacked(value.get(key)), list)), None)
    if preferred is not None:
        _preference(value, preferred, talk, place)
    elif listed is not None:
        if talk.messages and _has_system(unpacked(value[listed])):
            talk.messages = []
            place.made("the messages begin with a system message; the row's own is left out", "system")
        read_messages(unpacked(value[listed]), talk, place.at(listed))
    else:
        _prompted(value, talk, place)
    draft = Draft.of(FORMAT, talk, notes)
    describe({key: one for key, one in value.items() if key not in _TAKEN}, draft, place)
    if preferred is not None:
        draft.meta["preference"] = preferred
        draft.id = f"{draft.id or draft.made_id()}#{preferred}"
    return draft


def _has_system(values: list[Any]) -> bool:
    first = values[0] if values else None
    return isinstance(first, dict) and "system" in (first.get("from"), first.get("role"))


def _preference(value: dict[str, Any], name: str, talk: Talk, place: Place) -> None:
    answer = unpacked(value[name])
    whole = are_messages(answer) and any(
        as_text(one.get("role", one.get("from"))) in ("user", "human") for one in answer
    )
    prompt = next((value[key] for key in (*_PROMPTS, *_LISTS) if value.get(key)), None)
    if not whole:
        if prompt is None:
            raise DataError(f"'{name}' holds no question, and the row has no prompt")
        read_request(prompt, talk, place.at("prompt"), Exchange())
        talk.close()
    read_response(answer, talk, place.at(name), Exchange())


def _prompted(value: dict[str, Any], talk: Talk, place: Place) -> None:
    for index, pair in enumerate(as_list(value.get("history"))):
        if isinstance(pair, list) and len(pair) == 2:
            talk.say("user", as_text(pair[0]))
            read_response(pair[1], talk, place.at("history").at(index), Exchange())
            talk.close()
    key = next((key for key in _PROMPTS if value.get(key)), None)
    if key is None:
        raise DataError(f"the row holds no messages: {', '.join(value) or 'empty'}")
    prompt = unpacked(value[key])
    if isinstance(prompt, str) and isinstance(value.get("input"), str) and value["input"]:
        prompt = f"{prompt}\n\n{value['input']}"
    read_request(prompt, talk, place.at(key), Exchange())
    talk.close()
    answer = next((value[name] for name in _ANSWERS if value.get(name) is not None), None)
    read_response(answer, talk, place.at("answer"), Exchange())


def _nemotron(value: dict[str, Any]) -> Draft:
    row = write_formats(read_formats(value, "nemotron"), "openai")
    draft = Draft(FORMAT, row["messages"], row.get("tools", []), row["id"], row.get("source", ""), row.get("meta", {}))
    draft.tools = [tool for tool in draft.tools if "function" in tool and tool["function"].get("name")]
    return draft
