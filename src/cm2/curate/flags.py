"""Oddities that do not reject a row but that its reader should know, and sizes that do.

Each looks for a cheap sign first and only where it stands any closer.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import re2

from cm2.curate.finding import Findings
from cm2.curate.profile import Limits
from cm2.curate.reading import CONTROL, Call, Reading
from cm2.formats.jsonlines import is_unicode

FLAGS = {
    "duplicate_id": "an earlier row has the same id",
    "duplicate_dialogue": "an earlier row holds the same messages",
    "duplicate_argument_keys": "the arguments name a key twice: only the last counts",
    "remote_ref": "a tool's schema points to another document; its arguments are not checked",
    "call_id_mismatch": "a response's id names no call before it; it was matched by position",
    "call_id_reused": "two calls have one id",
    "call_text_in_reply": "a tool call is written as text",
    "empty_thinking": "a thinking section without thinking",
    "thinking_without_reply": "the reply is thinking only",
    "empty_response": "a tool response is empty",
    "broken_json": "a tool response looks like JSON but is none",
    "non_text_content": "a content part is no text (an image)",
    "injection": "a tool response gives orders to whoever reads it",
    "template_tokens": "control tokens of a chat template stand in the text",
    "control_characters": "control, zero-width or bidirectional characters stand in the text",
    "lone_surrogate": "half a UTF-16 pair: UTF-8 cannot hold it",
    "nan": "NaN or Infinity: strict JSON readers refuse the row",
    "deep_nesting": "a tool response is nested unusually deeply",
}
_TEMPLATE = re.compile(r"<\|[a-z_ ]{2,30}\|>")
_ORDERS = re2.compile(  # over bytes: a text would be encoded first and its places counted anew
    rb"(?i)\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instruction|checklist|rubric|prompt|above|previous|rules)"
    rb"|\b(?:pass|met|satisfied)\s*[=:]\s*true\b[^.\n]{0,30}\b(?:every|all|each)\b"
    rb"|\bmark\b[^.\n]{0,20}\b(?:all|every)\b[^.\n]{0,20}\b(?:items?|true|passed|satisfied)\b"
)
_WIDE = "\u200b\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ODD = re.compile(f"[{re.escape(CONTROL.decode())}{_WIDE}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def sizes(row: Reading, limits: Limits, found: Findings) -> None:
    """Reject what is absurdly long or deep; flag what is oddly deep."""
    if len(row.shape) > limits.messages:
        message = f"{len(row.shape):,} messages; at most {limits.messages:,} make a dialogue"
        found.reject("limit", message, "messages")
    if len(row.said) > limits.text:
        for index, text in enumerate(row.texts):
            if len(text) > limits.text:
                message = f"{len(text):,} characters; at most {limits.text:,} make a message"
                found.reject("limit", message, f"messages[{index}].content")
    for call in row.asked:
        if len(call.text) > 2 * limits.depth and depth_of(call.text) > limits.depth:
            depth = depth_of(_STRINGS.sub("", call.text))
            if depth > limits.depth:
                message = f"the arguments are nested {depth:,} deep; at most {limits.depth:,}"
                found.reject("limit", message, call.path("arguments"))
    if len(row.marks) > limits.odd_depth and row.marks.count(b"{") + row.marks.count(b"[") > limits.odd_depth:
        for index in row.layout.tool:
            text = row.texts[index]
            if text.count("{") + text.count("[") > limits.odd_depth:
                _depth(text, f"messages[{index}].content", limits, found)


def _depth(text: str, path: str, limits: Limits, found: Findings) -> None:
    if depth_of(text) <= limits.odd_depth:
        return
    depth = depth_of(_STRINGS.sub("", text))
    if depth > limits.depth:
        found.reject("limit", f"the tool response is nested {depth:,} deep; at most {limits.depth:,}", path)
    elif depth > limits.odd_depth:
        found.flag("deep_nesting", f"the tool response is nested {depth:,} deep", path)


def depth_of(text: str) -> int:
    """How deep brackets nest in a text, brackets in strings counted too."""
    folded = np.frombuffer(text.encode(errors="replace"), np.uint8) | 0x20  # [ and { become one byte, ] and } another
    steps = (folded == 0x7B).astype(np.int32) - (folded == 0x7D)
    return int(np.cumsum(steps).max(initial=0))


def oddities(row: Reading, found: Findings) -> None:
    """Flag odd characters, control tokens, orders and keys that stand twice."""
    for call in row.asked:
        value, colons = call.value, call.text.count('":')
        if isinstance(value, dict) and colons != len(value) and colons != _keys(value) and _repeats_a_key(call):
            message = "a key stands twice; only the last counts"
            found.flag("duplicate_argument_keys", message, call.path("arguments"))
    if b"|" in row.marks and "<|" in row.said:
        _mark("template_tokens", _TEMPLATE, row, found)
    if row.marks.strip(b"<|[{"):
        _mark("control_characters", _ODD, row, found)
    elif not row.said.isascii():
        if any(odd in row.said for odd in _WIDE):
            _mark("control_characters", _ODD, row, found)
        if not is_unicode(row.said):
            _mark("lone_surrogate", _SURROGATE, row, found)
    if row.answers and _ORDERS.search(row.answers.encode(errors="replace")):
        for index in row.layout.tool:
            match = _ORDERS.search(row.texts[index].encode(errors="replace"))
            if match is not None:
                order = match.group().decode(errors="replace")
                found.flag("injection", f"{order[:80]!a} stands in the response", f"messages[{index}].content")


def not_strict(text: bytes, found: Findings) -> None:
    """Flag a row with NaN or Infinity, which only lenient readers of JSON take."""
    if b"NaN" not in text and b"Infinity" not in text:
        return
    try:
        json.loads(text.removeprefix(b"\xef\xbb\xbf"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        found.flag("nan", f"not strict JSON: {error}")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} stands in the row")


def _mark(flag: str, pattern: re.Pattern[str], row: Reading, found: Findings) -> None:
    for index, text in enumerate(row.texts):
        match = pattern.search(text)
        if match is not None:
            found.flag(flag, f"{match.group()[:80]!a} stands in the text", f"messages[{index}].content")


def _keys(value: Any) -> int:
    """How many keys all objects in a value have."""
    count, waiting = 0, [value]
    for each in waiting:
        if isinstance(each, dict):
            count += len(each)
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return count


def _repeats_a_key(call: Call) -> bool:
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(found)
        repeated |= len(made) < len(found)
        return made

    try:
        json.loads(call.text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return False
    return repeated
