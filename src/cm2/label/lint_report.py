"""Report of lint: what was tested of an item, and what it failed."""

from __future__ import annotations

import msgspec

from cm2.checklist import Checklist, validate
from cm2.dialogue import Dialogue

STOCK: tuple[str, ...] = (
    "Sure, I have taken care of that for you.",
    "I'm sorry, but I can't help with that.",
    "Could you please give me more details?",
    "You're welcome! Is there anything else I can help you with?",
    "Hello! How can I help you today?",
)
"""Answers that fit any turn: nothing may hold on them."""


class Failure(msgspec.Struct):
    """A test that an item fails, and what was seen."""

    test: str
    message: str


class ItemReport(msgspec.Struct, omit_defaults=True):
    """One item's result; `item` is "" for what concerns the whole checklist. `tests` are those that apply to it."""

    dialogue: str
    turn: int
    item: str
    ok: bool
    tests: list[str]
    kind: str = ""
    variant: int = 0
    line: int | None = None
    unscored: bool = False
    failures: list[Failure] = []


def broken_rules(checklist: Checklist, dialogue: Dialogue) -> dict[str, list[Failure]]:
    """What `cm2.checklist.validate` finds, by item; "" is the checklist as a whole."""
    broken: dict[str, list[Failure]] = {}
    for violation in validate(checklist, dialogue):
        test = "evidence" if violation.rule == "evidence" else "rules"
        broken.setdefault(violation.item or "", []).append(Failure(test, f"{violation.rule}: {violation.message}"))
    return broken
