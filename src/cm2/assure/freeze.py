"""Freeze: a run that production has seen becomes a case that every later version is held to.

A *failure* is frozen with the duty that failed: the task holds the run's tools, system prompt, user turns and recorded
tool answers, and the duty as its only item. Whoever runs it later is asked the same things by the user, gets the
recorded answer where it makes a recorded call, and a simulated one where it departs from the record. The recorded
replies are the failure's own and no example to follow: `meta.frozen.kind` says so.

A *passing* run is frozen as a reference: it is labelled by its effects, items that hold over the whole dialogue.

A suite is a folder with `tasks.jsonl` and `suite.yaml`. A task is there once, by its id: a second duty that failed in
the same run is added to it, what is there already is left alone, other lines keep their bytes. Secrets are taken out
before anything is written.
"""

from __future__ import annotations

import datetime
import getpass
import os
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from cm2.assure.freeze_suite import Put, put_task
from cm2.assure.outcomes import Judged, Outcome, read_judged
from cm2.checklist import Checklist, Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.rows import Row
from cm2.judge import ChecksJudge
from cm2.llm.scrub import scrubbed
from cm2.policy import Policy, load_policy
from cm2.verdict import WHOLE

LISTED = 8


class FreezeConfig(msgspec.Struct, kw_only=True):
    """What is frozen into which suite."""

    dialogues: str
    """The runs, as they were judged."""
    output: str
    """The folder of the suite; made where it does not exist."""
    dialogue: str
    """The id of the run."""
    kind: Literal["failure", "passing"] = "failure"
    verdicts: str | None = None
    """failure: the store that `cm2 judge` wrote about the runs."""
    duty: str | None = None
    """failure: the duty that failed."""
    policy: str | None = None
    """failure: by which the runs were judged, or …"""
    checklists: str | None = None
    """… the labelled file, where the runs carry no checklists of their own."""
    run: str = ""
    """Which of several runs that share the id: "2", "3" …; the first one where empty."""
    reason: str = ""
    """Why this run is worth keeping."""
    by: str = ""
    """Who says so; the user's name where empty."""
    format: str = "auto"


class Frozen(msgspec.Struct):
    """What was frozen."""

    kind: str
    put: Put
    left_out: list[str] = []
    """passing: items that do not hold in the run that they were made of."""


def freeze(config: FreezeConfig) -> Frozen:
    """Put a run into a suite.

    Raises:
        DataError: a file is missing or of another kind; there is no such run or duty; it did not fail; the suite has
            another task of that id.
        ConfigError: something is not said that has to be.
    """
    if config.kind == "passing":
        task, left_out = _reference(config)
    else:
        task, left_out = _failure(config), []
    task.dialogue.id = config.dialogue + (f"#{config.run}" if config.run else "")
    put = put_task(config.output, task, apart_from=config.dialogues)
    return Frozen(config.kind, put, left_out)


def _failure(config: FreezeConfig) -> Task:
    if config.verdicts is None or config.duty is None:
        raise ConfigError("a failure is a duty and its verdicts", fix="give --verdicts and --duty, or --passing ID")
    policy = None if config.policy is None else load_policy(config.policy)
    judged = _judged(config, policy)
    mine = [outcome for outcome in judged.outcomes if outcome.duty == config.duty]
    where = Where(file=config.dialogues, line=judged.line, dialogue=config.dialogue)
    if not mine:
        raise DataError(f"it has no duty {config.duty!r}", where=where, fix=_duties(judged, policy))
    failed = [outcome for outcome in mine if outcome.result == "fail"]
    if not failed:
        results = ", ".join(sorted({outcome.result.replace("_", " ") for outcome in mine}))
        bad = sorted({outcome.duty for outcome in judged.outcomes if outcome.result == "fail"})
        fix = f"duties that fail there: {', '.join(bad[:LISTED])}" if bad else "no duty fails there: use --passing"
        raise DataError(f"{config.duty} did not fail there: {results}", where=where, fix=fix)
    dialogue = _bare(judged.dialogue)
    dialogue.meta = {**dialogue.meta, "frozen": _provenance(config, failed)}
    return Task(dialogue, _checklists(failed))


def _checklists(failed: list[Outcome]) -> list[Checklist]:
    """What failed, as checklists of their own: of the whole dialogue, or of the turn in which it failed, whose user
    message is played again."""
    by_turn: dict[int, Checklist] = {}
    for outcome in failed:
        checklist = by_turn.setdefault(outcome.turn, Checklist(outcome.turn, [], labeler="frozen"))
        if checklist.item(outcome.item.id) is None:
            item = msgspec.structs.replace(outcome.item, depends_on=[], evidence=[])
            checklist.items.append(item)
    return [by_turn[turn].normalised() for turn in sorted(by_turn)]


def _judged(config: FreezeConfig, policy: Policy | None) -> Judged:
    assert config.verdicts is not None
    seen: list[str] = []
    unread: list[Row] = []
    for judged in read_judged(
        config.dialogues,
        config.verdicts,
        policy=policy,
        checklists=config.checklists,
        format=config.format,
        on_error=unread.append,
    ):
        if (judged.dialogue.id, judged.rollout) == (config.dialogue, "" if config.run in ("", "1") else config.run):
            return judged
        seen.append(judged.dialogue.id)
    raise _absent(config, seen, unread)


def _absent(config: FreezeConfig, seen: list[str], unread: Sequence[Row] = ()) -> DataError:
    known = ", ".join(dict.fromkeys(seen[:LISTED])) + (" …" if len(seen) > LISTED else "")
    which = f"run {config.run} of dialogue {config.dialogue!r}" if config.run else f"dialogue {config.dialogue!r}"
    if unread:
        known += f"; {len(unread)} lines do not read, the first is line {unread[0].line}: {unread[0].error}"
    return DataError(f"there is no {which}", where=Where(file=config.dialogues), fix=f"it has {known}")


def _duties(judged: Judged, policy: Policy | None) -> str:
    names = sorted({outcome.duty for outcome in judged.outcomes})
    if not names and policy is None:
        return "it has no checklists: give --policy or --checklists"
    return f"it has {', '.join(names[: 3 * LISTED])}"


def _reference(config: FreezeConfig) -> tuple[Task, list[str]]:
    from cm2.label.effects import label_effects

    dialogue = _bare(_dialogue(config))
    labelled = label_effects(dialogue)
    checklists, left_out = [], []
    for checklist in labelled.checklists:
        said = ChecksJudge().judge(dialogue, checklist.turn, checklist)
        holds = {verdict.item for verdict in said if verdict.met}
        left_out += [item.id for item in checklist.items if item.id not in holds]
        items = [item for item in checklist.items if item.id in holds]
        if items:
            checklists.append(msgspec.structs.replace(checklist, items=items).normalised())
    if not checklists:
        where = Where(file=config.dialogues, dialogue=config.dialogue)
        raise DataError("nothing in it can be held against another run", where=where, fix="choose another run")
    provenance = {"kind": "passing", "duties": [_line(config, None)]}
    dialogue.meta = {**dialogue.meta, "frozen": provenance}
    return Task(dialogue, checklists), left_out


def _dialogue(config: FreezeConfig) -> Dialogue:
    seen: list[str] = []
    wanted = int(config.run) if config.run.isdigit() else 1
    ignored: list[Row] = []
    for _, task in read_tasks(config.dialogues, config.format, on_error=ignored.append):
        seen.append(task.dialogue.id)
        if task.dialogue.id == config.dialogue and seen.count(config.dialogue) == wanted:
            return task.dialogue
    raise _absent(config, seen, ignored)


def _bare(dialogue: Dialogue) -> Dialogue:
    """A dialogue in our own form, without secrets. What an outside format wrote beside it is not frozen."""
    value: dict[str, Any] = scrubbed(msgspec.to_builtins(dialogue))
    value.pop("wire", None)
    for step in value.get("opening", []):
        step.pop("wire", None)
    for turn in value.get("turns", []):
        turn.pop("wire", None)
        for step in turn.get("steps", []):
            step.pop("wire", None)
    return msgspec.convert(value, Dialogue)


def _provenance(config: FreezeConfig, failed: list[Outcome]) -> dict[str, Any]:
    return {"kind": "failure", "duties": [_line(config, failed[-1])]}


def _line(config: FreezeConfig, outcome: Outcome | None) -> dict[str, Any]:
    """Who froze it, when, why, and what the judge said."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line: dict[str, Any] = {"by": config.by or _user(), "at": now, "source": os.path.basename(config.dialogues)}
    if config.reason:
        line["reason"] = config.reason
    if config.run:
        line["run"] = config.run
    if outcome is not None:
        judge = outcome.verdict.judge if outcome.verdict is not None else ""
        line |= {"duty": outcome.duty, "verdict": outcome.reason, "judge": judge}
        if outcome.turn != WHOLE:
            line["turn"] = outcome.turn
    found: dict[str, Any] = scrubbed(line)
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
