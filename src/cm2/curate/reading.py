"""One pass over a row: what the rules look at.

`shape` holds one letter a message, so that questions of order are questions to a short text: s system, u user,
a assistant, c assistant with calls, t tool, ? another message with calls, x anything else.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from cm2.curate.finding import Findings
from cm2.curate.wire import Data, Function, Message
from cm2.formats.content import CLOSE, OPEN
from cm2.formats.json_text import loads
from cm2.formats.jsonlines import encode, parse

_LETTERS = {"system": "s", "developer": "s", "user": "u", "assistant": "a", "tool": "t", "function": "t"}
CONTROL = bytes((*range(9), 11, 12, *range(14, 32), 127))
_PLAIN = bytes(set(range(256)) - set(CONTROL) - set(b"|<[{"))
_CALLER = re.compile("c(t*)")
_decode = msgspec.json.Decoder().decode


class Call(msgspec.Struct, gc=False):
    """One tool call. `error` says why the arguments are no JSON; `nan` that only NaN or Infinity makes them so."""

    message: int
    index: int
    name: str
    id: str | int | None
    text: str
    value: Any = None
    error: str | None = None
    nan: bool = False

    def path(self, key: str) -> str:
        """Where a key of the called function stands in the row; a lone `function_call` has index -1."""
        place = "function_call" if self.index < 0 else f"tool_calls[{self.index}].function"
        return f"messages[{self.message}].{place}.{key}"


class Layout(msgspec.Struct, frozen=True):
    """What a shape alone tells; few shapes make up a data set, so each is looked at once."""

    agent: tuple[int, ...]
    """Indexes of the assistant messages."""
    callers: tuple[int, ...]
    """Those of them that call tools."""
    replies: tuple[int, ...]
    """Those that do not."""
    tool: tuple[int, ...]
    """Indexes of the tool messages."""
    foreign: tuple[int, ...]
    """Indexes of other messages that call tools."""
    responses: tuple[int, ...]
    """How many tool messages follow each caller, empty where one follows anything else."""


@lru_cache(maxsize=4096)
def _layout(shape: str) -> Layout:
    def at(letters: str) -> tuple[int, ...]:
        return tuple(index for index, letter in enumerate(shape) if letter in letters)

    callers, tool = at("c"), at("t")
    responses = tuple(map(len, _CALLER.findall(shape)))
    return Layout(at("ac"), callers, at("a"), tool, at("?"), responses if sum(responses) == len(tool) else ())


class Reading(msgspec.Struct, gc=False):
    """A row as the rules see it."""

    messages: list[Message]
    shape: str
    layout: Layout
    texts: list[str]
    """The content of each message, empty where there is none."""
    calls: list[list[Call]]
    """The calls of each message with letter c."""
    asked: list[Call]
    """All of them."""
    said: str
    """All texts, one after the other."""
    marks: bytes
    """All control characters, bars and opening brackets but ( in them: where there are none, much need not be asked."""
    ends: list[int]
    """Where the first closing think tag stands in each assistant message that starts with an opening one, else -1."""
    plain: bool
    """Whether no text has an angle bracket but for one pair of think tags in each assistant message, or none at all."""
    answers: str
    """All texts of tools."""


def read(data: Data, found: Findings) -> Reading:
    """A row's messages."""
    messages, letters = data.messages, _LETTERS
    texts = [message.content or "" for message in messages]
    shape = "".join(
        [
            ("c" if message.role == "assistant" else "?")
            if message.tool_calls or message.function_call
            else letters.get(message.role, "x")
            for message in messages
        ]
    )
    layout = _layout(shape)
    for index in layout.foreign:
        message = f"a message with role '{messages[index].role}' calls tools"
        found.reject("structure", message, f"messages[{index}]")
    calls = [_calls(messages[index], index) for index in layout.callers]
    asked = [call for each in calls for call in each]
    said = "\n".join(texts)
    marks = said.encode(errors="replace").translate(None, _PLAIN)
    brackets = marks.count(b"<")
    ends = []
    if brackets:
        ends = [texts[at].find(CLOSE) if texts[at].startswith(OPEN) else -1 for at in layout.agent]
    plain = brackets == 2 * len(ends) and -1 not in ends
    answers = "\n".join([texts[index] for index in layout.tool])
    return Reading(messages, shape, layout, texts, calls, asked, said, marks, ends, plain, answers)


def _calls(message: Message, at: int) -> list[Call]:
    calls = []
    for index, asked in enumerate(message.tool_calls or ()):
        function = asked.function
        text = function.arguments
        try:
            calls.append(Call(at, index, function.name, asked.id, text, _decode(text)))
        except (TypeError, msgspec.DecodeError, UnicodeError, RecursionError):
            calls.append(_odd_call(function, at, index, asked.id))
    if message.function_call is not None:
        calls.append(_odd_call(message.function_call, at, -1, None))
    return calls


def _odd_call(function: Function, at: int, index: int, id: str | int | None) -> Call:
    """A call whose arguments are a value, or text that the fast reader refuses: lone surrogates are still JSON, NaN
    and everything else is not."""
    text = function.arguments
    call = Call(at, index, function.name, id, "")
    if not isinstance(text, str):
        call.value = {} if text is None else text
        call.text = encode(call.value).decode()
        return call
    call.text = text
    try:
        call.value = loads(text)
    except (ValueError, RecursionError) as error:
        nested = isinstance(error, RecursionError)
        call.error = "nested too deeply" if nested else str(error).removeprefix("JSON is malformed: ")
        call.nan = not nested and parse(text.encode(errors="surrogatepass"))[1] is None
    return call
