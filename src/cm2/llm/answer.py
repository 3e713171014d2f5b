"""What a model answered: the visible text of its message, and the JSON that it ends with.

The final JSON value of a text counts, whatever stands before it (prose, a code fence, an earlier draft); where the
final one is broken or cut off there is none, never an earlier mention. NaN and Infinity, numbers beyond a double,
duplicate names and half surrogate pairs are no JSON here. Thinking is no part of an answer.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from cm2.formats.jsonlines import is_unicode
from cm2.llm.scrub import scrub, scrubbed

MAX_CHARACTERS = 1_000_000
"""A longer answer is not read."""
MAX_DEPTH = 500
MAX_BRACES = 10
"""Braces in prose that are never closed; each costs a pass over the text."""
_THINKING = re.compile(r"\s*<(think|thinking|thought)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(think|thinking|thought)>", re.IGNORECASE)
_OBJECT = re.compile(r'\{\s*(?:"|\}|\Z)')
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n")
_CLOSERS = {"{": "}", "[": "]"}


class Invalid(Exception):
    """An answer that is none; the message is a sentence for the model that gave it."""


def visible(message: dict[str, Any], finish: str) -> str:
    """The text that a model says in its message, without thinking and without secrets.

    Raises:
        Invalid: it refused, was cut off, or said nothing.
    """
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        raise Invalid(f"the answer was refused: {scrub(refusal.strip())[:300]}")
    if finish == "content_filter":
        raise Invalid("the answer was stopped by the provider's content filter")
    text = said(message)
    if finish == "length":
        raise Invalid("the answer was cut off at the limit of tokens before it was complete")
    if not text and message.get("tool_calls"):
        raise Invalid("the answer calls a tool; there are none, it must be text")
    if not text:
        thought = any(message.get(name) for name in ("reasoning_content", "reasoning", "content"))
        raise Invalid("there is only thinking and no answer after it" if thought else "the answer is empty")
    if len(text) > MAX_CHARACTERS:
        raise Invalid(f"the answer has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    if not is_unicode(text):
        raise Invalid("the answer holds half of a surrogate pair")
    return text


def said(message: dict[str, Any]) -> str:
    """The visible text of a message, whatever it is worth."""
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers answer
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return scrub(without_thinking(content).strip()) if isinstance(content, str) else ""


def without_thinking(text: str) -> str:
    """What follows a thinking section at the beginning; a section that never ends leaves nothing."""
    opened = _THINKING.match(text)
    closed = _CLOSING.search(text)
    if opened:
        return text[closed.end() :] if closed else ""
    if closed and not text.lstrip().startswith(("{", "[", "`", '"')):  # the template had opened it before the answer
        return text[closed.end() :]
    return text


def final_json(text: str, kind: str = "object") -> Any:
    """The JSON value that a text ends with, without secrets.

    Args:
        text: what the model said.
        kind: the type that is asked for: only an object or an array is looked for within prose.

    Raises:
        Invalid: there is none, or it is broken.
    """
    text = text.strip()
    if (fenced := _FENCE.match(text)) and text.endswith("```"):
        text = text[fenced.end() : -3].strip()
    try:
        return scrubbed(parse(text))
    except Invalid as whole:
        opener = {"object": "{", "array": "["}.get(kind)
        if opener is None:
            raise
        last = _last_region(text, opener)
        if last is None:
            raise Invalid(f"there is no JSON {kind} in the answer") from None
        if last == text:
            raise whole from None
        return scrubbed(parse(last))


def parse(text: str) -> Any:
    """A JSON text as its value, strictly.

    Raises:
        Invalid: it is none.
    """
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_number)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise Invalid(f"the JSON is broken: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise Invalid("the JSON holds half of a surrogate pair") from None
    except RecursionError:
        raise Invalid("the JSON is nested too deeply") from None
    except ValueError as error:  # integers of thousands of digits
        raise Invalid(f"the JSON cannot be read: {str(error)[:200]}") from None
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Invalid(f"the name {name[:100]!r} stands twice in one JSON object")
        found[name] = value
    return found


def _constant(name: str) -> Any:
    raise Invalid(f"{name} is no JSON number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Invalid(f"the number {text[:40]} is too large")
    return value


def _last_region(text: str, opener: str) -> str | None:
    """The last outermost balanced region, or what was opened and never closed. Quotes count only inside a region."""
    last: str | None = None
    unclosed = 0
    place = text.find(opener)
    while place >= 0:
        end = _end(text, place)
        if end is not None:
            last, after = text[place:end], end
        elif opener == "[" or _OBJECT.match(text, place):
            return text[place:]  # cut off: what stands before it is not what the model ended with
        else:
            after, unclosed = place + 1, unclosed + 1  # a brace in prose
            if unclosed > MAX_BRACES:
                return None
        place = text.find(opener, after)
    return last


_STRUCTURE = re.compile(r'[{}\[\]"]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)


def _end(text: str, start: int) -> int | None:
    depth, place = 0, start
    while found := _STRUCTURE.search(text, place):
        character, place = found[0], found.end()
        if character == '"':
            closed = _STRING_END.match(text, place)
            if closed is None:
                return None
            place = closed.end()
        elif character in _CLOSERS:
            depth += 1
            if depth > MAX_DEPTH:
                raise Invalid("the JSON is nested too deeply")
        else:
            depth -= 1
            if depth == 0:
                return place
    return None
