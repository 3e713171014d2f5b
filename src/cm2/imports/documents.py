"""Documents: the values of a JSON text that is no JSON lines, one by one, with flat memory.

One array over many lines, one object whose rows stand in a list inside it (`samples`, `simulations`, `resourceSpans`,
`data`), or several values behind each other. The rows of such a list come one at a time; what the object says beside
them comes along as their header, as far as it stands before them. A part that is broken or torn off is told once and
ends its list; behind a broken value at the top, reading goes on with the next line.

Decoding is the standard library's; this file only hands it enough of the text.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from cm2.imports.dialects import is_message
from cm2.imports.fields import names

BLOCK = 1 << 20
MOST = 64 << 20
"""Characters of one value; a longer one is an error."""
LISTS = names("document", "lists")
"""Keys of an object under which its rows stand."""
_SPACE = re.compile(r"[ \t\n\r\ufeff]*")
_NUMBER = 400
_BEHIND = ("", " ", "\t", "\n", "\r", ",", "]", "}")
_decode = json.JSONDecoder().raw_decode


class Found(msgspec.Struct):
    """A value of a document: where it stood, what its object said beside it, or why it could not be read."""

    path: str
    value: Any = None
    header: dict[str, Any] = {}
    error: str | None = None


class _Text:
    """A text that is read as far as it is needed."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Read on; False at the end. What was used is let go."""
        if self.ended:
            return False
        self.text, self.at = self.text[self.at :], 0
        block = self._file.read(max(BLOCK, len(self.text)))
        self.ended = not block
        self.text += self._utf8.decode(block, final=self.ended)
        return True

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The next value.

        Raises:
            ValueError: it is broken, torn off or too long.
        """
        self.peek()
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except json.JSONDecodeError as error:
                inside = error.pos + 16 < len(self.text) and not error.msg.startswith(("Unterminated", "Invalid \\"))
                if inside or len(self.text) - self.at > MOST or not self.more():
                    raise ValueError(f"{error.msg} at character {error.pos - self.at + 1} of the value") from error
                continue
            except RecursionError as error:
                raise ValueError("nested too deeply to read") from error
            if self.text[end - 1] not in '}]"' and self._goes_on(end) and self.more():
                continue
            self.at = end
            return value

    def _goes_on(self, end: int) -> bool:
        """Whether a number that ends here may be cut off by the end of what was read."""
        return len(self.text) - end < _NUMBER and self.text[end : end + 1] not in _BEHIND[1:]

    def recover(self) -> bool:
        """Go on with the next line that is a JSON object by itself; False where there is none."""
        while True:
            start = self.text.find("\n", self.at)
            while start < 0:
                self.at = len(self.text)
                if not self.more():
                    return False
                start = self.text.find("\n", self.at)
            self.at = start + 1
            end = self.text.find("\n", self.at)
            while end < 0 and len(self.text) - self.at <= MOST and self.more():
                end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)].strip().rstrip(",")
            if line.startswith("{") and line.endswith("}"):
                try:
                    if _decode(line)[1] == len(line):
                        return True
                except (ValueError, RecursionError):
                    pass


def read_values(file: IO[bytes]) -> Iterator[Found]:
    """The values of a document."""
    text = _Text(file)
    number = 0
    while True:
        first = text.peek()
        if not first:
            return
        here = f"[{number}]" if number else ""
        number += 1
        try:
            if first == "[":
                yield from _array(text, here)
            elif first == "{":
                yield from _object(text, here)
            elif first == ",":
                text.at += 1
            else:
                yield Found(here, text.value())
        except ValueError as error:
            yield Found(here, error=f"not JSON: {error}")
            if not text.recover():
                return


def _array(text: _Text, path: str, header: dict[str, Any] | None = None) -> Iterator[Found]:
    """The elements of an array; an array of messages is one value."""
    text.at += 1
    index = 0
    whole: list[Any] | None = None
    while True:
        mark = text.peek()
        if mark == "]":
            text.at += 1
            break
        if mark == ",":
            text.at += 1
            continue
        if not mark:
            raise ValueError("the list is torn off")
        try:
            value = text.value()
        except ValueError as error:
            raise ValueError(f"{error} (element {index} of {path or 'the list'})") from error
        if not index and header is None and is_message(value):
            whole = []
        if whole is not None:
            whole.append(value)
        else:
            for inner in expand(value):
                place = f"{path}[{index}]{'.' if inner.path else ''}{inner.path}"
                yield Found(place, inner.value, {**(header or {}), **inner.header})
        index += 1
    if whole is not None:
        yield Found(path, whole)


def _object(text: _Text, path: str) -> Iterator[Found]:
    """An object, or the rows of the lists that it holds."""
    text.at += 1
    found: dict[str, Any] = {}
    rows = False
    while True:
        mark = text.peek()
        if mark == "}":
            text.at += 1
            break
        if mark == ",":
            text.at += 1
            continue
        if not mark:
            raise ValueError("the object is torn off")
        key = text.value()
        if not isinstance(key, str):
            raise ValueError("a key is no text")
        if text.peek() != ":":
            raise ValueError("a key without a value")
        text.at += 1
        if key in LISTS and "messages" not in found and text.peek() == "[":
            rows = True
            yield from _array(text, f"{path}.{key}" if path else key, found)
        else:
            found[key] = text.value()
    if not rows:
        for inner in expand(found):
            yield Found(f"{path}{'.' if path and inner.path else ''}{inner.path}", inner.value, inner.header)


def expand(value: Any) -> Iterator[Found]:
    """The rows inside a value that was read whole, with their header."""
    if isinstance(value, dict):
        keys = [key for key in value if key in LISTS and isinstance(value[key], list)]
        if keys and not ("id" in value and "messages" in value):
            header = {key: one for key, one in value.items() if key not in keys}
            for key in keys:
                for index, one in enumerate(value[key]):
                    for inner in expand(one):
                        place = f"{key}[{index}]{'.' if inner.path else ''}{inner.path}"
                        yield Found(place, inner.value, {**header, **inner.header})
            return
    yield Found("", value)
