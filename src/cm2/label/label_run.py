"""Labelling a file: every dialogue in order, streamed into rows with checklists, by code or by a model.

Without a model in this process or several: workers label dialogues alone; what looks beyond a dialogue (lint lends the
answer of the row before to dialogues of one turn) is settled here, in the order of the file, so that one worker and
several give the same output. The output appears whole or not at all. A row that does not read is counted with its line
and left out. With a model: `cm2.label.model_run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from cm2.checklist import Checklist, Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import Row, RowWriter, detect_format, read_row, read_rows, write_task
from cm2.formats.tasks import AUTO, known
from cm2.label.config import Drafting
from cm2.label.effects import EffectsLabeler
from cm2.label.effects_match import Ids
from cm2.label.reference import Labelled, ReferenceLabeler, against
from cm2.verdict import WHOLE

if TYPE_CHECKING:
    from cm2.label.labelling import ModelLabelled
    from cm2.llm import Asker

BATCH = 32
KEPT_PROBLEMS = 20
NO_ITEM = "no item"
MODEL_LABELERS = ("llm", "hybrid")
CODE_LABELERS = (ReferenceLabeler.name, EffectsLabeler.name)
LABELERS = (*CODE_LABELERS, *MODEL_LABELERS)
SET_ASIDE = ".unscored.jsonl"
Rows = Iterable[Row]


class LabelConfig(msgspec.Struct):
    """What to label, by what, and where to."""

    input: str
    """Reference dialogues, any row file. Checklists that they carry are replaced."""
    output: str
    """Rows in their own format with "checklists"."""
    labeler: str = ReferenceLabeler.name
    """reference: from the data flow of the dialogue, without a language model. effects: of the whole dialogue, by what
    it changed, for other runs of the same task. llm: by a model. hybrid: `reference`, and a model adds what code cannot
    see."""
    ids: Ids = "same"
    """Of `effects`: same where other runs start from the same data, origin where a world hands out other ids."""
    jobs: int = 1
    """Worker processes of `reference` and `effects`; the output is the same."""
    format: str = AUTO
    """The format of `input`, when it cannot be told from the rows."""
    set_aside: str | None = None
    """Where rows go for which a model gave no answer; None is `output` + ".unscored.jsonl"."""
    drafting: Drafting = Drafting()
    """How a model is asked."""


class LabelSummary(msgspec.Struct):
    """What a run labelled, and what it left out and why."""

    dialogues: int = 0
    without_checklist: int = 0
    """Dialogues in which no turn has a checklist."""
    turns: int = 0
    labelled_turns: int = 0
    whole: int = 0
    """Dialogues with a checklist of the whole."""
    checklists: int = 0
    """As many as labelled turns, or times the independent checklists of a turn."""
    items: int = 0
    with_check: int = 0
    """Items that are judged by code."""
    kinds: dict[str, int] = {}
    strict: int = 0
    """Items without which the conversation may not go on."""
    dependent: int = 0
    """Items that depend on others."""
    items_out: dict[str, int] = {}
    """Excluded items by "kind: reason"; the reason is a test of lint."""
    turns_out: dict[str, int] = {}
    """Turns without a checklist by reason."""
    unreadable: int = 0
    unreadable_lines: list[int] = []
    problems: list[str] = []
    """What is wrong with the first unreadable rows."""
    set_aside: int = 0
    """Rows of which a question to a model got no answer: not in the output."""
    unlabelled: dict[str, int] = {}
    """Turns (once a variant) without a checklist: provider, model and data are set aside with their rows and asked for
    by the next run; "no item" were answered, and nothing was left to keep."""
    proposed: int = 0
    """Items in a model's first answers."""
    repaired: int = 0
    """Items that were kept because they were asked for again."""
    merged: int = 0
    """Items that said what another item says."""
    mended: int = 0
    """Snippets of evidence that were corrected or left out."""
    checks_out: dict[str, int] = {}
    """Items kept without the check that a model proposed for them, by reason."""
    cost: float = 0.0
    """US dollars that this run paid."""

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, with the mean number of items of a checklist."""
        mean = self.items / self.checklists if self.checklists else 0.0
        return {**msgspec.to_builtins(self), "items_per_turn": round(mean, 3)}

    def add(self, labelled: Labelled) -> None:
        """Count one dialogue."""
        self.dialogues += 1
        self.turns += len(labelled.task.dialogue.turns)
        turns = {checklist.turn for checklist in labelled.task.checklists}
        self.labelled_turns += len(turns - {WHOLE})
        self.whole += WHOLE in turns
        self.checklists += len(labelled.task.checklists)
        self.without_checklist += not labelled.task.checklists
        for item in (item for checklist in labelled.task.checklists for item in checklist.items):
            self.items += 1
            self.kinds[item.kind] = self.kinds.get(item.kind, 0) + 1
            self.strict += item.required_for_next_turn
            self.dependent += bool(item.depends_on)
            self.with_check += item.check is not None
        _sum(self.items_out, labelled.items_out)
        _sum(self.turns_out, labelled.turns_out)

    def add_drafted(self, labelled: ModelLabelled) -> None:
        """Count what a model did for one dialogue; one that is set aside counts as that and with its cost only."""
        self.cost += labelled.cost
        for lost in labelled.lost:
            _sum(self.unlabelled, {lost.owner: len(lost.turns)})
        if labelled.lost:
            self.set_aside += 1
            return
        self.add(labelled)
        self.proposed += labelled.proposed
        self.repaired += labelled.repaired
        self.merged += labelled.merged
        self.mended += labelled.mended
        _sum(self.checks_out, labelled.checks_out)
        _sum(self.unlabelled, {NO_ITEM: labelled.empty} if labelled.empty else {})

    def failed(self, row: Row, error: str) -> None:
        """Count one unreadable row."""
        self.unreadable += 1
        self.unreadable_lines.append(row.line)
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"line {row.line}: {error}")


def _sum(counts: dict[str, int], more: dict[str, int]) -> None:
    for reason, count in more.items():
        counts[reason] = counts.get(reason, 0) + count


def label_file(
    config: LabelConfig,
    progress: Callable[[Rows], Rows] = lambda rows: rows,
    asker: Asker | None = None,
    dry: bool = False,
) -> LabelSummary:
    """Label every dialogue of a file. Streams, whatever its size.

    Args:
        config: what, by what, where to.
        progress: is shown the rows as they pass.
        asker: who answers for `llm` and `hybrid`: `cm2.llm.Models`, or your own.
        dry: write nothing (for an asker that only counts).

    Raises:
        ConfigError: there is no such labeler or format, `jobs` is less than 1, or input and output are the same file.
        DataError: the file is missing, empty or of another format, or none of its rows is a dialogue.
        ProviderError, BudgetReached: a model will answer nothing more; the same command goes on from there.
    """
    if config.labeler not in LABELERS:
        raise ConfigError(f"there is no labeler {config.labeler!r}", fix=f"use {', '.join(LABELERS)}")
    if config.jobs < 1:
        raise ConfigError(f"jobs is {config.jobs}", fix="give 1 or more")
    known(config.format, also=AUTO)
    if os.path.realpath(config.input) == os.path.realpath(config.output):
        raise ConfigError("input and output are the same file", fix="give -o another name")
    if config.labeler in MODEL_LABELERS:
        if asker is None:
            raise ConfigError(
                f"the labeler {config.labeler} needs a model", fix="give --models, or --base-url and --model"
            )
        from cm2.label.model_run import label_with_model

        return label_with_model(config, asker, progress, dry)
    summary = LabelSummary()
    before: Task | None = None
    with RowWriter(config.output) as writer:
        for row, format, labelled, checklists in _labelled(progress(read_rows(config.input)), config):
            if isinstance(labelled, str):
                summary.failed(row, labelled)
                continue
            labelled.task.checklists = msgspec.json.decode(checklists, type=list[Checklist])
            against(labelled, before)
            before = labelled.task
            summary.add(labelled)
            writer.write(write_task(labelled.task, format))
        if not summary.dialogues:
            raise no_dialogue(config, summary)
    return summary


def no_dialogue(config: LabelConfig, summary: LabelSummary) -> DataError:
    """The error of a file in which no row is a dialogue."""
    first = f"; the first: {summary.problems[0]}" if summary.problems else ""
    fix = 'expected rows with "messages" (chat messages) and "tools", or Nemotron rows'
    return DataError(f"none of its rows is a dialogue{first}", where=Where(file=config.input), fix=fix)


_Result = tuple[Row, str, Labelled | str, bytes]
"""A row, its format, its labelling or what is wrong with it, and the checklists as JSON: pickled ones would not know
their default values again, and write them out."""
_Batch = tuple[list[Row], LabelConfig]


def _labelled(rows: Rows, config: LabelConfig) -> Iterator[_Result]:
    """Each row with its format and its labelling, or with what is wrong with it, in order."""
    batches = _batches(rows, config)
    for results in map(_label_batch, batches) if config.jobs == 1 else _ordered(config.jobs, batches):
        yield from results


def _batches(rows: Rows, config: LabelConfig) -> Iterator[_Batch]:
    batch: list[Row] = []
    for row in rows:
        row.text = None
        batch.append(row)
        if len(batch) == BATCH:
            yield batch, config
            batch = []
    if batch:
        yield batch, config


def _label_batch(work: _Batch) -> list[_Result]:
    rows, config = work
    effects = config.labeler == EffectsLabeler.name
    labeler = EffectsLabeler(config.ids) if effects else ReferenceLabeler()
    found: list[_Result] = []
    for row in rows:
        value, row.value = row.value, None
        if value is None:
            found.append((row, "", row.error or "the row is empty", b""))
            continue
        try:
            format = detect_format(value) if config.format == AUTO else config.format
            labelled = labeler.label(read_row(value, format))
        except DataError as error:
            found.append((row, "", str(error), b""))
            continue
        checklists, labelled.task.checklists = labelled.task.checklists, []
        found.append((row, format, labelled, msgspec.json.encode(checklists)))
    return found


def _ordered(jobs: int, batches: Iterable[_Batch]) -> Iterator[list[_Result]]:
    """Results of worker processes in order, with at most three batches a worker under way (memory stays flat)."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting: list[Future[list[_Result]]] = []
        for batch in batches:
            waiting.append(pool.submit(_label_batch, batch))
            if len(waiting) >= 3 * jobs:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
