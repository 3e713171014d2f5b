"""Candidate: an item that might be kept, before lint has seen it.

Candidates of one turn name each other by `key`; ids C0, C1 … and weights that sum to 1 come last, when it is known
which of them stay. `checks` holds the check and then narrower ones, tried in this order where lint refuses one.
"""

from __future__ import annotations

import msgspec

from cm2.check import Check
from cm2.checklist import Checklist, Evidence, FocusOn, Item

LABELER = "reference"
CALLS: FocusOn = "assistant.tool_calls"
REPLY: FocusOn = "assistant.content.user_visible_reply"
ANSWER: FocusOn = "tool.content"


class Candidate(msgspec.Struct):
    """See the module. `weight` is relative: only its proportion to the turn's others counts."""

    kind: str
    key: str
    focus: FocusOn
    checks: list[Check]
    question: str
    passes: str
    weight: float
    evidence: list[Evidence]
    failures: list[str] = []
    strict: bool = False
    depends: list[str] = []

    @property
    def check(self) -> Check:
        """The check that is being tried."""
        return self.checks[0]


def checklist_of(turn: int, candidates: list[Candidate]) -> Checklist:
    """The checklist of a turn: ids in order, dependencies on what is there, weights normalised."""
    ids = {candidate.key: f"C{number}" for number, candidate in enumerate(candidates)}
    items = [
        Item(
            id=ids[candidate.key],
            focus_on=candidate.focus,
            question=candidate.question,
            pass_condition=candidate.passes,
            weight=candidate.weight,
            evidence=candidate.evidence,
            failure_examples=candidate.failures,
            required_for_next_turn=candidate.strict,
            depends_on=[ids[key] for key in candidate.depends if key in ids],
            check=candidate.check,
            kind=candidate.kind,
        )
        for candidate in candidates
    ]
    return Checklist(turn, items, labeler=LABELER).normalised()
