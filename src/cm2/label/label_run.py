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
from typing import TYPE_CHECKING

import msgspec

from cm2.checklist import Checklist, Task
from cm2.errors import ConfigError, DataError
from cm2.formats import Row, RowWriter, detect_format, read_row, read_rows, write_task
from cm2.formats.tasks import AUTO, known
from cm2.label.effects import EffectsLabeler
from cm2.label.label_config import CODE_LABELERS, LABELERS, MODEL_LABELERS, LabelConfig
from cm2.label.label_summary import LabelSummary, no_dialogue
from cm2.label.reference import Labelled, ReferenceLabeler, against

if TYPE_CHECKING:
    from cm2.llm import Asker

__all__ = ["CODE_LABELERS", "LABELERS", "MODEL_LABELERS", "LabelConfig", "LabelSummary", "label_file"]

BATCH = 32
Rows = Iterable[Row]


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
        from cm2.label.model_run import label_with_model  # not above: code alone should not wait for clients of models

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
            raise no_dialogue(config.input, summary)
    return summary


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
