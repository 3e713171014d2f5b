"""The eight rules. Each looks at one reading of a row and adds what it finds; none needs another to have run.

Most rows are fine, and most rules find that out without looking at each message: `Reading` holds what they ask first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from cm2.curate.finding import Findings
from cm2.curate.profile import Profile
from cm2.curate.reading import Reading
from cm2.curate.tools import Tools
from cm2.curate.wire import Message
from cm2.formats.content import CLOSE, OPEN
from cm2.formats.json_text import loads

_ORDER = re.compile(r"s*(?:u(?:ct*)*a)+")
_ORDER_AFTER_GREETING = re.compile(r"s*a*(?:u(?:ct*)*a)+")
_AFTER = {"": "su", "s": "su", "u": "ac", "a": "u", "c": "tac", "t": "tac"}
_RESPONSE_MARKS = ("<tool_response", "</tool_response", "<tool_result", "<function_result")
_CALL_MARKS = ("<tool_call", "<function_call")
_SHORT = 24
"""A closing tag before this position may close an empty section."""
_json = msgspec.json.Decoder(msgspec.Raw).decode
Rule = Callable[[Reading, Tools, Profile, Findings], None]


def tool_schema(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 1: calls name a known tool and fit its JSON Schema; the tools themselves are well formed."""
    rules = profile.rules
    for finding in tools.violations:
        if finding.rule.startswith("tool_schema") and finding.rule in rules:
            found.reject(finding.rule, finding.message, finding.path)
    for call in row.asked:
        schema = tools.schemas.get(call.name)
        if schema is None:
            if "tool_schema" in rules:
                found.reject("tool_schema", _unknown(call.name, tools), call.path("name"))
        elif call.error is not None or not isinstance(call.value, dict):
            rule = "tool_schema_strict" if call.nan else "tool_schema"
            if rule in rules:
                found.reject(rule, "the arguments are no JSON object", call.path("arguments"))
        elif schema.text and not schema.fits(call.value):
            for rule, message in schema.violations(call.value):
                if rule in rules:
                    found.reject(rule, message, call.path("arguments"))


def _unknown(name: str, tools: Tools) -> str:
    close = next((known for known in tools.schemas if known.casefold() == name.casefold()), None)
    return f"no tool is named '{name}'" + (f"; '{close}' is" if close else "")


@lru_cache(maxsize=4096)
def _in_order(shape: str, greeting: bool) -> bool:
    order = _ORDER_AFTER_GREETING if greeting else _ORDER
    return order.fullmatch(shape) is not None


def role_order(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 2: turns of user, calls and responses, reply. How many responses come is rule 3's business."""
    if _in_order(row.shape, profile.greeting):
        return
    rule, before = "role_order", ""
    for index, letter in enumerate(row.shape):
        greeting = profile.greeting and letter == "a" and "u" not in row.shape[:index] and before in ("", "s", "a")
        if letter not in _AFTER.get(before, "suact") and not greeting:
            place = f"after '{row.messages[index - 1].role}'" if index else "first"
            message = f"a message with role '{row.messages[index].role}' stands {place}"
            found.reject(rule, message, f"messages[{index}]")
        before = letter
    if "u" not in row.shape:
        found.reject(rule, "no user message" if row.shape else "no messages", "messages")
    elif row.shape[-1] != "a":
        end = "calls without a reply after them" if row.shape[-1] == "c" else f"role '{row.messages[-1].role}'"
        found.reject(rule, f"the dialogue ends with {end}", f"messages[{len(row.shape) - 1}]")


def call_response_match(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 3: as many responses as calls. An id that fits no call is flagged: the position still tells."""
    rule, shape, messages = "tool_call_response_match", row.shape, row.messages
    if row.layout.responses == tuple(map(len, row.calls)):
        ids = [call.id for call in row.asked]
        named = [messages[index].tool_call_id for index in row.layout.tool]
        if len(set(ids)) == len(ids) and (named == ids or named.count(None) == len(named)):
            return
    seen: set[str | int] = set()
    for calls in row.calls:
        at, count = calls[0].message, len(calls)
        end = at + 1 + count
        if not shape.startswith("t" * count, at + 1) or shape.startswith("t", end):
            responses = len(shape[at + 1 :]) - len(shape[at + 1 :].lstrip("t"))
            message = f"{count} call(s), {responses} response(s)"
            found.reject(rule, message, f"messages[{at}].tool_calls")
            continue
        crossed = False
        for index, call in enumerate(calls, at + 1):
            id, answered = call.id, messages[index].tool_call_id
            if id is not None:
                if id in seen:
                    found.flag("call_id_reused", "an earlier call has the same id", f"messages[{at}].tool_calls")
                seen.add(id)
                crossed |= answered != id and answered is not None
        if crossed:
            _crossed({call.id for call in calls}, row, at + 1, end, found)


def _crossed(asked: set[str | int | None], row: Reading, start: int, end: int, found: Findings) -> None:
    """Responses that do not come in the order of their calls."""
    answered = [id for message in row.messages[start:end] if (id := message.tool_call_id) is not None]
    if not asked.issuperset(answered):
        message = "a response names no call that stands before it; its position tells which it answers"
        found.flag("call_id_mismatch", message, f"messages[{start}]")
    elif len(set(answered)) < len(answered):
        message = "two responses to one call, none to another"
        found.reject("tool_call_response_match", message, f"messages[{start}]")


def response_in_assistant(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 4: what a tool says stands in a tool message. A call written as text is flagged."""
    if row.plain:
        return
    for index in row.layout.agent:
        text = row.texts[index]
        mark = next((mark for mark in _RESPONSE_MARKS if mark in text), None)
        if mark is not None:
            message = f"'{mark}' stands in an assistant message"
            found.reject("no_tool_response_in_assistant_message", message, f"messages[{index}].content")
        mark = next((mark for mark in _CALL_MARKS if mark in text), None)
        if mark is not None:
            found.flag("call_text_in_reply", f"'{mark}' stands in the text", f"messages[{index}].content")


def arguments_json(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 5, first half: arguments are JSON."""
    for call in row.asked:
        if call.error is not None:
            message = f"the arguments are not JSON: {call.error}"
            found.reject("arguments_json_valid", message, call.path("arguments"))


def response_json(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 5, second half: tool responses are JSON. Where text is allowed, what looks like broken JSON is flagged."""
    for index in row.layout.tool:
        text = row.texts[index]
        try:
            _json(text)
        except (msgspec.DecodeError, UnicodeError):
            if not _is_json(text):
                _no_json(text, index, profile, found)
        except RecursionError:
            found.reject("limit", "the tool response is nested too deeply to read", f"messages[{index}].content")


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _no_json(text: str, index: int, profile: Profile, found: Findings) -> None:
    path = f"messages[{index}].content"
    if not profile.plain_text:
        found.reject("tool_response_json_valid", "the tool response is " + ("not JSON" if text else "empty"), path)
    elif text.lstrip().startswith(("{", '["', "[{")):
        found.flag("broken_json", "the tool response looks like JSON but is none", path)


def duplicate_tools(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 6: a tool is offered once."""
    for finding in tools.violations:
        if finding.rule.startswith("duplicate_tools") and finding.rule in profile.rules:
            found.reject(finding.rule, finding.message, finding.path)


def think_tags(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 7: one thinking section, first in the message, private to the assistant."""
    if not row.plain or (profile.thinking and not row.ends):
        _think_closely(row, profile, found)
    if row.ends and min(row.ends) < _SHORT:
        for index, end in zip(row.layout.agent, row.ends, strict=True):
            if end > 0 and not row.texts[index][len(OPEN) : end].strip():
                found.flag("empty_thinking", "the thinking section is empty", f"messages[{index}].content")
    for index in row.layout.replies:
        if row.texts[index].endswith(CLOSE):
            found.flag("thinking_without_reply", "a reply of thinking only", f"messages[{index}].content")


def _think_closely(row: Reading, profile: Profile, found: Findings) -> None:
    for index, (letter, text) in enumerate(zip(row.shape, row.texts, strict=True)):
        fault = ""
        if letter in "ac":
            fault = _thinking_fault(text, row.messages[index], profile.thinking)
        elif letter in "ut" and (OPEN in text or CLOSE in text):
            fault = f"think tags in a message with role '{row.messages[index].role}'"
        if fault:
            found.reject("think_tags", fault, f"messages[{index}].content")


def _thinking_fault(text: str, message: Message, required: bool) -> str:
    start, end = text.find(OPEN), text.find(CLOSE)
    if start < 0 and end < 0:
        if not required:
            return ""
        if message.reasoning_content or message.reasoning:
            return "the thinking stands in 'reasoning_content', not in the content"
        return "no thinking"
    if end < 0:
        return f"{OPEN} is never closed"
    if start < 0:
        return f"{CLOSE} was never opened"
    if end < start:
        return f"{CLOSE} stands before {OPEN}"
    if text.count(OPEN) > 1 or text.count(CLOSE) > 1:
        return "more than one thinking section"
    return "text stands before the thinking" if required and text[:start].strip() else ""


def non_empty(row: Reading, tools: Tools, profile: Profile, found: Findings) -> None:
    """Rule 8: every message says something; calls speak for themselves."""
    if all(row.texts) and not any(map(str.isspace, row.texts)):
        return
    for index, text in enumerate(row.texts):
        if text and not text.isspace():
            continue
        letter = row.shape[index]
        if letter in "ua" or (letter != "c" and not profile.blank):
            message = f"the message with role '{row.messages[index].role}' is empty"
            found.reject("non_empty_content", message, f"messages[{index}].content")
        elif letter == "t":
            found.flag("empty_response", "the tool answered nothing", f"messages[{index}].content")


ALL: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("tool_schema", "tool_schema_strict"), tool_schema),
    (("role_order",), role_order),
    (("tool_call_response_match",), call_response_match),
    (("no_tool_response_in_assistant_message",), response_in_assistant),
    (("arguments_json_valid",), arguments_json),
    (("tool_response_json_valid",), response_json),
    (("duplicate_tools_by_name", "duplicate_tools_by_schema"), duplicate_tools),
    (("think_tags",), think_tags),
    (("non_empty_content",), non_empty),
)
"""Each rule with the names it reports; it runs while one of them is on."""
