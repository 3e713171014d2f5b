"""Form: how a question to a judge is put, in two messages and a schema, and where its texts stand.

A form is one prompt: the rules that all judges share (`prompts/rules.txt`), then a file of its own whose part above the
line of equals signs says how to answer and whose part below it is the question. `Prompt.id` covers all of it. The
form `whole`, about a dialogue that is over, has rules of its own.

What is the same for many questions stands first, byte for byte: rules, how to answer, the rule of the fence (one a
task), the record (one that only grows), and the items last. `published` has the item in front of the record, as the
paper has it; that is what makes it dear. `dialogue` may have items in front of the record too, but there they are all
items of the task, the same for every run of it: behind the record stands which of them are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from cm2.checklist import Item
from cm2.formats.jsonlines import encode
from cm2.judge.placed import Placed
from cm2.judge.view import View
from cm2.llm import Prompt, load
from cm2.verdict import WHOLE

Name = Literal["turn", "dialogue", "step", "published", "whole"]
LOOKS_AT = {
    "assistant.tool_calls": "tool calls of the agent",
    "assistant.content.thinking": "private thinking of the agent",
    "assistant.content.user_visible_reply": "replies of the agent to the user",
    "tool.content": "answers of the tools",
}
_CUT = "\n=====\n"


class Form(msgspec.Struct, frozen=True):
    """One of the ways to ask. What an answer says of an item: `by_turn` the first step at which it holds,
    `by_dialogue` turn and step of that, else whether it holds."""

    name: Name
    prompt: Prompt
    system: Prompt
    user: Prompt

    @property
    def by_turn(self) -> bool:
        """Whether one question is about all states of the turn."""
        return self.name == "turn"

    @property
    def by_dialogue(self) -> bool:
        """Whether one question is about all turns of a dialogue."""
        return self.name == "dialogue"

    @property
    def decisions(self) -> tuple[str, ...]:
        """The fields of an entry that hold the decision."""
        return ("turn", "step") if self.by_dialogue else ("first_step",) if self.by_turn else ("holds",)

    @property
    def schema(self) -> dict[str, Any]:
        """The shape of the answer. Which ids must be there is not in it: an answer that is good for some of the items
        must not be thrown away for the others (see `cm2.judge.question`)."""
        decision = {"type": "boolean"} if self.decisions == ("holds",) else {"type": ["integer", "null"]}
        text = {"type": "string"}
        entry = {
            "type": "object",
            "properties": {"id": text, "reason": text} | dict.fromkeys(self.decisions, decision) | {"quote": text},
            "required": ["id", "reason", *self.decisions, "quote"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {"verdicts": {"type": "array", "items": entry}},
            "required": ["verdicts"],
            "additionalProperties": False,
        }

    def messages(
        self, view: View, items: list[Item], problems: dict[str, str], listed: Sequence[Item] = ()
    ) -> list[dict[str, Any]]:
        """The question about these items. `problems` says of an item what was wrong with the last answer about it.
        `listed` are the items that stand in front of the record; `items` are then named by their ids."""
        if listed:
            lines = _named(items, problems) if problems or len(items) < len(listed) else ""
        else:
            lines = "\n".join(item_line(item, problems.get(item.id)) for item in items)
        before = "\n".join(item_line(item) for item in listed)
        body = self.user.fill(
            record=view.record,
            thinking=view.thinking,
            turn=view.turn,
            last=view.upto,
            ending=view.ending,
            items=view.fence.block("asked" if listed else "items", lines) if lines else "",
            listed=view.fence.block("items", before) if before else "",
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
    rules = "" if name == "whole" else load("cm2.judge", "rules").text
    own = load("cm2.judge", name).text
    answer, question = own.split(_CUT)
    system = f"{rules.strip()}\n\n{answer.strip()}".strip()
    prompt = Prompt(f"judge/{name}", f"{rules}\n{own}")
    return Form(name, prompt, Prompt(f"judge/{name}.system", system), Prompt(f"judge/{name}.user", question))


def item_line(item: Item, problem: str | None = None) -> str:
    """An item as one line of JSON: nothing in its text can pass for another item."""
    told: dict[str, Any] = {"id": item.id}
    if isinstance(item, Placed):
        told["turn"] = "all" if item.turn == WHOLE else item.turn
    told |= {
        "looks_at": LOOKS_AT[item.focus_on],
        "question": item.question,
        "holds_when": item.pass_condition,
    }
    if item.failure_examples:
        told["fails_when"] = item.failure_examples
    if problem:
        told["problem"] = problem
    return encode(told).decode()


def _named(items: list[Item], problems: dict[str, str]) -> str:
    """Items that stand elsewhere, by their ids: in one line, or with their problems one a line."""
    if not problems:
        return encode([item.id for item in items]).decode()
    return "\n".join(encode({"id": item.id, "problem": problems.get(item.id, "")}).decode() for item in items)
