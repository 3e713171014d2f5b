"""Job: one dialogue of a file, and the verdicts that it gets: those that its store holds, and what is new.

Nobody is asked about what the store holds. What a model or its provider failed to decide is judged again as a new draw,
and what is decided in the same turn is known to the judge, so that the draw cannot meet it.
"""

from __future__ import annotations

from typing import cast

import msgspec

from cm2.checklist import Checklist, Task
from cm2.judge.judge import AsyncJudge, judge_dialogue, needs_end
from cm2.judge.occasion import states_of
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
    steps = states_of(job.task.dialogue, checklist.turn)
    tries = max((line.tries for row in lines.values() for line in row if line is not None and line.failed), default=0)
    known: list[Verdict] = []
    if all(line is not None and not line.failed for row in lines.values() for line in row):
        return Judged(checklist, [], {id: _found(row) for id, row in lines.items()})
    if tries:  # a new draw must not meet what is decided
        for id, row in lines.items():
            if all(line is not None and line.met is not None for line in row):
                known += [
                    Verdict(job.task.dialogue.id, checklist.turn, step, id, cast(Line, line).met, checklist.variant)
                    for step, line in zip(steps, row, strict=True)
                ]
    verdicts = await judge.judge_async(job.task.dialogue, checklist.turn, checklist, 0, known, tries)
    return merged(job, checklist, stored, verdicts)


async def judge_job(job: Job, judge: AsyncJudge, stored: Stored) -> list[Judged]:
    """The verdicts of all turns, in the order of the checklists; nobody is asked about what the store holds.

    A judge that needs dialogues that are over is asked about all turns at once, without what is decided already.
    """
    if not needs_end(judge):
        return [await judge_turn(job, checklist, judge, stored) for checklist in job.checklists]
    known: list[Verdict] = []
    tries, left = 0, False
    for checklist in job.checklists:
        lines = _lines(job, checklist, stored)
        for row in lines.values():
            tries = max([tries, *(line.tries for line in row if line is not None and line.failed)])
            left = left or any(line is None or line.failed for line in row)
        known += _decided(job, checklist, lines)
    verdicts: list[list[Verdict]] = [[] for _ in job.checklists]
    if left:
        verdicts = await judge_dialogue(judge, job.task.dialogue, job.checklists, known, tries)
    return [merged(job, each, stored, found) for each, found in zip(job.checklists, verdicts, strict=True)]


def _decided(job: Job, checklist: Checklist, lines: dict[str, list[Line | None]]) -> list[Verdict]:
    """What the store says of the items that it says something final of, after every step."""
    dialogue = job.task.dialogue
    steps = states_of(dialogue, checklist.turn)
    return [
        Verdict(dialogue.id, checklist.turn, step, id, cast(Line, line).met, checklist.variant)
        for id, row in lines.items()
        if all(line is not None and not line.failed for line in row)
        for step, line in zip(steps, row, strict=True)
    ]


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
            said[verdict.item][verdict.step] = Found(verdict.met, verdict.why_unscored, verdict.failed, verdict.applies)
    return Judged(checklist, new, said)


def _lines(job: Job, checklist: Checklist, stored: Stored) -> dict[str, list[Line | None]]:
    """What the store says of each item in each state of the turn. The one state of a whole dialogue is its step -1,
    which is also where a list has its last entry."""
    dialogue, turn = job.task.dialogue, checklist.turn
    steps = states_of(dialogue, turn)
    keys: list[Key] = [
        (dialogue.id, job.rollout, checklist.variant, turn, step, item.id) for item in checklist.items for step in steps
    ]
    lines, count = stored.look(keys), len(steps)
    return {item.id: lines[at * count : (at + 1) * count] for at, item in enumerate(checklist.items)}


def _found(row: list[Line | None]) -> list[Found]:
    return [
        Found(None, "not judged") if line is None else Found(line.met, line.kind, line.failed, line.applies)
        for line in row
    ]
