"""Compressing a file: every dialogue in order, its thinking shorter where that is safe, everything else as it was.

A row that changed says so under `cm2.compression`: by which prompt and model, how many sections were rewritten, why the
others stay, and what the changed messages held before, so that `restored` gives back the row that was read. A row in
which nothing changed is its own text, byte for byte. An object that is no dialogue passes through; a line that is no
object at all is left out; both are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.curate.compressor import WHOLE, Compressed, Compressor
from cm2.curate.outputs import Nowhere, check_paths
from cm2.curate.repair import KEY
from cm2.curate.section import rewritten
from cm2.errors import DataError, Where
from cm2.formats import Row, RowWriter, detect_format, read_rows, read_task, write_task
from cm2.formats.jsonlines import encode
from cm2.llm import Asker
from cm2.llm.flow import ordered

RECORD = "compression"
KEPT_PROBLEMS = 5
Value = dict[str, Any]
_Result = tuple[bytes | None, Compressed | str]
"""A row as it is written (None: not at all), and what became of its thinking, or why it is no dialogue."""


class CompressConfig(msgspec.Struct):
    """What to compress and where to."""

    input: str
    """Dialogues: any row file."""
    output: str
    """The same rows, in their order and format."""
    whole: int = WHOLE
    """Characters of thinking that one question holds; a dialogue with more is asked about turn by turn."""
    originals: bool = True
    """Whether a row keeps what its changed messages held before. Without, the file is smaller and nothing can be put
    back."""
    width: int = 256
    """Rows under way at once; more than the model's concurrency, so that a slow answer holds nobody up."""
    dry: bool = False
    """Whether to write nothing: for an asker that only plans."""


class CompressSummary(msgspec.Struct):
    """What became of the sections: sections = rewritten + the kept + unscored."""

    prompt: str = ""
    rows: int = 0
    changed: int = 0
    """Rows in which at least one section was rewritten."""
    sections: int = 0
    rewritten: int = 0
    kept: dict[str, int] = {}
    """Sections that stay because of what the model wrote, by reason; see `cm2.curate.faithful.FAULTS`."""
    unscored: int = 0
    """Sections that stay because an answer was lost."""
    owners: dict[str, int] = {}
    """The unscored by whose failure it was."""
    lost: str = ""
    """Why the first of them got no answer."""
    characters: int = 0
    """Of all thinking, before."""
    characters_after: int = 0
    calls: int = 0
    cached: int = 0
    """Answers that came from the cache."""
    cost: float = 0.0
    unreadable: int = 0
    """Rows that are no dialogue; objects pass through as they are."""
    left_out: list[int] = []
    """Lines that are no JSON object, and so not in the output."""
    problems: list[str] = []

    def as_json(self) -> Value:
        """The summary as JSON values, with the share of the characters that is left."""
        share = self.characters_after / self.characters if self.characters else None
        return {**msgspec.to_builtins(self), "characters_share": share}

    def add(self, row: Row, done: Compressed | str, planned: bool = False) -> None:
        """Count a row in. Of what is only planned, nothing is known but what would be asked."""
        self.rows += 1
        if isinstance(done, str):
            self.unreadable += 1
            if len(self.problems) < KEPT_PROBLEMS:
                self.problems.append(f"line {row.line}: {done}")
            return
        self.calls, self.cached, self.cost = self.calls + done.calls, self.cached + done.cached, self.cost + done.cost
        self.sections += len(done.outcomes)
        self.characters += sum(len(outcome.section.thinking) for outcome in done.outcomes)
        if planned:
            return
        self.changed += bool(done.texts)
        for outcome in done.outcomes:
            before = len(outcome.section.thinking)
            self.characters_after += before if outcome.text is None else len(outcome.text)
            if outcome.text is not None:
                self.rewritten += 1
            elif outcome.lost is not None:
                self.unscored += 1
                self.owners[outcome.lost.owner] = self.owners.get(outcome.lost.owner, 0) + 1
                self.lost = self.lost or f"line {row.line}: {outcome.lost.reason}"
            else:
                self.kept[outcome.fault] = self.kept.get(outcome.fault, 0) + 1


def compress_file(
    config: CompressConfig,
    asker: Asker,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda rows: rows,
    count: Callable[[str], int] = len,
) -> CompressSummary:
    """Compress the thinking in a file. Streams, whatever its size; the output appears whole at the end.

    Args:
        config: what and where to.
        asker: who answers.
        progress: wraps the iteration over the rows that are done.
        count: the length of a text in tokens, where characters do not tell.

    Raises:
        ConfigError: the output is the input, or lies in it.
        DataError: the input is missing, empty or no file of rows, or none of its rows is a dialogue.
        ProviderError, BudgetReached: there is no use in asking on, or the money is spent. No output appears; what was
            answered is in the asker's cache, so that the same command goes on from there.
    """
    check_paths(config.input, {"-o": config.output})
    compressor = Compressor(asker, config.whole, count)
    summary = CompressSummary(compressor.prompt)

    async def work(row: Row) -> _Result:
        return await _compressed(row, compressor, config)

    with Nowhere(config.output) if config.dry else RowWriter(config.output) as writer:
        for row, (text, done) in progress(ordered(read_rows(config.input), work, config.width)):
            summary.add(row, done, planned=config.dry)
            if text is None:
                summary.left_out.append(row.line)
            else:
                writer.write_text(text)
        if summary.unreadable == summary.rows:
            raise DataError(
                f"none of its rows is a dialogue; the first: {summary.problems[0]}",
                where=Where(file=config.input),
                fix='expected rows with "messages" (chat messages) and "tools", or Nemotron rows',
            )
    return summary


async def _compressed(row: Row, compressor: Compressor, config: CompressConfig) -> _Result:
    where = Where(row.file or config.input, row.line)
    if row.value is None:
        return None, row.error or "the row is empty"
    text = encode(row.value) if row.text is None else row.text
    try:
        task = read_task(row.value, where=where)
    except DataError as error:
        return text, error.message
    done = await compressor.compress(task.dialogue, task.checklists, where)
    if done.texts:
        text = encode(_changed(row.value, task, done, compressor.prompt, config.originals))
    return text, done


def _changed(row: Value, task: Task, done: Compressed, prompt: str, originals: bool) -> Value:
    """The row with its new thinking and the record of it."""
    dialogue = rewritten(task.dialogue, done.texts)
    written = write_task(Task(dialogue, task.checklists), detect_format(row))["messages"]
    # Only what changed is taken, in its place: whatever else the row holds, and how, is no business of a writer's.
    messages = [old if old == new else {**old, **new} for old, new in zip(row["messages"], written, strict=True)]
    kept: dict[str, int] = {}
    for outcome in done.outcomes:
        if outcome.text is None:
            reason = outcome.fault or "unscored"
            kept[reason] = kept.get(reason, 0) + 1
    record: Value = {
        "prompt": prompt,
        "model": done.model,
        "rewritten": len(done.texts),
        "kept": kept,
        "characters": [sum(len(s.thinking) for s in done.texts), sum(map(len, done.texts.values()))],
    }
    if originals:
        record["originals"] = [
            {"message": index, **{key: old[key] for key in old if old[key] != new[key]}}
            for index, (old, new) in enumerate(zip(row["messages"], messages, strict=True))
            if old != new
        ]
    held = row.get(KEY)
    ours = held if isinstance(held, dict) else {"held": held} if KEY in row else {}
    return {**row, "messages": messages, KEY: {**ours, RECORD: record}}


def restored(row: Value) -> Value:
    """The row as it was before it was compressed; the same row where it was not, or where it keeps no originals."""
    held = row.get(KEY)
    record = held.get(RECORD) if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(record, dict) or "originals" not in record:
        return row
    messages = list(row["messages"])
    for original in record["originals"]:
        old = {key: value for key, value in original.items() if key != "message"}
        messages[original["message"]] = {**messages[original["message"]], **old}
    new = {**row, "messages": messages, KEY: {key: value for key, value in held.items() if key != RECORD}}
    if list(new[KEY]) == ["held"]:
        new[KEY] = new[KEY]["held"]
    elif not new[KEY]:
        del new[KEY]
    return new
