"""Checklist > Item: an agent's duties in one turn, as binary questions grounded in evidence.

Every turn of a reference dialogue carries a checklist, written after the fact from the reference trajectory. An item
may carry a `Check` (see `cm2.check`): a condition that decides the item without a language model. `validate` holds a
checklist against the rules of the method; it returns violations rather than raising, so that one bad item never hides
the others.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

import msgspec

from cm2.check import Check
from cm2.dialogue import Dialogue, Step
from cm2.errors import Where
from cm2.verdict import WHOLE

FocusOn = Literal[
    "assistant.tool_calls",
    "assistant.content.thinking",
    "assistant.content.user_visible_reply",
    "tool.content",
]
Severity = Literal["critical", "major", "minor"]
WEIGHT_TOLERANCE = 1e-6


class Evidence(msgspec.Struct, rename={"source": "from"}, omit_defaults=True):
    """A pointer into the reference trajectory: `snippet` stands in that part of that step. Never the user message."""

    turn: int
    step: int
    source: FocusOn
    snippet: str


class Item(msgspec.Struct, omit_defaults=True):
    """One binary, atomic duty. Field meanings follow the method's table (section 2)."""

    id: str
    focus_on: FocusOn
    question: str
    pass_condition: str
    weight: float
    evidence: list[Evidence] = []
    failure_examples: list[str] = []
    required_for_next_turn: bool = False
    depends_on: list[str] = []
    check: Check | None = None
    kind: str = ""
    """What sort of duty it is (call, response, reply, refusal, clarification, no_write …): for statistics only."""
    applies_when: Check | None = None
    """The occasion: where it does not hold, the item is not applicable, which is neither a yes nor a no."""
    severity: Severity | None = None
    """How bad it is to fail it; duties of a policy have one."""
    owner: str = ""
    """Who answers for the duty, of those who wrote it."""


class Checklist(msgspec.Struct, omit_defaults=True):
    """The items of one turn. Several checklists of one turn (independent labellings) differ in `variant`.

    `turn` is -1 (`cm2.verdict.WHOLE`) for items about the whole dialogue: their checks look at every turn, and they are
    judged once, when it is over. They diagnose; rewards are made of the turns' own.
    """

    turn: Annotated[int, msgspec.Meta(ge=WHOLE)]
    items: list[Item]
    variant: int = 0
    labeler: str = ""

    def item(self, id: str) -> Item | None:
        """The item of that id, or None."""
        return next((item for item in self.items if item.id == id), None)

    def normalised(self) -> Checklist:
        """The same checklist with weights that sum to 1 (unchanged where there are no items)."""
        total = sum(item.weight for item in self.items)
        if not self.items or total <= 0:
            return self
        items = [msgspec.structs.replace(item, weight=item.weight / total) for item in self.items]
        return msgspec.structs.replace(self, items=items)


class Task(msgspec.Struct, omit_defaults=True):
    """A reference dialogue with its checklists: what a rollout is run and judged on."""

    dialogue: Dialogue
    checklists: list[Checklist] = []

    def checklist(self, turn: int, variant: int = 0) -> Checklist | None:
        """The checklist of that turn and variant, or None where the turn has no duties."""
        return next((c for c in self.checklists if c.turn == turn and c.variant == variant), None)


class Violation(msgspec.Struct):
    """One broken rule of a checklist: where it is, what is wrong and how to mend it."""

    rule: str
    message: str
    turn: int | None = None
    item: str | None = None

    def where(self, base: Where) -> Where:
        """The violation's place inside `base` (file, line, dialogue)."""
        return base.but(turn=self.turn, item=self.item)


_CONDITIONAL = re.compile(r"^\s*(if|when|whenever|in case|unless|provided)\b|,\s*(if|when)\b", re.IGNORECASE)
_INDEXED = re.compile(
    r"\b(turn|step)\s*(?:#|no\.?|number)?\s*\d+\b|\b\d+(?:st|nd|rd|th)\s+(?:turn|step)\b", re.IGNORECASE
)


def part_of(step: Step, focus: FocusOn) -> str:
    """The text of a step that `focus` names; calls and responses as rendered for evidence (see `call_text`)."""
    if focus == "assistant.tool_calls":
        return "\n".join(
            call_text(call.name, call.raw if call.raw is not None else call.arguments) for call in step.calls
        )
    if focus == "assistant.content.thinking":
        return step.thinking or ""
    if focus == "assistant.content.user_visible_reply":
        return step.reply or ""
    return "\n".join(response.content for response in step.responses)


def call_text(name: str, arguments: object) -> str:
    """A tool call as one line of text, the form that evidence snippets quote: `name({"a":1})`."""
    if isinstance(arguments, str):
        return f"{name}({arguments})"
    try:
        body = msgspec.json.encode(arguments).decode()
    except UnicodeEncodeError:  # half a surrogate pair, which an agent's arguments may hold
        body = json.dumps(arguments, separators=(",", ":"))
    return f"{name}({body})"


def evidence_stands(evidence: Evidence, dialogue: Dialogue) -> bool:
    """Whether the pointer exists and the snippet really stands there."""
    if not (0 <= evidence.turn < len(dialogue.turns)):
        return False
    steps = dialogue.turns[evidence.turn].steps
    if not (0 <= evidence.step < len(steps)) or not evidence.snippet.strip():
        return False
    return evidence.snippet in part_of(steps[evidence.step], evidence.source)


def validate(checklist: Checklist, dialogue: Dialogue | None = None) -> list[Violation]:
    """Every rule of the method's table that the checklist breaks; evidence is verified where the dialogue is given."""
    found: list[Violation] = []

    def bad(rule: str, message: str, item: Item | None = None) -> None:
        found.append(Violation(rule, message, checklist.turn, item.id if item else None))

    ids = [item.id for item in checklist.items]
    for id in sorted({id for id in ids if ids.count(id) > 1}):
        bad("unique_id", f"id {id} is used {ids.count(id)} times; number the items C0, C1 …", checklist.item(id))
    if dialogue is not None and not WHOLE <= checklist.turn < len(dialogue.turns):
        bad("turn", f"the dialogue has {len(dialogue.turns)} turns; there is no turn {checklist.turn}")
    for item in checklist.items:
        if not item.question.strip():
            bad("question", "the question is empty; ask one yes-or-no question", item)
        if _CONDITIONAL.search(item.question):
            bad("conditional", f"the question is conditional: {item.question!r}; state the duty itself", item)
        if _INDEXED.search(item.question):
            bad("turn_number", f"the question names a turn or step number: {item.question!r}; name the content", item)
        if not item.pass_condition.strip():
            bad("pass_condition", "pass_condition is empty; say what must match and what tolerance is fine", item)
        if not 0 < item.weight <= 1:
            bad("weight", f"weight {item.weight} is not in (0, 1]", item)
        for evidence in item.evidence:
            if dialogue is not None and not evidence_stands(evidence, dialogue):
                place = f"turn {evidence.turn} step {evidence.step} {evidence.source}"
                bad(
                    "evidence",
                    f"the snippet {evidence.snippet[:80]!r} does not stand at {place}; quote it exactly",
                    item,
                )
        for id in item.depends_on:
            on = checklist.item(id)
            if on is None:
                bad("depends_on", f"depends_on names {id}, which is no item of this turn", item)
            elif on.focus_on != "tool.content":
                bad(
                    "depends_on", f"depends_on names {id}, which focuses on {on.focus_on} instead of tool.content", item
                )
    total = sum(item.weight for item in checklist.items)
    if checklist.items and abs(total - 1) > WEIGHT_TOLERANCE:
        bad("weight_sum", f"the weights sum to {total:.6g}, not 1; divide each by the sum")
    cycle = dependency_cycle(checklist)
    if cycle:
        bad("cycle", f"depends_on runs in a circle: {' -> '.join(cycle)}; remove one of the edges")
    return found


def dependency_cycle(checklist: Checklist) -> list[str]:
    """One circle in depends_on as a list of ids (first = last), or [] where there is none."""
    edges = {item.id: item.depends_on for item in checklist.items}
    done: set[str] = set()

    def walk(id: str, path: list[str]) -> list[str]:
        if id in path:
            return [*path[path.index(id) :], id]
        if id in done or id not in edges:
            return []
        for other in edges[id]:
            found = walk(other, [*path, id])
            if found:
                return found
        done.add(id)
        return []

    for id in edges:
        found = walk(id, [])
        if found:
            return found
    return []
