"""Shape: how long a dialogue of the tasks is, which a recipe does not say.

The default is the size that the cost of judging is told for in docs/judge.md: 3 turns of 3 steps and 6 items, a history
of some 4,000 tokens. `of_tasks` measures a file of tasks instead.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.formats import read_tasks

CHARACTERS = 4
"""Characters of a token, where a text is measured without its tokenizer."""
Some = Annotated[float, msgspec.Meta(gt=0)]
Tokens = Annotated[float, msgspec.Meta(ge=0)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mean dialogue of a run."""

    turns: Some = 3.0
    """User messages that a rollout gets to; strict items end some early."""
    steps: Some = 3.0
    """Actions of a turn, the reply among them."""
    items: Tokens = 6.0
    """Items of a turn's checklist."""
    prompt: Tokens = 1400.0
    """Tokens of the system prompt and the tools."""
    user: Tokens = 60.0
    """Tokens of a user message."""
    action: Some = 200.0
    """Tokens that the policy samples in a step, thinking included."""
    response: Tokens = 100.0
    """Tokens of the tools' answers to a step that calls."""

    @property
    def generated(self) -> float:
        """Tokens that the policy samples in a rollout."""
        return self.turns * self.steps * self.action

    @property
    def calls(self) -> float:
        """Steps of a rollout that call tools: all but the reply of each turn."""
        return self.turns * max(self.steps - 1, 0)

    @property
    def shown(self) -> float:
        """Tokens of a rollout that the policy did not sample."""
        return self.prompt + self.turns * self.user + self.calls * self.response

    @property
    def total(self) -> float:
        """Tokens of a rollout at its end."""
        return self.generated + self.shown

    def after(self, turn: float, step: float) -> float:
        """Tokens of the record once `step` actions of turn `turn` (0-based) are over."""
        turn_tokens = self.user + self.steps * self.action + max(self.steps - 1, 0) * self.response
        return (
            self.prompt
            + turn * turn_tokens
            + self.user
            + step * self.action
            + min(step, self.steps - 1) * self.response
        )


def of_tasks(path: str, format: str = "auto", limit: int = 500) -> Shape:
    """The mean dialogue of a file of tasks, measured on its first `limit` reference dialogues, in characters.

    Raises:
        DataError: no task is in the file.
    """
    sums = dict.fromkeys(("dialogues", "turns", "steps", "items", "prompt", "user", "action", "response", "calls"), 0)
    for _, task in read_tasks(path, format):
        _add(task, sums)
        if sums["dialogues"] == limit:
            break
    if not sums["turns"] or not sums["steps"]:
        raise DataError("has no task to measure", where=Where(file=path), fix="label dialogues first: cm2 label")
    each = sums["dialogues"]
    return Shape(
        turns=sums["turns"] / each,
        steps=max(sums["steps"] / sums["turns"], 1),
        items=sums["items"] / sums["turns"],
        prompt=sums["prompt"] / CHARACTERS / each,
        user=sums["user"] / CHARACTERS / sums["turns"],
        action=max(sums["action"] / CHARACTERS / sums["steps"], 1),
        response=sums["response"] / CHARACTERS / max(sums["calls"], 1),
    )


def _add(task: Task, sums: dict[str, int]) -> None:
    dialogue = task.dialogue
    sums["dialogues"] += 1
    sums["turns"] += len(dialogue.turns)
    sums["items"] += sum(len(checklist.items) for checklist in task.checklists)
    sums["prompt"] += len(dialogue.system or "") + sum(len(msgspec.json.encode(tool)) for tool in dialogue.tools)
    for turn in dialogue.turns:
        sums["user"] += len(turn.user or "")
        sums["steps"] += len(turn.steps)
        for step in turn.steps:
            calls = sum(len(msgspec.json.encode(call)) for call in step.calls)
            sums["action"] += len(step.thinking or "") + len(step.reply or "") + calls
            sums["response"] += sum(len(answer.content) for answer in step.responses)
            sums["calls"] += bool(step.calls)
