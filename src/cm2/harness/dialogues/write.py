"""Write: a folder of results as a file of dialogues, and on request the checklists of its tasks.

Every conversation with an official score is a row; its id is its task's, so that repetitions share the task's
checklist, and `meta` says what the grader said. A conversation that was lost to somebody else than the agent has no
score and is never judged: it goes to OUTPUT.unscored.jsonl, with its owner. An error of the agent's own that left no
transcript is a row that says so: it is a failure, and stays one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError
from cm2.formats import RowWriter, read_row, write_task
from cm2.harness import environments
from cm2.harness.dialogues import bfcl, gold, tau2, toolsandbox
from cm2.harness.dialogues.told import Key, Told, ask
from cm2.harness.results import RAW, Outcome, Results, read

READERS: dict[str, ModuleType] = {"bfcl": bfcl, "tau2": tau2, "toolsandbox": toolsandbox}
UNSCORED = "unscored.jsonl"
NO_TRANSCRIPT = "[the harness kept no transcript of this conversation]"


class DialoguesConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which results, and into which files."""

    folder: str
    """What `cm2 eval` wrote."""
    output: str
    """The dialogues."""
    checklists: str | None = None
    """A file for the right answers of the tasks with their checklists; none is written without it."""

    def __post_init__(self) -> None:
        if self.checklists is not None and os.path.realpath(self.checklists) == os.path.realpath(self.output):
            raise ConfigError("the dialogues and the checklists are one file", fix="give --checklists another name")


class Summary(msgspec.Struct, kw_only=True):
    """What was written."""

    benchmark: str
    model: str
    dialogues: int = 0
    passed: int = 0
    """Of benchmarks that know yes and no."""
    without_transcript: int = 0
    unscored: dict[str, int] = {}
    """Conversations that were lost, by owner; they are in no row."""
    tasks: int = 0
    """References with a checklist."""
    items: int = 0
    items_out: dict[str, int] = {}
    """Items that lint refused, by kind and reason."""
    without_checklist: dict[str, int] = {}
    """Tasks without a checklist, by reason."""
    notes: list[str] = []
    outputs: list[str] = []


def write(config: DialoguesConfig) -> Summary:
    """Write the dialogues of a folder of results, and the checklists of its tasks where they are asked for.

    Raises:
        DataError: the folder holds no results.
        ConfigError: the harness is not set up.
        HarnessFailed: the harness does not tell about its tasks.
    """
    results, outcomes = read(config.folder)
    environment = environments.need(results.benchmark)
    found = Summary(benchmark=results.benchmark, model=results.model)
    if environment.version != results.harness:
        found.notes.append(f"tools and right answers are those of {environment.version}, not of {results.harness}")
    tasks: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.task not in tasks.setdefault(outcome.category, []):
            tasks[outcome.category].append(outcome.task)
    told = ask(results.benchmark, environment, tasks)
    with RowWriter(config.output) as writer:
        for dialogue in dialogues(Path(config.folder), results, outcomes, told, found):
            writer.write(write_task(Task(dialogue), "openai"))
    found.outputs.append(config.output)
    _set_aside(config.output, outcomes, found)
    if config.checklists is not None:
        _checklists(config.checklists, results.benchmark, told, found)
    return found


def dialogues(
    folder: Path, results: Results, outcomes: list[Outcome], told: dict[Key, Told], found: Summary
) -> Iterator[Dialogue]:
    """Every scored conversation, repetition by repetition."""
    for run in range(results.runs):
        mine = {(one.category, one.task): one for one in outcomes if one.run == run and not one.lost}
        place = folder / RAW / f"run-{run}"
        reader = READERS[results.benchmark]
        for category, task, messages in reader.transcripts(place, list(dict.fromkeys(key[0] for key in mine))):
            outcome = mine.get((category, task))
            if outcome is not None and messages:
                del mine[category, task]
                yield _counted(dialogue(results, outcome, told.get((category, task)), messages, place), outcome, found)
        for key, outcome in mine.items():
            found.without_transcript += 1
            nothing = [{"role": "user", "content": NO_TRANSCRIPT}]
            yield _counted(dialogue(results, outcome, told.get(key), nothing, place), outcome, found)


def _counted(made: Dialogue, outcome: Outcome, found: Summary) -> Dialogue:
    found.dialogues += 1
    found.passed += bool(outcome.passed)
    return made


def dialogue(
    results: Results, outcome: Outcome, told: Told | None, messages: list[dict[str, Any]], place: Path
) -> Dialogue:
    """A conversation as a dialogue, with the official outcome beside it."""
    system = told.system if told is not None else None
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    if not any(one["role"] == "user" for one in messages):
        messages = [*messages, {"role": "user", "content": NO_TRANSCRIPT}]
    meta = {
        "benchmark": results.benchmark,
        "harness": results.harness,
        "model": results.model,
        "category": outcome.category,
        "task_id": outcome.task,
        "run": outcome.run,
        "reward": outcome.score,
    }
    more = {"passed": outcome.passed, "owner": outcome.owner, "error": outcome.error, "groups": outcome.groups}
    meta |= {name: value for name, value in more.items() if value not in (None, "", [])}
    if outcome.raw:
        meta["raw"] = outcome.raw
    if told is not None and (held := {t: turn.new for t, turn in enumerate(told.turns) if turn.new}):
        meta["tools_from_turn"] = {str(turn): names for turn, names in held.items()}
    if results.benchmark == "toolsandbox" and (met := toolsandbox.milestones(place, outcome.task)):
        meta["milestones"] = met
    row = {
        "id": gold.name_of(results.benchmark, outcome.category, outcome.task),
        "source": _official(results, outcome),
        "tools": told.tools if told is not None else [],
        "messages": messages,
        "meta": meta,
    }
    return read_row(row, "openai")


def _official(results: Results, outcome: Outcome) -> str:
    """The official outcome in one line: reports show it beside the dialogue."""
    if outcome.passed is None:
        verdict = f"score {outcome.score:.3f}" if outcome.score is not None else "no score"
    else:
        verdict = "passed" if outcome.passed else "failed"
    told = f"{results.benchmark} {outcome.category}, {results.model}, run {outcome.run}: official outcome {verdict}"
    return told + (f" ({outcome.error})" if outcome.error else "")


def _set_aside(output: str, outcomes: list[Outcome], found: Summary) -> None:
    """What was lost, in a file of its own; without any the file of an earlier run goes."""
    lost = [one for one in outcomes if one.lost]
    found.unscored = dict(Counter(one.owner or "infrastructure" for one in lost))
    path = f"{output}.{UNSCORED}"
    if lost:
        with RowWriter(path) as writer:
            for one in lost:
                writer.write(one)
        found.outputs.append(path)
    elif os.path.exists(path):
        os.remove(path)


def _checklists(path: str, benchmark: str, told: dict[Key, Told], found: Summary) -> None:
    out: Counter[str] = Counter()
    without: Counter[str] = Counter()
    made = []
    for one in told.values():
        labelled = gold.label(benchmark, one)
        out.update(labelled.items_out)
        without.update(labelled.turns_out)
        if labelled.task.checklists:
            made.append(labelled.task)
            found.items += sum(len(checklist.items) for checklist in labelled.task.checklists)
    found.tasks, found.items_out, found.without_checklist = len(made), dict(out), dict(without)
    if not made:
        found.notes.append(f"no checklists: {', '.join(without)}; write a policy, or label by a model")
        return
    with RowWriter(path) as writer:
        for task in made:
            writer.write(write_task(task, "openai"))
    found.outputs.append(path)
