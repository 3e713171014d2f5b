"""Features: what selection knows of a dialogue: a few numbers, its tools, a signature of what was asked and done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import msgspec

from cm2.checklist import call_text
from cm2.curate.minhash import Signatures, shingles, signature
from cm2.curate.statistics import tokens_of
from cm2.dialogue import Dialogue, ToolCall
from cm2.formats.jsonlines import encode
from cm2.judge.values import is_error

NUMBERS = {
    "turns": "turns",
    "steps": "steps, all turns together",
    "depth": "steps with calls in the turn that has most of them",
    "calls": "calls",
    "tools": "different tools that are called",
    "offered": "tools on offer",
    "tokens": "tokens",
    "errors": "tool responses that are errors",
}
"""The numbers of a dialogue by name, and what a reader calls them."""
COMPLEXITY = {"turns": 1.0, "steps": 1.0, "calls": 1.0, "tools": 1.0}
"""The weights of complexity where nobody gives others."""


class Features(msgspec.Struct):
    """What is known of a dialogue."""

    numbers: dict[str, int]
    called: set[str]
    offered: set[str]


def features(dialogue: Dialogue, count: Callable[[str], int] | None = None) -> Features:
    """The features of a dialogue. `count` tells the tokens of a text; without it they are estimated."""
    calls = list(dialogue.calls())
    called = {call.name for _, _, _, call, _ in calls}
    offered = {tool.name for tool in dialogue.tools}
    numbers = {
        "turns": len(dialogue.turns),
        "steps": sum(len(turn.steps) for turn in dialogue.turns),
        "depth": max((sum(bool(step.calls) for step in turn.steps) for turn in dialogue.turns), default=0),
        "calls": len(calls),
        "tools": len(called),
        "offered": len(offered),
        "tokens": tokens_of(dialogue, count),
        "errors": sum(response is not None and is_error(response) for _, _, _, _, response in calls),
    }
    return Features(numbers, called, offered)


def complexity(numbers: Mapping[str, int], weights: Mapping[str, float] = COMPLEXITY) -> float:
    """How much there is to a dialogue: the weighted sum of log2(1 + n), so that twice the calls count as much as twice
    the turns, and a tenth turn less than a second."""
    return sum(weight * math.log2(1 + numbers[name]) for name, weight in weights.items())


def near_signature(dialogue: Dialogue) -> Signatures:
    """The signature by which near-duplicates are found: what the user says and what is called, not how it is answered.

    Two dialogues of the same wishes and calls teach and test the same, whatever the wording of the replies.
    """
    return signature(shingles(_asked(dialogue)))


def _asked(dialogue: Dialogue) -> Iterator[str]:
    for turn in dialogue.turns:
        yield turn.user
        for step in turn.steps:
            yield from map(_text, step.calls)


def _text(call: ToolCall) -> str:
    try:
        return call_text(call.name, call.raw if call.raw is not None else call.arguments)
    except UnicodeEncodeError:  # lone surrogates
        return call_text(call.name, encode(call.arguments).decode())
