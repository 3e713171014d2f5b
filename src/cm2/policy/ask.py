"""Ask: duties that a language model reads out of a policy's text.

The text is cut into parts of a few pages; each is one question, with the agent's tools beside it. Text and tools were
written by others, so both stand in a fence. What comes back is believed as far as it can be proven: the sentence that a
duty names must stand in the text, its expressions must compile (one second chance for all mistakes of an answer), and
the logs then say how often it applies and passes (`cm2.policy.prove`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cm2.check import Check, Expression
from cm2.errors import DataError, Where
from cm2.judge.expression import compiled
from cm2.judge.quote import quoted as stands
from cm2.llm import Asker, ModelError, Prompt, ProviderError, Request, load
from cm2.llm.fence import Fence
from cm2.policy.mine import name
from cm2.policy.policy import Duty

PART = 12_000
"""Characters of policy text in one question."""
TOOLS = 200
"""Tools that are shown, those called most."""
_CUT = "\n=====\n"
_FOCUS: dict[str, Any] = {
    "tool_calls": "assistant.tool_calls",
    "tool_answers": "tool.content",
    "replies": "assistant.content.user_visible_reply",
}
_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "duties": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": _TEXT,
                    "question": _TEXT,
                    "pass_condition": _TEXT,
                    "severity": {"enum": ["critical", "major", "minor"]},
                    "scope": {"enum": ["dialogue", "turn"]},
                    "looks_at": {"enum": list(_FOCUS)},
                    "applies_when": _MAYBE,
                    "check": _MAYBE,
                    "sentence": _TEXT,
                },
                "required": [
                    *("id", "question", "pass_condition", "severity", "scope", "looks_at"),
                    *("applies_when", "check", "sentence"),
                ],
                "additionalProperties": False,
            },
        }
    },
    "required": ["duties"],
    "additionalProperties": False,
}


class Drafted(msgspec.Struct):
    """What the model proposed."""

    duties: list[Duty] = []
    refused: list[str] = []
    """Duties that were not taken, each with the reason."""
    failed: list[str] = []
    """Parts of the text that the model or its provider gave no valid answer for."""
    cost: float = 0.0


async def ask_duties(text: str, tools: dict[str, tuple[str, int]], asker: Asker) -> Drafted:
    """The duties of a policy's text.

    Args:
        text: of the policy.
        tools: of the agent: description and how often it was called, by name.
        asker: whom to ask, in the role `labeler`.

    Raises:
        ProviderError: fatal: no further question would be answered.
        BudgetReached: there is no money left.
    """
    found = Drafted()
    parts = split(text)
    fence = Fence.make(getattr(asker, "secret", ""), "policy")
    system, question = load("cm2.policy", "draft").text.split(_CUT)
    prompt = load("cm2.policy", "draft")
    listed = sorted(tools.items(), key=lambda item: (-item[1][1], item[0]))[:TOOLS]
    shown = fence.block("tools", "\n".join(f"{tool} ({n} calls): {about[:300]}" for tool, (about, n) in listed))
    for number, part in enumerate(parts):
        problems = ""
        for chance in range(2):
            body = Prompt("policy/draft.user", question).fill(
                tools=shown,
                text=fence.block("policy", part),
                part=f", part {number + 1} of {len(parts)}" if len(parts) > 1 else "",
                problems=problems,
            )
            request = Request(
                role="labeler",
                messages=[
                    {"role": "system", "content": f"{system.strip()}\n\n{fence.rule}"},
                    {"role": "user", "content": body},
                ],
                schema=SCHEMA,
                prompt=prompt.id,
                stage="policy: draft again" if chance else "policy: draft",
                where=Where(path=f"part {number + 1} of the policy"),
                planned={"duties": []},
            )
            try:
                answer = await asker.ask(request)
            except (ProviderError, ModelError) as error:
                if isinstance(error, ProviderError) and error.fatal:
                    raise
                found.failed.append(f"part {number + 1}: {error}")
                break
            found.cost += answer.cost
            read = [_read(entry, part, fence.nonce) for entry in answer.value["duties"]]
            wrong = [
                f"{entry['id']}: {why}" for entry, (_, why) in zip(answer.value["duties"], read, strict=True) if why
            ]
            if wrong and not chance:
                problems = fence.block("mistakes", "\n".join(wrong[:40]))
                continue
            _take(found, read, wrong)
            break
    return found


def _take(found: Drafted, read: list[tuple[Duty | None, str]], wrong: list[str]) -> None:
    known = {duty.id for duty in found.duties}
    for duty, _ in read:
        if duty is None:
            continue
        id, count = duty.id, 2
        while duty.id in known:
            duty, count = msgspec.structs.replace(duty, id=f"{id}-{count}"), count + 1
        known.add(duty.id)
        found.duties.append(duty)
    found.refused += wrong


def _read(entry: dict[str, Any], text: str, nonce: str) -> tuple[Duty | None, str]:
    """The duty of an entry, and what is wrong with it. A check that does not compile is left out of the duty."""
    id, question, sentence = name(entry["id"]), entry["question"].strip(), entry["sentence"].strip()
    if not id or not question:
        return None, "it needs an id and a question"
    if not stands(sentence, text, nonce):
        return None, f"its sentence does not stand in the policy text: {sentence[:120]!r}"
    made: dict[str, Check | None] = {"applies_when": None, "check": None}
    wrong = ""
    for field in made:
        cel = (entry[field] or "").strip()
        if not cel:
            continue
        try:
            compiled(cel)
            made[field] = Expression(cel)
        except DataError as error:
            wrong = f"{field}: {error.message}"
    if wrong:  # without its occasion a check says nothing, and the other way round a question is still worth asking
        made = {"applies_when": made["applies_when"], "check": None}
    duty = Duty(
        id=id,
        question=question,
        pass_condition=entry["pass_condition"].strip(),
        scope=entry["scope"],
        severity=entry["severity"],
        applies_when=made["applies_when"],
        check=made["check"],
        focus_on=_FOCUS[entry["looks_at"]],
        note=f"Policy: {sentence}",
    )
    return duty, wrong


def split(text: str, size: int = PART) -> list[str]:
    """The text in parts of at most `size` characters, cut between paragraphs where that is possible."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        while len(paragraph) > size:
            parts.append(paragraph[:size])
            paragraph = paragraph[size:]
        if parts and len(parts[-1]) + len(paragraph) + 2 <= size:
            parts[-1] += f"\n\n{paragraph}"
        else:
            parts.append(paragraph)
    return [part for part in parts if part.strip()]
