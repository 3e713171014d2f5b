"""Place and cause of a failure: where in a dialogue it shows, and why, with the values of this one dialogue masked."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from cm2.assure.outcomes import Outcome
from cm2.check import Check
from cm2.checklist import call_text
from cm2.dialogue import Dialogue, Step
from cm2.verdict import Pointer

LONGEST = 240
"""Characters of a cause."""
NOT_REACHED = "turn not reached"
STEPS = {
    "assistant.tool_calls": "tool call",
    "assistant.content.thinking": "thinking",
    "assistant.content.user_visible_reply": "reply",
    "tool.content": "tool response",
}


class Place(msgspec.Struct, frozen=True):
    """Where failures show."""

    duty: str
    tool: str
    """The tool that it is about, "" where it is about none in particular."""
    step: str
    """The class of step: tool call, tool response, reply, thinking, or that the turn was not reached."""
    fixed: bool
    """Whether a check worded the cause, which needs no clustering."""


_MASKS = (
    (re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]"), "…"),
    (re.compile(r"\"[^\"]*\"|“[^”]*”|`[^`]*`|(?<!\w)'(?:[^']|'(?=\w))*'"), "…"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+\b|\bhttps?://\S+"), "…"),
    (re.compile(r"[$€£]?\b[\w-]*\d[\w:.,/-]*\b%?"), "#"),
    (re.compile(r"…(?:[\s,]*…)+"), "…"),
    (re.compile(r"#(?:[\s,]+#)+"), "#"),
)


def cause_of(reason: str) -> str:
    """A judge's reason with its values masked: what is quoted or in brackets becomes …, numbers and ids become #."""
    text = " ".join(reason[: 4 * LONGEST].split())
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text[:LONGEST].strip(" .;") or "(no reason given)"


def place_of(dialogue: Dialogue, outcome: Outcome) -> Place:
    """Where a failure shows: at the check's own tool, where it is about one, else at the call that is its evidence."""
    fixed = outcome.verdict is None or outcome.verdict.judge == "checks"
    tools = set(_tools(outcome.item.check)) if outcome.item.check is not None else set()
    tool = tools.pop() if len(tools) == 1 else ""
    if outcome.verdict is None:
        return Place(outcome.duty, "", NOT_REACHED, fixed)
    for pointer in outcome.verdict.evidence:
        kind = STEPS.get(pointer.part)
        if kind is not None:
            return Place(outcome.duty, tool or _named(dialogue, pointer), kind, fixed)
    return Place(outcome.duty, tool, STEPS.get(outcome.item.focus_on, "reply"), fixed)


def _named(dialogue: Dialogue, pointer: Pointer) -> str:
    """The tool whose call or response a pointer names."""
    if not (0 <= pointer.turn < len(dialogue.turns) and 0 <= pointer.step < len(dialogue.turns[pointer.turn].steps)):
        return ""
    step: Step = dialogue.turns[pointer.turn].steps[pointer.step]
    for index, call in enumerate(step.calls):
        if pointer.part == "tool.content":
            response = step.response_to(index)
            text = "" if response is None else response.content
        elif pointer.part == "assistant.tool_calls":
            text = call_text(call.name, call.raw if call.raw is not None else call.arguments)
        else:
            return ""
        if pointer.snippet and pointer.snippet in text:
            return call.name
    return (
        step.calls[0].name if len(step.calls) == 1 and pointer.part in ("tool.content", "assistant.tool_calls") else ""
    )


def _tools(check: Check) -> Iterator[str]:
    """The tools that a check names."""
    tool = getattr(check, "tool", None)
    if isinstance(tool, str):
        yield tool
    yield from getattr(check, "tools", None) or ()
    parts = [getattr(check, name, None) for name in ("check", "first", "then")]
    for part in [*parts, *(getattr(check, "checks", None) or [])]:
        if part is not None:
            yield from _tools(part)
