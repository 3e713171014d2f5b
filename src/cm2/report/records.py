"""Records: the rollouts of a file, one line at a time, whatever else is in it.

A line may also be a labelled dialogue (a log, a reference): it then stands for a rollout of itself, judged by the
checks of its own checklists. Unlike `cm2.rollout.trace.read_rollouts`, which guards what training relies on, reading
goes on after a line that does not read, and tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from cm2.errors import DataError
from cm2.formats import read_task
from cm2.formats.jsonlines import parse
from cm2.judge import ChecksJudge
from cm2.report.source import lines, told
from cm2.rollout.trace import Rollout, decode


def read_rollouts(path: Path, root: Path, problems: list[str]) -> Iterator[tuple[int, Rollout]]:
    """The rollouts of a file with their line; of several with one key (a failed one was tried again) the last."""
    last: dict[str, int] = {}
    for number, line, fault in lines(path, root, problems):
        try:
            last[read_rollout(line, fault).key] = number
        except DataError as error:
            problems.append(told(path, root, number, error.message))
    wanted = set(last.values())
    for number, line, fault in lines(path, root, []):
        if number in wanted:
            yield number, read_rollout(line, fault)


def read_rollout(line: bytes, fault: str | None = None) -> Rollout:
    """The rollout of one line; lone surrogates, which strict readers refuse, are read. Tokens are dropped.

    Raises:
        DataError: the line is neither a rollout nor a dialogue.
    """
    if fault:
        raise DataError(fault)
    try:
        rollout = decode(line)
    except (DataError, RecursionError):
        rollout = _read_leniently(line)
    rollout.segments = []
    return rollout


def _read_leniently(line: bytes) -> Rollout:
    value, error = parse(line)
    if error:
        raise DataError(error)
    try:
        if isinstance(value, dict) and "dialogue" not in value:
            return _of_dialogue(value)
        return msgspec.convert(value, Rollout)
    except msgspec.ValidationError as refused:
        raise DataError(f"this is no rollout: {refused}") from refused
    except RecursionError:
        raise DataError("nested too deeply to read") from None


def _of_dialogue(row: dict[str, object]) -> Rollout:
    task = read_task(row)
    dialogue, judge = task.dialogue, ChecksJudge()
    verdicts = [v for checklist in task.checklists for v in judge.judge(dialogue, checklist.turn, checklist)]
    return Rollout(
        dialogue.id,
        dialogue,
        checklists=task.checklists,
        reference_turns=len(dialogue.turns),
        verdicts=verdicts,
        reason="recorded",
        owner="agent",
    )
