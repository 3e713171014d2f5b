"""Job: one dialogue of a file, and the verdicts that it gets: those that its store holds, and what is new.

Nobody is asked about what the store holds. What a model or its provider failed to decide is judged again as a new draw,
and what is decided in the same turn is known to the judge, so that the draw cannot meet it.
"""

from __future__ import annotations

from typing import cast

import msgspec

from cm2.checklist import Checklist, Task
from cm2.judge.judge import AsyncJudge
from cm2.judge.stored import Key, Line, Stored
from cm2.judge.summary import Found
from cm2.verdict import Verdict


class Job(msgspec.Struct, frozen=True):
    """One dialogue to judge."""

    task: Task
    rollout: str
    checklists: list[Checklist]


class Judged(msgspec.Struct):
    """The verdicts of one turn: what is new, and what is known altogether by item."""

    checklist: Checklist
    new: list[Verdict]
    said: dict[str, list[Found]]


async def judge_turn(job: Job, checklist: Checklist, judge: AsyncJudge, stored: Stored) -> Judged:
    """The verdicts of a turn; nobody is asked about what the store holds."""
    lines = _lines(job, checklist, stored)
    tries = max((line.tries for row in lines.values() for line in row if line is not None and line.failed), default=0)
    known: list[Verdict] = []
    if all(line is not None and not line.failed for row in lines.values() for line in row):
        return Judged(checklist, [], {id: _found(row) for id, row in lines.items()})
    if tries:  # a new draw must not meet what is decided
        for id, row in lines.items():
            if all(line is not None and line.met is not None for line in row):
                known += [
                    Verdict(job.task.dialogue.id, checklist.turn, step, id, cast(Line, line).met, checklist.variant)
                    for step, line in enumerate(row)
                ]
    verdicts = await judge.judge_async(job.task.dialogue, checklist.turn, checklist, 0, known, tries)
    return merged(job, checklist, stored, verdicts)


def merged(job: Job, checklist: Checklist, stored: Stored, verdicts: list[Verdict]) -> Judged:
    """What is new in the verdicts, and what they and the store say together."""
    lines = _lines(job, checklist, stored)
    said = {id: _found(row) for id, row in lines.items()}
    new: list[Verdict] = []
    for verdict in verdicts:
        verdict.rollout = job.rollout
        line = lines[verdict.item][verdict.step]
        if line is None or line.failed:
            new.append(verdict)
            said[verdict.item][verdict.step] = Found(verdict.met, verdict.why_unscored, verdict.failed)
    return Judged(checklist, new, said)


def _lines(job: Job, checklist: Checklist, stored: Stored) -> dict[str, list[Line | None]]:
    """What the store says of each item after each step of the turn."""
    dialogue, turn = job.task.dialogue, checklist.turn
    steps = len(dialogue.turns[turn].steps) if turn < len(dialogue.turns) else 0
    keys: list[Key] = [
        (dialogue.id, job.rollout, checklist.variant, turn, step, item.id)
        for item in checklist.items
        for step in range(steps)
    ]
    lines = stored.look(keys)
    return {item.id: lines[at * steps : (at + 1) * steps] for at, item in enumerate(checklist.items)}


def _found(row: list[Line | None]) -> list[Found]:
    return [Found(None, "not judged") if line is None else Found(line.met, line.kind, line.failed) for line in row]
