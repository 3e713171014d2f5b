"""Statistics of a file of dialogues: what is in it, before anything is decided about it.

Everything is counted in one pass; a distribution keeps how often each value came, not the values, so a file of any
length fits. Tokens need a tokenizer; without one they are estimated from the characters, and named an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cm2.checklist import Task, call_text
from cm2.dialogue import Dialogue, Step
from cm2.formats.jsonlines import encode
from cm2.judge.values import is_error

CHARACTERS_PER_TOKEN = 4
ESTIMATE = f"an estimate: characters / {CHARACTERS_PER_TOKEN}"
KEPT_PROBLEMS = 5


class Distribution(msgspec.Struct):
    """How often each whole number came."""

    counts: dict[int, int] = {}

    def add(self, value: int) -> None:
        """Count one more."""
        self.counts[value] = self.counts.get(value, 0) + 1

    @property
    def size(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    @property
    def total(self) -> int:
        """The sum of the values."""
        return sum(value * count for value, count in self.counts.items())

    @property
    def mean(self) -> float | None:
        """None where nothing was counted."""
        return self.total / self.size if self.counts else None

    def quantile(self, share: float) -> int | None:
        """The smallest value that at least `share` of the values do not exceed; None where nothing was counted."""
        wanted, seen = max(1, math.ceil(share * self.size)), 0
        for value in sorted(self.counts):
            seen += self.counts[value]
            if seen >= wanted:
                return value
        return None

    def bins(self, most: int) -> list[tuple[int, int, int]]:
        """At most so many bins of one width, as (first value, last value, count), without gaps."""
        if not self.counts:
            return []
        low, high = min(self.counts), max(self.counts)
        width = -(-(high - low + 1) // most)
        found = [[start, start + width - 1, 0] for start in range(low, high + 1, width)]
        for value, count in self.counts.items():
            found[(value - low) // width][2] += count
        return [(first, last, count) for first, last, count in found]

    def as_json(self) -> dict[str, float | int | None]:
        """The numbers that a summary shows."""
        quantiles = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
        return {"mean": self.mean, **{name: self.quantile(share) for name, share in quantiles.items()}}


DISTRIBUTIONS = {
    "turns_per_dialogue": "turns per dialogue",
    "steps_per_turn": "steps per turn",
    "calls_per_dialogue": "calls per dialogue",
    "tools_per_dialogue": "tools per dialogue",
    "tokens_per_dialogue": "tokens per dialogue",
}
"""The distributions of `Statistics` by field, and what a reader calls them."""


class Statistics(msgspec.Struct):
    """What a file holds."""

    tokens_by: str = ESTIMATE
    """How tokens were counted."""
    dialogues: int = 0
    turns: int = 0
    steps: int = 0
    calls: int = 0
    malformed_calls: int = 0
    """Calls whose arguments do not parse to an object."""
    unknown_calls: int = 0
    """Calls of a tool that the dialogue does not offer."""
    unanswered_calls: int = 0
    errors: int = 0
    """Tool responses that are errors."""
    openings: int = 0
    """Dialogues that the assistant begins."""
    thinking_steps: int = 0
    tokens: int = 0
    labelled: int = 0
    """Dialogues with a checklist."""
    items: int = 0
    unreadable: int = 0
    problems: list[str] = []
    offered: dict[str, int] = {}
    """By tool: how many dialogues offer it."""
    called: dict[str, int] = {}
    """By tool: how often it was called."""
    turns_per_dialogue: Distribution = msgspec.field(default_factory=Distribution)
    steps_per_turn: Distribution = msgspec.field(default_factory=Distribution)
    calls_per_dialogue: Distribution = msgspec.field(default_factory=Distribution)
    tools_per_dialogue: Distribution = msgspec.field(default_factory=Distribution)
    tokens_per_dialogue: Distribution = msgspec.field(default_factory=Distribution)

    @property
    def thinking_share(self) -> float | None:
        """Share of the steps that think, None where there is no step."""
        return self.thinking_steps / self.steps if self.steps else None

    def add(self, task: Task, count: Callable[[str], int] | None = None) -> None:
        """Count a dialogue in. `count` tells the tokens of a text; without it they are estimated."""
        dialogue = task.dialogue
        names = {tool.name for tool in dialogue.tools}
        self.dialogues += 1
        self.openings += bool(dialogue.opening)
        self.labelled += bool(task.checklists)
        self.items += sum(len(checklist.items) for checklist in task.checklists)
        for name in names:
            self.offered[name] = self.offered.get(name, 0) + 1
        for turn in dialogue.turns:
            self.steps_per_turn.add(len(turn.steps))
            self.steps += len(turn.steps)
            self.thinking_steps += sum(bool(step.thinking) for step in turn.steps)
        calls = 0
        for _, _, _, call, response in dialogue.calls():
            calls += 1
            self.malformed_calls += not call.valid
            self.unknown_calls += call.name not in names
            self.unanswered_calls += response is None
            self.errors += response is not None and is_error(response)
            self.called[call.name] = self.called.get(call.name, 0) + 1
        tokens = tokens_of(dialogue, count)
        self.turns, self.calls, self.tokens = self.turns + len(dialogue.turns), self.calls + calls, self.tokens + tokens
        self.turns_per_dialogue.add(len(dialogue.turns))
        self.calls_per_dialogue.add(calls)
        self.tools_per_dialogue.add(len(dialogue.tools))
        self.tokens_per_dialogue.add(tokens)

    def unread(self, row: Any) -> None:
        """Count a row in that does not read."""
        self.unreadable += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"line {row.line}: {row.error}")

    def as_json(self) -> dict[str, Any]:
        """The statistics as JSON values; distributions as their numbers, tools by how often they are called."""
        value = {key: msgspec.to_builtins(getattr(self, key)) for key in self.__struct_fields__}
        names = sorted({*self.offered, *self.called}, key=lambda name: (-self.called.get(name, 0), name))
        del value["offered"], value["called"]
        value |= {key: getattr(self, key).as_json() for key in DISTRIBUTIONS}
        tools = {name: {"dialogues": self.offered.get(name, 0), "calls": self.called.get(name, 0)} for name in names}
        return {**value, "thinking_share": self.thinking_share, "distinct_tools": len(self.offered), "tools": tools}


def tokens_of(dialogue: Dialogue, count: Callable[[str], int] | None = None) -> int:
    """The tokens of everything in a dialogue that a model reads or writes; estimated where nobody counts."""
    if count is None:
        return round(sum(map(len, _texts(dialogue))) / CHARACTERS_PER_TOKEN)
    return sum(map(count, _texts(dialogue)))


def _texts(dialogue: Dialogue) -> Iterator[str]:
    """Every text of a dialogue that a model reads or writes: tools, what was said, thought, called and answered."""
    for tool in dialogue.tools:
        yield encode([tool.name, tool.description, tool.parameters]).decode()
    yield dialogue.system or ""
    for step in dialogue.opening:
        yield from _step_texts(step)
    for turn in dialogue.turns:
        yield turn.user
        for step in turn.steps:
            yield from _step_texts(step)


def _step_texts(step: Step) -> Iterator[str]:
    yield step.thinking or ""
    for call in step.calls:
        yield f"{call.name}({call.raw})" if call.raw is not None else _call_text(call.name, call.arguments)
    yield step.reply or ""
    for response in step.responses:
        yield response.content


def _call_text(name: str, arguments: Any) -> str:
    try:
        return call_text(name, arguments)
    except UnicodeEncodeError:  # lone surrogates
        return call_text(name, encode(arguments).decode())
