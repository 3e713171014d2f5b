"""Transcript: a case turn by turn, as the page shows it: what each agent did, and beside it the turn's duties.

Every duty knows, for every agent, how it came out (satisfied, not satisfied, unscored, turn not reached), at which step
it was satisfied, what the judge said, and where the evidence stands; the evidence is marked in the agent's own steps.
Marks are numbers that the report makes, never text of the data.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.checklist import FocusOn, Item, call_text
from cm2.dialogue import Step, ToolCall, ToolResponse
from cm2.report.cases import Case, Column
from cm2.report.outcome import Came, outcomes
from cm2.report.source import role
from cm2.report.text import Piece, cut, visible
from cm2.verdict import Pointer

LONGEST = 1500
"""Characters of one call, response, thought or reply; what is left out is counted."""
LONGEST_LINE = 300
"""Characters of a question or a judge's reason."""

CALLS: FocusOn = "assistant.tool_calls"
THINKING: FocusOn = "assistant.content.thinking"
REPLY: FocusOn = "assistant.content.user_visible_reply"
CONTENT: FocusOn = "tool.content"


class Part(msgspec.Struct):
    """One visible part of a step."""

    kind: str
    """thinking, call, response or reply."""
    pieces: list[Piece]
    left_out: int = 0
    origin: str = ""
    """Of a response: recorded, replayed, simulated or error. Of a call: malformed, or nothing."""


class StepView(msgspec.Struct):
    """One step of one agent: its parts, and the duties that it fulfilled."""

    number: int
    key: str
    parts: list[Part]
    fulfilled: list[str]


class Outcome(msgspec.Struct):
    """How a duty came out for one agent."""

    label: str
    state: str
    """met, unmet, unscored, unreached or failed."""
    step: int | None
    """At which step it was satisfied."""
    reason: str
    mark: str
    """The mark of its evidence, and of the step, in this agent's column."""


class Duty(msgspec.Struct):
    """One item of the turn's checklist and its outcomes, an agent each."""

    id: str
    question: str
    pass_condition: str
    kind: str
    weight: float
    strict: bool
    depends_on: list[str]
    variant: int
    outcomes: list[Outcome]


class TurnView(msgspec.Struct):
    """One turn: the user's message, the steps of each agent (None: it did not get there), the duties."""

    number: int
    user: str | None
    columns: list[list[StepView] | None]
    duties: list[Duty]


class CaseView(msgspec.Struct):
    """A case, ready for the template."""

    key: str
    task: str
    section: str
    why: str
    opening: str
    columns: list[dict[str, Any]]
    turns: list[TurnView]


def view(case: Case, key: str) -> CaseView:
    """The case as the page shows it; `key` is unique on the page and made of letters and digits."""
    agents = [_Agent(column, f"{key}-{k}") for k, column in enumerate(case.columns)]
    rollouts = [column.rollout for column in case.columns]
    length = max((max(len(rollout.dialogue.turns), rollout.reference_turns) for rollout in rollouts), default=0)
    turns = [_turn(agents, t) for t in range(length)]
    opening = next((turn.user for turn in turns if turn.user), "")
    heads = [_head(column, k) for k, column in enumerate(case.columns)]
    return CaseView(key, visible(case.task), case.section, case.why, opening, heads, turns)


class _Agent:
    """A column, how its items came out, and the keys of its marks."""

    def __init__(self, column: Column, key: str):
        self.rollout, self.label, self.key = column.rollout, visible(column.label), key
        self.came: dict[tuple[int, int], list[Came]] = {
            (checklist.turn, checklist.variant): outcomes(self.rollout, checklist)
            for checklist in self.rollout.checklists
        }

    def mark(self, turn: int, variant: int, n: int) -> str:
        return f"{self.key}-{turn}-{variant}-{n}"

    def outcome(self, turn: int, variant: int, n: int, id: str) -> Outcome:
        """How item `n` came out, by this agent's own checklist; unscored where that has no such item."""
        own = self.came.get((turn, variant), [])
        came = own[n] if n < len(own) and own[n].id == id else Came(id, "unscored")
        reason = visible(came.verdict.reason)[:LONGEST_LINE] if came.verdict else ""
        return Outcome(self.label, came.state, came.step, reason, self.mark(turn, variant, n))

    def steps(self, t: int) -> list[StepView] | None:
        """What it did in turn `t`, its evidence marked; None where it did not get there."""
        turns = self.rollout.dialogue.turns
        if t >= len(turns):
            return None
        evidence: dict[int, list[tuple[str, Pointer]]] = {}
        fulfilled: dict[int, list[str]] = {}
        for (turn, variant), items in self.came.items():
            for n, came in enumerate(items):
                if came.step is not None and turn == t:
                    fulfilled.setdefault(came.step, []).append(visible(came.id))
                for pointer in came.verdict.evidence if came.verdict else []:
                    if pointer.turn == t:
                        evidence.setdefault(pointer.step, []).append((self.mark(turn, variant, n), pointer))
        return [
            StepView(s, f"{self.key}-{t}-{s}", parts_of(step, evidence.get(s, []), LONGEST), fulfilled.get(s, []))
            for s, step in enumerate(turns[t].steps)
        ]


def _head(column: Column, k: int) -> dict[str, Any]:
    rollout = column.rollout
    success = rollout.outcome.get("success")
    return {
        "label": visible(column.label),
        "role": role(column.label, k),
        "reward": column.reward,
        "reason": visible(rollout.reason),
        "turns": len(rollout.dialogue.turns),
        "of": rollout.reference_turns,
        "tokens": rollout.generated_tokens,
        "outcome": success if isinstance(success, bool) else None,
        "failure": visible(f"{rollout.failure.owner}: {rollout.failure.message}") if rollout.failure else "",
    }


def _turn(agents: list[_Agent], t: int) -> TurnView:
    runs = [agent.rollout for agent in agents]
    user = next((run.dialogue.turns[t].user for run in runs if t < len(run.dialogue.turns)), None)
    listed = next((run.checklists for run in runs if run.checklists), [])
    duties = [
        _duty(item, [agent.outcome(t, checklist.variant, n, item.id) for agent in agents], checklist.variant)
        for checklist in listed
        if checklist.turn == t
        for n, item in enumerate(checklist.items)
    ]
    return TurnView(t, None if user is None else visible(user), [agent.steps(t) for agent in agents], duties)


def _duty(item: Item, found: list[Outcome], variant: int) -> Duty:
    return Duty(
        id=visible(item.id),
        question=visible(item.question)[:LONGEST_LINE],
        pass_condition=visible(item.pass_condition)[:LONGEST_LINE],
        kind=visible(item.kind),
        weight=item.weight,
        strict=item.required_for_next_turn,
        depends_on=[visible(id) for id in item.depends_on],
        variant=variant,
        outcomes=found,
    )


def parts_of(step: Step, evidence: list[tuple[str, Pointer]], longest: int = LONGEST) -> list[Part]:
    """The visible parts of a step, cut where evidence begins and ends.

    Args:
        step: what the agent did.
        evidence: (mark, pointer into this step) pairs.
        longest: characters of one part.
    """

    def snippets(focus: FocusOn) -> list[tuple[str, str]]:
        return [(mark, pointer.snippet) for mark, pointer in evidence if pointer.part == focus]

    parts = []
    if step.thinking:
        parts.append(_part("thinking", step.thinking, snippets(THINKING), longest))
    if step.reply and step.calls:
        parts.append(_part("reply", step.reply, snippets(REPLY), longest))
    answered: list[ToolResponse] = []
    for index, call in enumerate(step.calls):
        parts.append(_part("call", _call_text(call), snippets(CALLS), longest, "" if call.valid else "malformed"))
        response = step.response_to(index)
        if response is not None and all(response is not other for other in answered):
            answered.append(response)
            parts.append(_part("response", response.content, snippets(CONTENT), longest, response.origin))
    for response in step.responses:
        if all(response is not other for other in answered):
            parts.append(_part("response", response.content, snippets(CONTENT), longest, response.origin))
    if not step.calls:
        parts.append(_part("reply", step.reply or "", snippets(REPLY), longest))
    return parts


def _call_text(call: ToolCall) -> str:
    if call.raw is not None:
        return f"{call.name}({call.raw})"
    try:
        return call_text(call.name, call.arguments)
    except UnicodeEncodeError:  # a lone surrogate: JSON text cannot hold it, the page shows its number
        return f"{call.name}({call.arguments})"


def _part(kind: str, text: str, snippets: list[tuple[str, str]], longest: int, origin: str = "") -> Part:
    pieces, left_out = cut(text, snippets, longest)
    return Part(kind, pieces, left_out, visible(origin))
