"""The second filter: a model says whether a dialogue's use of tools makes sense, pass by pass, until one says no.

The method asks a strict yes-or-no question about each dialogue several times, first with little reasoning, then with
more, and keeps what every pass says yes to. So most bad rows cost one cheap call, and only good ones pay for all. The
judge sees tools, messages, calls and answers, never the agent's thinking: a row must be good by what happened in it.

Three things can come out. `yes`: every pass said so. `no`: one pass said so, with its reason and place. Unscored: an
answer was lost (see `cm2.curate.lost`). Nothing more is asked about that row, which is set aside; a second run finds
the answers before it in the cache and goes on with the one that was lost.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from cm2.curate.lost import lost
from cm2.curate.opinion import JudgedSummary, Lost, Opinion, Pass, PassCount
from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.formats import detect_format, read_row, write_row
from cm2.llm import Asker, ModelError, ProviderError, Request, load
from cm2.llm.fence import Fence

REASON_KEPT = 2_000
"""Characters of a reason that are kept."""
_PLACE: dict[str, Any] = {"type": ["integer", "null"]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "turn": _PLACE,
        "step": _PLACE,
        "verdict": {"type": "string", "enum": ["yes", "no"]},
    },
    "required": ["reason", "turn", "step", "verdict"],
    "additionalProperties": False,
}
PLANNED = {"reason": "planned", "turn": None, "step": None, "verdict": "yes"}
"""What a dry run supposes: no early exit, so that it tells the most that a run can cost."""


class Gate:
    """Asks about rows, pass by pass.

    Args:
        asker: who answers.
        passes: what to ask, in order.
    """

    def __init__(self, asker: Asker, passes: list[Pass]):
        self._asker, self._passes = asker, passes
        self._prompt = load("cm2.curate", "judged")

    def summary(self) -> JudgedSummary:
        """A summary without rows."""
        return JudgedSummary(self._prompt.id, passes=[PassCount(each.effort) for each in self._passes])

    async def judge(self, value: dict[str, Any], where: Where) -> Opinion:
        """What the model says of a row.

        Raises:
            ProviderError: fatal, so that there is no use in asking on. BudgetReached: the limit is reached.
        """
        try:
            dialogue = read_row(value, where=where)
        except DataError as error:
            return Opinion(None, lost=Lost(str(error), "data"))
        messages = self._messages(dialogue)
        opinion = Opinion(True)
        for number, each in enumerate(self._passes):
            request = Request(
                role="filter",
                messages=messages,
                schema=SCHEMA,
                prompt=self._prompt.id,
                affinity=dialogue.id,
                sample=number,
                effort=each.effort,
                stage=f"filter {number + 1} ({each.name})",
                where=where.but(dialogue=dialogue.id),
                planned=PLANNED,
            )
            opinion.asked += 1
            try:
                answer = await self._asker.ask(request, _fault)
            except (ProviderError, ModelError) as error:
                gone = lost(error, "judge")
                opinion.keep, opinion.lost = None, Lost(f"pass {each.name}: {gone.reason}", gone.owner)
                opinion.cost += getattr(error, "cost", 0.0)
                return opinion
            opinion.cost += answer.cost
            opinion.cached += answer.cached
            if answer.value["verdict"] == "no":
                opinion.keep, opinion.reason = False, answer.value["reason"].strip()[:REASON_KEPT]
                opinion.path = place(dialogue, detect_format(value), answer.value["turn"], answer.value["step"])
                return opinion
        return opinion

    def _messages(self, dialogue: Dialogue) -> list[dict[str, Any]]:
        fence = Fence.make(getattr(self._asker, "secret", ""), dialogue.id)
        shown = fence.transcript(dialogue, thinking=False, tools=True)
        return [
            {"role": "system", "content": self._prompt.fill(part="system", rule=fence.rule)},
            {"role": "user", "content": self._prompt.fill(part="user", dialogue=shown)},
        ]


def _fault(value: Any) -> str:
    if value["verdict"] == "no" and not value["reason"].strip():
        return "a no needs its reason: name the fault"
    return ""


def place(dialogue: Dialogue, format: str, turn: int | None, step: int | None) -> str:
    """Where a step's first message stands in the row (without a step: the turn's user message), "" for no such place.

    A wrong number is no reason to doubt the verdict.
    """
    if turn is None or not 0 <= turn < len(dialogue.turns):
        return ""
    turns = dialogue.turns[:turn]
    if step is not None and 0 <= step < len(dialogue.turns[turn].steps):
        turns = [*turns, replace(dialogue.turns[turn], steps=dialogue.turns[turn].steps[:step])]
    before = write_row(replace(dialogue, turns=turns), format)["messages"]
    return f"messages[{len(before)}]"
