"""Prospect: which items of a turn can hold at all, before anybody is asked.

The first step after which an item can be satisfied is

    soonest(c) = max(first step with the part that c looks at, 1 + max over what c depends on of soonest(d))

because what c depends on must be satisfied in the state before the step (method, eq. 2). Where that lies behind the
last step, the item cannot be satisfied in this turn: a no, with the reason, and no call. An item that was decided
already (by a check) is as soon as its first yes; one that nobody could decide may hold.

Items about what must not happen hold where nothing is: their part may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cm2.checklist import Item
from cm2.dialogue import Step
from cm2.judge.view import has_part

NEVER = 1 << 30
NEGATIVE_KINDS = ("no_write", "refusal")
_NEGATIVE = re.compile(
    r"\b(?:not?|never|none|nothing|nobody|neither|nor|without|only|just|unless|until|before|zero|instead|cannot|intact|"
    r"left|kept|at most|den(?:y|ies|ied)|(?:hold|holds|holding|held) (?:off|back)|"
    r"(?:avoid|refrain|abstain|refus|declin|untouch|unchang|unmodif|leav|keep|skip|stop|wait|withh|omit|absen|fail|reject|"
    r"ignor|prevent|forgo)\w*)\b|n't\b",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"\b(?:do|does|need)(?: not|n't)(?: \w+)? (?:matter|count|need|have to)\w*\b|"
    r"\b(?:no|not an?|without(?: an?)?) errors?\b",
    re.IGNORECASE,
)
ABSENT = {
    "assistant.tool_calls": "the turn has no tool call",
    "tool.content": "no tool answered in the turn",
    "assistant.content.thinking": "the turn has no thinking",
    "assistant.content.user_visible_reply": "the turn has no reply",
}


def negative(item: Item) -> bool:
    """Whether the item may be about what must not happen. When in doubt it is: that costs a call, not a verdict."""
    if item.kind in NEGATIVE_KINDS:
        return True
    return any(_NEGATIVE.search(_HARMLESS.sub(" ", text)) for text in (item.question, item.pass_condition))


def first_part(item: Item, steps: list[Step]) -> int:
    """The first step with the part that the item looks at; NEVER where there is none.

    An agent that says nothing earns nothing, so a reply item waits for a reply whatever it asks; so does an item about
    thinking. Negative items about calls and answers hold in their absence.
    """
    if item.focus_on in ("assistant.tool_calls", "tool.content") and negative(item):
        return 0
    return next((s for s, step in enumerate(steps) if has_part(step, item.focus_on)), NEVER)


def cannot_hold(
    items: list[Item],
    steps: list[Step],
    met: Mapping[str, list[bool | None]],
    *,
    absent: bool = True,
    ungrounded: bool = True,
) -> dict[str, str]:
    """The items without a verdict that cannot be satisfied in this turn, each with the reason.

    Args:
        items: of the checklist.
        steps: of the turn.
        met: per item that is decided already, what was said after each step.
        absent: whether an absent part counts.
        ungrounded: whether dependencies count.
    """
    by_id = {item.id: item for item in items}
    found: dict[str, int] = {}

    def grounds(item: Item) -> tuple[int, str]:
        """The first step before which everything that the item depends on may be satisfied, and what is last."""
        last, who = 0, ""
        for id in item.depends_on if ungrounded else ():
            at = soonest(by_id[id]) + 1 if id in by_id else 0
            if at > last:
                last, who = at, id
        return last, who

    def soonest(item: Item) -> int:
        if item.id in found:
            return found[item.id]
        found[item.id] = NEVER  # what depends on itself is never satisfied
        start = grounds(item)[0]
        if item.id in met:
            says = met[item.id]
            at = next((s for s in range(start, len(says)) if says[s] is not False), NEVER)
        else:
            at = max(start, first_part(item, steps) if absent else 0)
        found[item.id] = at if at < len(steps) else NEVER
        return found[item.id]

    reasons = {}
    for item in items:
        if item.id in met or soonest(item) < NEVER:
            continue
        start, who = grounds(item)
        if start >= len(steps):
            reasons[item.id] = f"cannot hold: {who}, which it depends on, is not satisfied before any step of the turn"
        else:
            reasons[item.id] = f"cannot hold: {ABSENT[item.focus_on]}"
    return reasons
