"""View: a case as the review page shows it, as plain values.

All text of a log goes through `cm2.report.text`: secrets are hidden, nothing is invisible, evidence is cut out as
pieces. The page puts the pieces there as text, never as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import yaml

from cm2.assure.audit.case import Case, Review, Stratum, Subject
from cm2.checklist import call_text
from cm2.dialogue import Dialogue, Step, ToolCall
from cm2.report.text import cut, visible
from cm2.verdict import WHOLE, Pointer

LONGEST = 20_000
"""Characters of one call, answer or reply."""
_PARTS = {
    "thinking": "assistant.content.thinking",
    "reply": "assistant.content.user_visible_reply",
    "call": "assistant.tool_calls",
    "response": "tool.content",
}


def line(case: Case, reviews: Sequence[Review], reviewer: str, dialogue: str) -> dict[str, Any]:
    """A case in the list; what others decided is not in it, so that nobody is led by it."""
    return {
        "id": case.id,
        "duty": visible(case.duty),
        "about": visible(dialogue if case.subject == case.item.id else case.item.question)[:200],
        "kind": case.kind,
        "stratum": case.stratum,
        "severity": case.item.severity or "",
        "wanted": case.wanted,
        "reviews": len(reviews),
        "mine": next((one.decision for one in reviews if one.reviewer == reviewer), ""),
    }


def whole(case: Case, dialogue: Dialogue, stratum: Stratum, subject: Subject | None) -> dict[str, Any]:
    """Everything about a case but its reviews."""
    verdict, item = case.verdict, case.item
    pointers = verdict.evidence if verdict is not None else []
    turns = [
        {
            "number": number,
            "user": visible(turn.user),
            "steps": [
                _step(step, [p for p in pointers if (p.turn, p.step) == (number, s)])
                for s, step in enumerate(turn.steps)
            ],
        }
        for number, turn in enumerate(dialogue.turns)
    ]
    return {
        "id": case.id,
        "dialogue": visible(dialogue.id),
        "turn": case.turn,
        "whole": case.turn == WHOLE,
        "duty": visible(case.duty),
        "subject": case.subject,
        "edited": subject is not None and subject.edited,
        "status": "open" if subject is None else subject.status,
        "kind": case.kind,
        "severity": item.severity or "",
        "owner": visible(item.owner),
        "question": visible(item.question),
        "pass_condition": visible(item.pass_condition),
        "check": _yaml(item.check),
        "applies_when": _yaml(item.applies_when),
        "failure_examples": [visible(text) for text in item.failure_examples],
        "reason": visible(verdict.reason) if verdict else "",
        "judge": visible(verdict.judge) if verdict else "",
        "votes": list(verdict.votes) if verdict else [],
        "unplaced": [visible(p.snippet)[:500] for p in pointers if p.snippet and not _placed(p, dialogue)],
        "stratum": stratum.name,
        "probability": case.probability,
        "system": visible(dialogue.system)[:LONGEST],
        "opening": [_step(step, []) for step in dialogue.opening],
        "turns": turns,
    }


def duty(subject: Subject) -> dict[str, Any]:
    """A duty or item for the page: its text fields, and its rules as YAML to edit."""
    spec = subject.spec
    return {
        "key": subject.key,
        "name": visible(subject.name if subject.kind == "duty" else _place(subject.key)),
        "kind": subject.kind,
        "status": subject.status,
        "edited": subject.edited,
        "version": subject.version,
        "question": spec.get("question", ""),
        "pass_condition": spec.get("pass_condition", ""),
        "severity": spec.get("severity", "major" if subject.kind == "duty" else ""),
        "check": _yaml(spec.get("check")),
        "applies_when": _yaml(spec.get("applies_when")),
        "note": spec.get("note", ""),
    }


def _place(key: str) -> str:
    dialogue, turn, variant, item = msgspec.json.decode(key)
    return f"{item} of turn {turn}" + (f", variant {variant}" if variant else "") + f" of {dialogue}"


def _step(step: Step, pointers: list[Pointer]) -> list[dict[str, Any]]:
    parts = []
    if step.thinking:
        parts.append(_part("thinking", step.thinking, pointers))
    if step.reply and step.calls:
        parts.append(_part("reply", step.reply, pointers))
    shown: list[int] = []
    for index, call in enumerate(step.calls):
        parts.append(_part("call", _call(call), pointers, "" if call.valid else "malformed"))
        response = step.response_to(index)
        if response is not None and id(response) not in shown:
            shown.append(id(response))
            parts.append(_part("response", response.content, pointers, response.origin))
    for response in step.responses:
        if id(response) not in shown:
            parts.append(_part("response", response.content, pointers, response.origin))
    if not step.calls:
        parts.append(_part("reply", step.reply or "", pointers))
    return parts


def _part(kind: str, text: str, pointers: list[Pointer], origin: str = "") -> dict[str, Any]:
    mine = [(str(n), p.snippet) for n, p in enumerate(pointers) if p.part == _PARTS[kind] and p.snippet]
    pieces, left_out = cut(text, mine, LONGEST)
    shown = [[piece.text, bool(piece.marks)] for piece in pieces]
    return {"kind": kind, "origin": visible(origin), "pieces": shown, "left_out": left_out}


def _call(call: ToolCall) -> str:
    if call.raw is not None:
        return f"{call.name}({call.raw})"
    return call_text(call.name, call.arguments)


def _placed(pointer: Pointer, dialogue: Dialogue) -> bool:
    if not 0 <= pointer.turn < len(dialogue.turns):
        return False
    return 0 <= pointer.step < len(dialogue.turns[pointer.turn].steps)


def _yaml(value: Any) -> str:
    if value is None:
        return ""
    text: str = yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True, width=100)
    return text
