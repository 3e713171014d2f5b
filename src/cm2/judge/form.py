"""Form: how a question to a judge is put, in two messages and a schema, and where its texts stand.

A form is one prompt: the rules that all judges share (`prompts/rules.txt`), then a file of its own whose part above the
line of equals signs says how to answer and whose part below it is the question. `Prompt.id` covers all of it.

What is the same for many questions stands first, byte for byte: rules, how to answer, the rule of the fence (one a
task), the record (one that only grows), and the items last. `published` has the item in front of the record, as the
paper has it; that is what makes it dear.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from cm2.checklist import Item
from cm2.formats.jsonlines import encode
from cm2.judge.view import View
from cm2.llm import Prompt, load

Name = Literal["turn", "step", "published"]
LOOKS_AT = {
    "assistant.tool_calls": "tool calls of the agent",
    "assistant.content.thinking": "private thinking of the agent",
    "assistant.content.user_visible_reply": "replies of the agent to the user",
    "tool.content": "answers of the tools",
}
_CUT = "\n=====\n"


class Form(msgspec.Struct, frozen=True):
    """One of the ways to ask. `by_turn`: the answer names the first step at which an item holds."""

    name: Name
    prompt: Prompt
    system: Prompt
    user: Prompt

    @property
    def by_turn(self) -> bool:
        """Whether one question is about all states of the turn."""
        return self.name == "turn"

    @property
    def decision(self) -> str:
        """The field of an entry that holds the decision."""
        return "first_step" if self.by_turn else "holds"

    @property
    def schema(self) -> dict[str, Any]:
        """The shape of the answer. Which ids must be there is not in it: an answer that is good for some of the items
        must not be thrown away for the others (see `cm2.judge.question`)."""
        decision = {"type": ["integer", "null"]} if self.by_turn else {"type": "boolean"}
        text = {"type": "string"}
        entry = {
            "type": "object",
            "properties": {"id": text, "reason": text, self.decision: decision, "quote": text},
            "required": ["id", "reason", self.decision, "quote"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {"verdicts": {"type": "array", "items": entry}},
            "required": ["verdicts"],
            "additionalProperties": False,
        }

    def messages(self, view: View, items: list[Item], problems: dict[str, str]) -> list[dict[str, Any]]:
        """The question about these items. `problems` says of an item what was wrong with the last answer about it."""
        lines = "\n".join(item_line(item, problems.get(item.id)) for item in items)
        body = self.user.fill(
            record=view.record,
            thinking=view.thinking,
            turn=view.turn,
            last=view.upto,
            ending=view.ending,
            items=view.fence.block("items", lines),
            again=bool(problems),
            count="the one item" if len(items) == 1 else f"the {len(items)} items",
        )
        return [
            {"role": "system", "content": f"{self.system.text}\n\n{view.fence.rule}"},
            {"role": "user", "content": body},
        ]


@cache
def form(name: Name) -> Form:
    """The form of that name."""
    rules, own = load("cm2.judge", "rules").text, load("cm2.judge", name).text
    answer, question = own.split(_CUT)
    system = f"{rules.strip()}\n\n{answer.strip()}"
    prompt = Prompt(f"judge/{name}", f"{rules}\n{own}")
    return Form(name, prompt, Prompt(f"judge/{name}.system", system), Prompt(f"judge/{name}.user", question))


def item_line(item: Item, problem: str | None = None) -> str:
    """An item as one line of JSON: nothing in its text can pass for another item."""
    told: dict[str, Any] = {
        "id": item.id,
        "looks_at": LOOKS_AT[item.focus_on],
        "question": item.question,
        "holds_when": item.pass_condition,
    }
    if item.failure_examples:
        told["fails_when"] = item.failure_examples
    if problem:
        told["problem"] = problem
    return encode(told).decode()
