"""ShareGPT: `{"from": "human", "value": "…"}`, with tools as their own speakers or as tags in the text.

`function_call` and `observation` are messages of their own (LLaMA-Factory, APIGen); other sets write
`<tool_call>{…}</tool_call>` and `<tool_response>…</tool_response>` into the text (Hermes). Both become calls and
answers. Tags whose inside is no JSON stay text.
"""

from __future__ import annotations

import re
from typing import Any

from cm2.errors import DataError
from cm2.imports.notes import Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.imports.text import Block, Call, Result, as_dict, as_id, as_text, tool_text, unpacked

ROLES = {
    **dict.fromkeys(("human", "user", "customer"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot", "agent"), "assistant"),
    **dict.fromkeys(("function_call", "function-call", "tool_call", "function_calls", "tool_calls"), "call"),
    **dict.fromkeys(("observation", "tool", "function", "tool_response"), "tool"),
    **dict.fromkeys(("function_response", "function-response"), "tool"),
    "system": "system",
}
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_ANSWER = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
_TOOLS = re.compile(r"<tools>\s*(.*?)\s*</tools>", re.DOTALL)


def is_sharegpt(value: dict[str, Any]) -> bool:
    """Whether an object is a message of this kind."""
    return isinstance(value.get("from"), str) and "value" in value


def read_sharegpt(value: dict[str, Any], talk: Talk, place: Place) -> None:
    """One message into `talk`.

    Raises:
        DataError: nobody known speaks.
    """
    speaker = value["from"].lower()
    role = ROLES.get(speaker)
    if role is None:
        raise DataError(f"the message at {place.path} is from {value['from']!r}; known are {', '.join(ROLES)}")
    for key, one in value.items():
        if key not in ("from", "value"):
            place.keep(key, one)
    inside = place.at("value")
    text = as_text(value["value"])
    if role == "system":
        tools = _TOOLS.search(text)
        if tools:
            talk.offer(read_tools(_listed(tools[1]), inside))
        talk.say("system", text)
    elif role == "user":
        talk.say("user", text)
    elif role == "tool":
        answers = _ANSWER.findall(text) or [value["value"]]
        for answer in answers:
            _answer(answer, talk, inside)
    elif role == "call":
        talk.act(_calls(value["value"], inside), inside, join=True)
    else:
        talk.act(_tagged(text, inside), inside)


def _answer(value: Any, talk: Talk, place: Place) -> None:
    inner = unpacked(value)
    name = None
    if isinstance(inner, dict) and isinstance(inner.get("name"), str) and {"name", "content"} >= inner.keys():
        name, value = inner["name"], inner.get("content")
    text, failed = tool_text(value, place)
    talk.answer(Result(text, None, name, failed), place)


def _calls(value: Any, place: Place) -> list[Block]:
    inner = unpacked(value)
    found: list[Block] = []
    for one in inner if isinstance(inner, list) else [inner]:
        one = unpacked(one)
        function = as_dict(as_dict(one).get("function", one))
        name = function.get("name")
        if not isinstance(name, str):
            place.unmapped("a call that cannot be read; its text stands as the reply")
            found.append(Block(text=as_text(one)))
            continue
        given: Any = next((function[key] for key in ("arguments", "parameters", "args") if key in function), {})
        found.append(Block(call=Call(name, given, as_id(as_dict(one).get("id")))))
    return found


def _tagged(text: str, place: Place) -> list[Block]:
    """A reply with its calls in tags. Thinking in <think> tags stays where it is: the formats read it."""
    found: list[Block] = []
    at = 0
    for match in _CALL.finditer(text):
        inner = unpacked(match[1])
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            continue
        before = text[at : match.start()].strip()
        if before:
            found.append(Block(text=before))
        found += _calls(inner, place)
        at = match.end()
    after = text[at:].strip() if at else text
    if after or not found:
        found.append(Block(text=after))
    return found


def _listed(text: str) -> Any:
    value = unpacked(text)
    if isinstance(value, (list, dict)):
        return value
    return [inner for line in text.splitlines() if isinstance(inner := unpacked(line.strip()), dict)]
