"""Duties: a conversation in chat messages, judged by a policy: what all adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from cm2.assure.outcomes import Outcome, decide_outcomes, score
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.formats.openai import read_openai
from cm2.imports.dialects import read_messages
from cm2.imports.draft import Draft
from cm2.imports.notes import Notes, Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.judge import ChecksJudge, Judge
from cm2.judge.judge import AsyncJudge, judge_dialogue, wait
from cm2.policy import Policy, load_policy

SAID = 300
"""Characters of a reason that are shown."""


class Duties:
    """A policy and who judges by it.

    Args:
        policy: the policy, or the file that holds it.
        judge: who judges; by default the compiled checks, which cost nothing. Duties that are a question need a judge
            that asks a model (`cm2.judge.make.make_judge`).

    Raises:
        DataError: the file holds no policy.
    """

    def __init__(self, policy: Policy | str | Path, judge: Judge | None = None) -> None:
        self.policy = policy if isinstance(policy, Policy) else load_policy(policy)
        self.judge: Judge = judge or ChecksJudge()

    def outcomes(self, dialogue: Dialogue) -> list[Outcome]:
        """How every duty came out in the dialogue."""
        if hasattr(self.judge, "judge_async"):
            return wait(self.outcomes_async(dialogue))
        checklists = self.policy.checklists(dialogue)
        verdicts = [one for each in checklists for one in self.judge.judge(dialogue, each.turn, each)]
        return decide_outcomes(dialogue, "", checklists, verdicts)

    async def outcomes_async(self, dialogue: Dialogue) -> list[Outcome]:
        """The same, awaited where the judge asks a model."""
        if not hasattr(self.judge, "judge_async"):
            return self.outcomes(dialogue)
        judge, checklists = cast(AsyncJudge, self.judge), self.policy.checklists(dialogue)
        verdicts = [one for each in await judge_dialogue(judge, dialogue, checklists) for one in each]
        return decide_outcomes(dialogue, "", checklists, verdicts)


def read_chat(messages: Sequence[Any], tools: Sequence[Any] = (), id: str = "dialogue") -> Dialogue:
    """Chat messages of any common dialect, and the tools' schemas where known, to a dialogue.

    Raises:
        DataError: nobody asks anything in it.
    """
    talk, notes = Talk(), Notes()
    place = Place(notes)
    if tools:
        talk.offer(read_tools(list(tools), place.at("tools")))
    read_messages(list(messages), talk, place.at("messages"))
    draft = Draft.of("chat", talk, notes)
    draft.id = id
    if not any(message["role"] == "user" for message in talk.messages):
        raise DataError("no message is of the user", fix="give the whole conversation")
    return read_openai(draft.row())


def by_duty(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Each duty's share of passes in the dialogue (a duty of turns may come out several times); None where it is not
    applicable or unscored."""
    found: dict[str, float | None] = {}
    for duty in dict.fromkeys(one.duty for one in outcomes):
        scored = [one.result == "pass" for one in outcomes if one.duty == duty and one.result in ("pass", "fail")]
        found[duty] = sum(scored) / len(scored) if scored else None
    return found


def told(outcomes: Sequence[Outcome]) -> str:
    """What failed and what could not be decided, for a person."""
    lines = []
    for outcome in outcomes:
        if outcome.result in ("fail", "unscored"):
            place = "" if outcome.turn < 0 else f" (turn {outcome.turn})"
            severity = f"{outcome.item.severity}, " if outcome.item.severity else ""
            word = "failed" if outcome.result == "fail" else "not decided"
            lines.append(f"{outcome.duty}{place}: {severity}{word}: {outcome.reason[:SAID]}")
    scored = sum(one.result in ("pass", "fail") for one in outcomes)
    return "\n".join(lines) or (f"all {scored} duties that apply hold" if scored else "no duty applies")


def lost(outcomes: Sequence[Outcome]) -> bool:
    """Whether there is nothing to score by because something could not be decided."""
    return score(outcomes) is None and any(one.result == "unscored" for one in outcomes)
