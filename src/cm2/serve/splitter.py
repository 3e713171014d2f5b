"""Splitter: an answer's text, as it grows, to thinking, content and calls.

It reads what `cm2.rollout.template.parse` reads, in any number of pieces, so that a streamed answer is the whole one. A
call whose text is no call is content, word for word, and is counted in `malformed`. The one difference from `parse`: a
lone </think> in the middle of a text that did not begin with thinking stays content, since what was streamed cannot be
taken back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cm2.dialogue import ToolCall
from cm2.rollout.template import parse

_OPEN_THINK, _CLOSE_THINK, _OPEN_CALL, _CLOSE_CALL = "<think>", "</think>", "<tool_call>", "</tool_call>"


class Said(msgspec.Struct):
    """A piece of an answer: text of thinking or content, or a whole call."""

    kind: Literal["thinking", "content", "call"]
    text: str = ""
    call: ToolCall | None = None


class Splitter:
    """Feed it text; it says what has become certain.

    Args:
        calls: whether <tool_call> means a call.
        opened: whether the prompt itself opened the thinking.
    """

    def __init__(self, calls: bool = True, opened: bool = False):
        self.calls, self.opened = calls, opened
        self.state: Literal["start", "thinking", "content", "call"] = "thinking" if opened else "start"
        self.malformed: list[ToolCall] = []
        self._buffer = ""
        self._blank = ""
        """White space that is content only if more content follows."""
        self._spoken = False
        """Whether the part that is being read has said anything."""

    def feed(self, text: str) -> list[Said]:
        """More text."""
        self._buffer += text
        found: list[Said] = []
        while self._advance(found):
            pass
        return found

    def finish(self) -> list[Said]:
        """No more text: what was held back."""
        found = self.feed("")
        rest, self._buffer = self._buffer, ""
        if self.state == "call":
            self._call(rest, "", found)
        else:
            if self.state == "start":
                self.state = "content"
            self._say(rest, found)
        return found

    def _advance(self, found: list[Said]) -> bool:
        """Read on; whether there may be more to read."""
        if self.state == "start":
            seen = self._buffer.lstrip()
            if seen.startswith(_OPEN_THINK):
                self._buffer, self.state = seen[len(_OPEN_THINK) :], "thinking"
            elif _OPEN_THINK.startswith(seen):
                return False
            else:
                self.state = "content"
            return True
        if self.state == "call":
            body, closing, rest = self._buffer.partition(_CLOSE_CALL)
            if not closing:
                return False
            self._buffer, self.state = rest, "content"
            self._call(body, closing, found)
            return True
        if self.state == "content" and not self.calls:
            self._say(self._buffer, found)
            self._buffer = ""
            return False
        mark = _CLOSE_THINK if self.state == "thinking" else _OPEN_CALL
        before, met, rest = self._buffer.partition(mark)
        if not met:
            keep = held(before, mark)
            self._buffer = before[len(before) - keep :]
            self._say(before[: len(before) - keep], found)
            return False
        self._say(before, found)
        self._buffer = rest
        if self.state == "thinking":
            self.state, self._blank, self._spoken = "content", "", False
        else:
            self.state = "call"
        return True

    def _say(self, text: str, found: list[Said]) -> None:
        """Text of the part that is being read; white space around the whole part is left out."""
        if not self._spoken:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._blank += text if self._spoken else ""
            return
        kind: Literal["thinking", "content"] = "thinking" if self.state == "thinking" else "content"
        said = self._blank + body
        self._blank, self._spoken = text[len(body) :], True
        if found and found[-1].kind == kind:
            found[-1].text += said
        else:
            found.append(Said(kind, said))

    def _call(self, body: str, closing: str, found: list[Said]) -> None:
        # thinking is over: said once more, so that a </think> inside the body is not taken for its end
        (call,) = parse(f"{_CLOSE_THINK}{_OPEN_CALL}{body}{_CLOSE_CALL}").calls
        if call.error is None and call.arguments is not None:
            found.append(Said("call", call=call))
            return
        self.malformed.append(call)
        self.state = "content"
        self._say(f"{_OPEN_CALL}{body}{closing}", found)


def held(text: str, mark: str) -> int:
    """How many characters at the end of the text may be the beginning of the mark."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
