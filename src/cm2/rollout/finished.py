"""Finished: a conversation that somebody else's engine ran, judged when it is over.

    task, messages  →  Rollout: its dialogue, verdicts and score

For reward functions of trainers and tools that play the conversation themselves. The numbers are those of an
`Environment` in which the same was said; what only an environment has are simulated tools, and strict items that end a
rollout while it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cm2.checklist import Checklist, Task
from cm2.credit import Credit, score
from cm2.dialogue import Dialogue
from cm2.errors import told
from cm2.formats import read_row
from cm2.judge import AsyncJudge, ChecksJudge, Judge
from cm2.judge.judge import judge_dialogue, wait
from cm2.llm import BudgetReached, ProviderError
from cm2.rollout.messages import Message
from cm2.rollout.trace import Failure, Rollout
from cm2.verdict import WHOLE, Verdict


def finished(
    task: Task,
    messages: Sequence[Message],
    judge: Judge | None = None,
    *,
    tools: Sequence[Any] | None = None,
    credit: Credit | None = None,
) -> Rollout:
    """Judge and score one conversation.

    Args:
        task: the reference with its checklists; turns line up by index.
        messages: the conversation as chat messages (OpenAI's form), system prompt and user messages included.
        judge: who judges; checks if None.
        tools: what the agent could call; the task's own if None.
        credit: how the score reads the verdicts; the default if None.

    Returns:
        A rollout whose `score["reward"]` is R of the method, eq. 4. None where nothing could be scored; where the judge
        failed, `failure` says so and `score` is empty. Neither is a zero.

    Raises:
        DataError: the messages are no conversation, have more user messages than the reference, or the checklists do
            not fit together.
        ProviderError, BudgetReached: the judge's provider will answer nothing more.
    """
    dialogue = _dialogue(task, messages, tools)
    if judge is not None and hasattr(judge, "judge_async"):
        return wait(_awaited(task, dialogue, judge, credit))
    one = judge or ChecksJudge()
    try:
        found = [v for each in _reached(task, dialogue) for v in one.judge(dialogue, each.turn, each)]
    except Exception as error:  # a judge may be a plug-in: its failure is put on record as its own
        return _record(task, dialogue, [], credit, _failure(error))
    return _record(task, dialogue, found, credit)


async def finished_async(
    task: Task,
    messages: Sequence[Message],
    judge: AsyncJudge,
    *,
    tools: Sequence[Any] | None = None,
    credit: Credit | None = None,
) -> Rollout:
    """As `finished`, for a judge that must be awaited."""
    return await _awaited(task, _dialogue(task, messages, tools), judge, credit)


def _dialogue(task: Task, messages: Sequence[Message], tools: Sequence[Any] | None) -> Dialogue:
    row: dict[str, Any] = {"id": task.dialogue.id, "messages": list(messages), "tools": list(tools or [])}
    dialogue = read_row(row, "openai")
    if tools is None:
        dialogue.tools = task.dialogue.tools
    dialogue.meta = task.dialogue.meta
    return dialogue


def _reached(task: Task, dialogue: Dialogue) -> list[Checklist]:
    return [each for each in task.checklists if each.turn == WHOLE or each.turn < len(dialogue.turns)]


async def _awaited(task: Task, dialogue: Dialogue, judge: Any, credit: Credit | None) -> Rollout:
    try:
        found = await judge_dialogue(judge, dialogue, _reached(task, dialogue))
    except Exception as error:  # a judge may be remote
        return _record(task, dialogue, [], credit, _failure(error))
    return _record(task, dialogue, [verdict for each in found for verdict in each], credit)


def _failure(error: Exception) -> Failure:
    """The record of a judge's failure; raises it where every further call would fail likewise."""
    if isinstance(error, BudgetReached) or (isinstance(error, ProviderError) and error.fatal):
        raise error
    return Failure("judge", told(error))


def _record(
    task: Task, dialogue: Dialogue, verdicts: list[Verdict], credit: Credit | None, failure: Failure | None = None
) -> Rollout:
    if failure is None and (lost := next((verdict for verdict in verdicts if verdict.failed), None)) is not None:
        failure = Failure("judge", f"turn {lost.turn}: item {lost.item} is {lost.reason}")
    credit = credit or Credit()
    made = Rollout(
        task=task.dialogue.id,
        dialogue=dialogue,
        checklists=task.checklists,
        reference_turns=len(task.dialogue.turns),
        verdicts=verdicts,
        reason="judge" if failure else "completed",
        owner="judge" if failure else "agent",
        failure=failure,
    )
    steps = [len(turn.steps) for turn in dialogue.turns]
    earned = score(task.checklists, verdicts, steps, made.reference_turns, credit.reading, credit.discount)
    made.score = {} if failure else earned.as_json()
    return made
