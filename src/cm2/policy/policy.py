"""Policy > Duty: what an agent owes in every dialogue of a workflow.

A duty is an item (see `cm2.checklist`) that its owner wrote down once, for all dialogues: it says when it applies, how
it is decided (by a check, or by a question that a judge answers), how bad it is to fail it, and carries tests of its
own. `Policy.checklists` makes the checklists of one dialogue of it, so that what reads checklists reads policies.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from cm2.check import Check
from cm2.checklist import Checklist, FocusOn, Item, Severity
from cm2.dialogue import Dialogue
from cm2.verdict import WHOLE

Scope = Literal["dialogue", "turn"]
WEIGHTS: dict[Severity, float] = {"critical": 4.0, "major": 2.0, "minor": 1.0}
"""What a duty counts in a dialogue's score. Powers of two: one critical failure outweighs a major and a minor one."""


class DutyTest(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A short example on which the duty must come out as expected; `cm2 lint` runs it."""

    name: str
    messages: list[dict[str, Any]]
    """Chat messages, as in the openai format."""
    expect: Literal["pass", "fail", "not_applicable"]
    tools: list[dict[str, Any]] = []
    """Tools, where the check needs their schemas."""


class Duty(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One duty: binary, and grounded in what is said and done."""

    id: str
    """Short and speaking: `confirm-before-write`. Verdicts, reports and gates call it by this name."""
    question: str
    """The duty as one yes-or-no question: yes is good."""
    pass_condition: str = ""
    """What exactly makes it a yes, with the tolerance."""
    scope: Scope = "dialogue"
    """dialogue: judged once, over all of it. turn: judged for each turn in which it applies."""
    severity: Severity = "major"
    owner: str = ""
    """Who answers for the duty."""
    applies_when: Check | None = None
    """The occasion; without one it always applies."""
    check: Check | None = None
    """Decides it without a model. Without one a judge that asks a model answers the question."""
    focus_on: FocusOn = "assistant.tool_calls"
    failure_examples: list[str] = []
    tests: list[DutyTest] = []
    status: Literal["active", "retired"] = "active"
    """A retired duty is kept for the record and not judged."""
    note: str = ""
    """Where it comes from: the sentence of the policy, an incident."""

    def item(self) -> Item:
        """The duty as an item of a checklist; its weight is the severity's (`WEIGHTS`), not normalised."""
        return Item(
            id=self.id,
            focus_on=self.focus_on,
            question=self.question,
            pass_condition=self.pass_condition or self.question,
            weight=WEIGHTS[self.severity],
            failure_examples=self.failure_examples,
            check=self.check,
            kind="duty",
            applies_when=self.applies_when,
            severity=self.severity,
            owner=self.owner,
        )


class Policy(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The duties of one workflow."""

    name: str
    duties: list[Duty]
    description: str = ""
    version: str = ""

    @property
    def fingerprint(self) -> str:
        """What is the same for two policies that judge alike: tests, notes and retired duties do not count."""
        judged = [(duty.scope, duty.item()) for duty in self.active]
        return hashlib.blake2b(msgspec.json.encode([self.name, judged]), digest_size=16).hexdigest()

    @property
    def active(self) -> list[Duty]:
        """The duties that are judged."""
        return [duty for duty in self.duties if duty.status == "active"]

    def duty(self, id: str) -> Duty | None:
        """The duty of that id, or None."""
        return next((duty for duty in self.duties if duty.id == id), None)

    def checklists(self, dialogue: Dialogue) -> list[Checklist]:
        """The checklists of one dialogue: one about the whole of it, and one for each of its turns."""
        whole = [duty.item() for duty in self.active if duty.scope == "dialogue"]
        each = [duty.item() for duty in self.active if duty.scope == "turn"]
        made = [Checklist(WHOLE, whole, labeler=f"policy:{self.name}")] if whole else []
        turns = range(len(dialogue.turns)) if each else ()
        return made + [Checklist(turn, each, labeler=f"policy:{self.name}") for turn in turns]
