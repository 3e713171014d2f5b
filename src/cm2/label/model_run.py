"""Labelling a file with a model: streamed, many dialogues under way, the output in the order of the file.

Answers live in the asker's cache, so the same command after a kill, a reached budget or a failed provider asks only for
what is missing and writes the file anew. A dialogue of which any question got no answer is *set aside*: its row goes,
with the reasons, to a second file, and is in no training set half labelled. That file is gone again when a later run
leaves nothing to set aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import fsspec
import msgspec

from cm2.checklist import Item, Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, told
from cm2.formats import Row, RowWriter, detect_format, read_row, read_rows, write_task
from cm2.formats.target import target_of
from cm2.formats.tasks import AUTO
from cm2.label.hybrid import HybridLabeler
from cm2.label.label_config import SET_ASIDE, LabelConfig
from cm2.label.label_summary import LabelSummary, no_dialogue
from cm2.label.labelling import Lost, ModelLabelled
from cm2.label.llm import LlmLabeler
from cm2.label.reference import against
from cm2.label.wording import compound
from cm2.llm import Asker, BudgetReached, ProviderError, flow

_Read = tuple[Row, str, Dialogue | str]
"""A row, its format, its dialogue or what is wrong with it."""


def label_with_model(
    config: LabelConfig, asker: Asker, progress: Callable[[Iterable[Row]], Iterable[Row]], dry: bool
) -> LabelSummary:
    """See `cm2.label.label_run.label_file`, which has looked at the configuration."""
    aside = config.set_aside or f"{config.output}{SET_ASIDE}"
    if os.path.realpath(aside) in map(os.path.realpath, (config.input, config.output)):
        raise ConfigError("rows are set aside into the input or output", fix="give --set-aside another name")
    labeler = (HybridLabeler if config.labeler == HybridLabeler.name else LlmLabeler)(asker, config.drafting)
    summary = LabelSummary()
    if dry:
        for _ in _labelled(config, labeler, progress, summary):
            pass
    else:
        before: Task | None = None
        with RowWriter(config.output) as writer, SetAside(aside) as lost:
            for row, format, labelled in _labelled(config, labeler, progress, summary):
                if not labelled.lost:
                    against(labelled, before, _Instead(labelled))
                    before = labelled.task
                    writer.write(write_task(labelled.task, format))
                else:
                    lost.write(row, labelled.lost)
                summary.add_drafted(labelled)
            if not summary.dialogues and not summary.set_aside:
                raise no_dialogue(config.input, summary)
    return summary


def _labelled(
    config: LabelConfig,
    labeler: LlmLabeler,
    progress: Callable[[Iterable[Row]], Iterable[Row]],
    summary: LabelSummary,
) -> Iterator[tuple[Row, str, ModelLabelled]]:
    """Each row that reads, labelled, in order; the others are counted.

    What ends the run is raised when everything under way is back: it was paid for, and is in the cache then.
    """
    ended: list[Exception] = []

    def rows() -> Iterator[_Read]:
        for row in progress(read_rows(config.input)):
            if ended:
                return
            yield _read(row, config.format)

    async def work(read: _Read) -> ModelLabelled | Exception | None:
        dialogue = read[2]
        if isinstance(dialogue, str):
            return None
        try:
            return await labeler.label(dialogue)
        except (ProviderError, BudgetReached) as error:
            ended.append(error)
            return error
        except Exception as error:  # one row that labelling itself cannot take must not end a paid run
            turns = list(range(len(dialogue.turns)))
            return ModelLabelled(task=Task(dialogue), lost=[Lost(turns, 0, "data", told(error))])

    for (row, format, dialogue), result in flow.ordered(rows(), work, labeler.config.width):
        if ended:
            continue
        if isinstance(dialogue, str):
            summary.failed(row, dialogue)
        elif isinstance(result, ModelLabelled):
            yield row, format, result
    if ended:
        raise ended[0]


def _read(row: Row, format: str) -> _Read:
    if row.value is None:
        return row, "", row.error or "the row is empty"
    try:
        format = detect_format(row.value) if format == AUTO else format
        return row, format, read_row(row.value, format)
    except DataError as error:
        return row, "", str(error)


class _Instead:
    """What takes the place of an item that the dialogue on the row before satisfies too: a model's item loses its check
    and is left to a judge; one of the code goes."""

    def __init__(self, labelled: ModelLabelled):
        self._labelled = labelled

    def __call__(self, item: Item) -> Item | None:
        if not item.kind.startswith("model_") or compound(item.question):
            return None
        out = self._labelled.checks_out
        out["another_turn"] = out.get("another_turn", 0) + 1
        return msgspec.structs.replace(item, check=None)


class SetAside:
    """The file of rows without an answer; made with its first row, taken away where a whole run has none.

    A row is `{"line", "lost": [{"turns", "variant", "owner", "message"}], "row"}`.
    """

    def __init__(self, path: str):
        self.path = path
        self._writer: RowWriter | None = None

    def __enter__(self) -> SetAside:
        return self

    def write(self, row: Row, lost: list[Lost]) -> None:
        """Add one row."""
        if self._writer is None:
            self._writer = RowWriter(self.path).__enter__()
        self._writer.write({"line": row.line, "lost": msgspec.to_builtins(lost), "row": row.value})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
        elif kind is None:
            fs, inner = fsspec.core.url_to_fs(self.path)
            if fs.isfile(inner) and not target_of(inner).straight:  # nor a device that was named to be rid of it
                fs.rm(inner)
