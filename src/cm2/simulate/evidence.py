"""Evidence: what bears on a call, out of all that a session may know.

A model that answers for a tool must not contradict what the rollout knows already, so it is shown what speaks of the
same things as the call. That depends on the call and on what the session knows, never on what siblings did, and not on
the order in which the session read: siblings that know the same about a call ask the same question.

Something *speaks of the same things* when a value of the call's arguments (a name, an id, a date; nothing shorter than
three characters) stands in it, or a value of a write that speaks of them: a booking leads to its hotel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cm2.dialogue import ToolCall
from cm2.judge.values import leaves, scalar_text, walk
from cm2.simulate.horizon import Record
from cm2.simulate.replay import Context, Heard, call_key

_SHORTEST = 3


class Evidence(msgspec.Struct):
    """What is shown beside the call, its tool, the person's messages and the session's writes."""

    own: list[Record]
    """Recorded answers of the same tool: the nearest ones, with a failed and an empty one where there are any."""
    others: list[Record]
    """Recorded answers of other tools that speak of the same things."""
    heard: list[Heard]
    """What the session was told besides that speaks of the same things, in one order whatever the order of reading."""


def evidence(call: ToolCall, context: Context, known: list[Record], *, examples: int, others: int) -> Evidence:
    """What bears on a call.

    Args:
        call: the call.
        context: what its session did.
        known: the recorded answers that are open to it.
        examples: recorded answers of the same tool, at most.
        others: recorded answers of other tools, and answers that the session was told, at most so many of each.
    """
    own = [record for record in known if record.call.name == call.name]
    wide = subjects(call.arguments)
    for write, content in context.writes:
        if bearing(wide, write, content):
            wide |= subjects(write.arguments) | subjects(list(leaves(content).exact))
    narrow = subjects(call.arguments)
    written = {(call_key(write), content) for write, content in context.writes}
    recorded = {(call_key(record.call), record.content) for record in known}
    heard: dict[tuple[int, str], Heard] = {}
    for one in context.heard:
        key = call_key(one.call)
        if (key, one.content) not in written and (key, one.content) not in recorded:
            heard[one.writes, key] = one

    def weight(made: ToolCall, content: str) -> tuple[int, int]:
        return bearing(narrow, made, content), bearing(wide, made, content)

    foreign = [record for record in known if record.call.name != call.name]
    return Evidence(
        own=_examples(own, call, examples),
        others=_best([(record, weight(record.call, record.content)) for record in foreign], others),
        heard=_best(
            [(heard[place], weight(heard[place].call, heard[place].content)) for place in sorted(heard)], others
        ),
    )


def subjects(value: Any) -> set[str]:
    """The values that tell what something is about, as text."""
    texts = {scalar_text(leaf) for leaf in walk(value, keys=False) if not isinstance(leaf, bool)}
    return {text for text in texts if len(text) >= _SHORTEST}


def bearing(about: Iterable[str], call: ToolCall, content: str) -> int:
    """How many of these values stand in a call or its answer."""
    asked, told = subjects(call.arguments), leaves(content)
    return sum(text in asked or told.hold(text) for text in about)


def _best(weighed: list[tuple[Any, tuple[int, int]]], most: int) -> list[Any]:
    """Those that speak of anything, the most telling (then the latest) chosen, in their order."""
    telling = [(weight, index) for index, (_, weight) in enumerate(weighed) if weight[1]]
    return [weighed[index][0] for index in sorted(index for _, index in sorted(telling, reverse=True)[:most])]


def _examples(own: list[Record], call: ToolCall, most: int) -> list[Record]:
    arguments = call.arguments if isinstance(call.arguments, dict) else {}

    def near(index: int) -> tuple[int, int]:
        made = own[index].call.arguments
        return sum(made.get(name) == value for name, value in arguments.items()), -index

    chosen = [index for index, one in enumerate(own) if one.error][:1]
    chosen += [index for index, one in enumerate(own) if one.empty][:1]
    rest = sorted((index for index in range(len(own)) if index not in chosen), key=near, reverse=True)
    return [own[index] for index in sorted((chosen[: max(0, most - 1)] + rest)[:most])]
