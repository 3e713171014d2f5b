"""Content: the text of a message, and what in it is private.

Thinking is private: it stands in <think> tags inside the content (or in a field of its own, see `cm2.formats.chat`).
What follows an unclosed tag, and what precedes an unopened one, is private: when in doubt nothing leaks. A message
without tags is a visible reply, never thinking.
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError, Where
from cm2.formats.wire import named

OPEN, CLOSE = "<think>", "</think>"


def content_text(content: Any, where: Where) -> str:
    """The text of a content: itself, its parts joined by newlines (other parts as `[kind]`), "" for null.

    Raises:
        DataError: it is neither.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(_part_text(part, where) for part in content)
    fix = "expected text, a list of parts, or null"
    raise DataError(f"'content' is {named(content)}", where=where, fix=fix)


def _part_text(part: Any, where: Where) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise DataError(f"a content part is {named(part)}, not an object", where=where)
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else f"[{part.get('type', 'unknown')}]"


def are_parts(content: list[Any]) -> bool:
    """Whether a list is a content's parts rather than a JSON value that a tool answered."""
    return bool(content) and all(
        isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in content
    )


def split_thinking(text: str) -> tuple[list[str], str]:
    """Thinking sections and the visible rest of a text with <think> tags, each stripped of outer white space."""
    private: list[str] = []
    visible: list[str] = []
    while text:
        start, end = text.find(OPEN), text.find(CLOSE)
        if start < 0 and end < 0:
            visible.append(text)
            break
        if start >= 0 and (end < 0 or start < end):
            visible.append(text[:start])
            if end < 0:
                private.append(text[start + len(OPEN) :].strip())
                break
            private.append(text[start + len(OPEN) : end].strip())
        else:
            private.append(text[:end].strip())
        text = text[end + len(CLOSE) :]
    return private, "\n".join(part.strip() for part in visible if part.strip())


def tagged(thinking: str, reply: str | None) -> str:
    """The content that holds this thinking in tags, and the reply after it."""
    rest = f"\n\n{reply}" if reply else ""
    return f"{OPEN}\n{thinking}\n{CLOSE}{rest}"
