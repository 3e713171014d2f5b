"""Run: logs of outside tools in, rows of dialogues out; what became of every record is counted and told.

Every record that is read ends in exactly one of three: it went into a dialogue that was written (`used`), it holds no
conversation (`aside`: a database's span, a document's frame), or it was rejected with a reason. A dialogue that is made
of several records is rejected as a whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from cm2.errors import CM2Error, ConfigError, DataError, Where
from cm2.formats.jsonlines import encode
from cm2.formats.pipe import no_pipe
from cm2.formats.rows import RowWriter, check_output
from cm2.imports.detect import FORMATS, detect, fits
from cm2.imports.draft import Draft
from cm2.imports.groups import Aside, Own, place, read_group, read_own
from cm2.imports.notes import plain
from cm2.imports.spill import Spill
from cm2.imports.stream import Record, log_files, read_records
from cm2.imports.summary import Summary
from cm2.llm.scrub import scrub

AUTO = "auto"
_SHOWN = 100
"""Different remarks that a summary counts by their words; the rest is counted as one."""


class ImportConfig(msgspec.Struct, kw_only=True):
    """What is read and where it goes."""

    inputs: list[str]
    """Files, folders or fsspec URLs; several where traces and their scores were exported one by one."""
    output: str
    """The rows."""
    format: str = AUTO
    """Name it where the detection is wrong: records that cannot be of this format are then rejected."""
    rejected: str | None = None
    """Records that became no dialogue, with reasons. Default: OUTPUT.rejected.jsonl, there only if there are any."""
    report: str | None = None
    """One line for each part of each record that was not mapped, kept aside, or made."""


def import_logs(
    config: ImportConfig, progress: Callable[[Iterator[Record]], Iterator[Record]] | None = None
) -> Summary:
    """Read logs and write their dialogues.

    Args:
        config: what and where.
        progress: wraps the records, to show how far it is.

    Raises:
        ConfigError: there is no such format, or an output is an input.
        DataError: there is no such file, an output is a folder, or nothing that was read is a dialogue (the rejected
            records are written then too).
    """
    if config.format != AUTO and config.format not in FORMATS:
        raise ConfigError(f"there is no format {config.format!r}", fix=f"use {AUTO}, {', '.join(FORMATS)}")
    files = [file for path in config.inputs for file in log_files(path)]
    rejects = config.rejected or f"{config.output}.rejected.jsonl"
    for file in files:
        no_pipe(file)
    for output in filter(None, (config.output, rejects, config.report)):
        check_output(output)
        if os.path.realpath(output) in map(os.path.realpath, files):
            raise ConfigError("the output is one of the inputs", where=Where(file=output), fix="name another file")
    summary = Summary(len(files), output=config.output, rejects=rejects, report=config.report)
    with contextlib.ExitStack() as stack:
        run = _Run(config, summary, stack)
        records = read_records(config.inputs)
        for record in records if progress is None else progress(records):
            run.take(record)
        run.finish()
    if not summary.rejected and config.rejected is None and os.path.isfile(rejects):
        os.unlink(rejects)  # of an earlier run
    if not summary.dialogues:
        first = next(iter(summary.reasons), None) or next(iter(summary.asides), "there are no records")
        many = f"none of its {summary.read} records is a dialogue" if summary.read != 1 else "its record is no dialogue"
        where = Where(file=", ".join(config.inputs))
        raise DataError(f"{many}; the first: {first}", where=where, fix=f"rejected records: {rejects}")
    return summary


class _Run:
    """The state of one run."""

    def __init__(self, config: ImportConfig, summary: Summary, stack: contextlib.ExitStack):
        self.config, self.summary = config, summary
        self._stack = stack
        self._writers: dict[str, RowWriter] = {}
        self._spill: Spill | None = None
        self._ids: set[bytes] = set()
        for path in (config.rejected, config.report):
            if path is not None:
                self._writer(path)

    def _writer(self, path: str) -> RowWriter:
        if path not in self._writers:
            self._writers[path] = self._stack.enter_context(RowWriter(path))
        return self._writers[path]

    def take(self, record: Record) -> None:
        """One record: to a dialogue at once, to the pieces, aside, or rejected."""
        self.summary.read += 1
        if record.error is not None:
            return self.reject([record], None, record.error)
        with self._rejecting([record], None) as known:
            format = known["format"] = self._format(record.value)
            where = place(record.value, format)
            if isinstance(where, Aside):
                self.summary.aside += 1
                self._report({"format": format, **record.at}, "aside", "", where.reason)
                self._count(self.summary.asides, where.reason, record)
            elif isinstance(where, Own):
                self.write(read_own(record.value, format, record.header), [record])
            else:
                self._pieces().add(where, format, record)

    def _pieces(self) -> Spill:
        if self._spill is None:
            folder = os.path.dirname(os.path.abspath(self.config.output)) if "://" not in self.config.output else None
            if folder is not None:
                os.makedirs(folder, exist_ok=True)
            self._spill = self._stack.enter_context(Spill(folder))
        return self._spill

    @contextlib.contextmanager
    def _rejecting(self, records: list[Record], format: str | None) -> Iterator[dict[str, Any]]:
        """What goes wrong in here with these records rejects them; what goes wrong with the machine stops the run."""
        known: dict[str, Any] = {"format": format}
        try:
            yield known
        except RecursionError:
            self.reject(records, known["format"], "nested too deeply to read")
        except DataError as error:
            self.reject(records, known["format"], _said(error))
        except sqlite3.Error as error:
            fix = "free some room on the disk and run the same command again"
            raise CM2Error(f"the temporary file beside the output failed: {error}", fix=fix) from error
        except (CM2Error, OSError):
            raise
        except Exception as error:
            reason = f"the reader failed, please report it ({type(error).__name__}: {error})"
            self.reject(records, known["format"], reason)

    def _format(self, value: Any) -> str:
        if self.config.format != AUTO:
            if not fits(self.config.format, value):
                raise DataError(f"the record is none of the format '{self.config.format}'{_keys(value)}")
            return self.config.format
        found = detect(value)
        if found is None:
            raise DataError(f"no format is recognised{_keys(value)}")
        return found

    def finish(self) -> None:
        """The dialogues of the traces."""
        if self._spill is None:
            return
        for name, pieces in self._spill.groups():
            records = [piece.record for piece in pieces]
            with self._rejecting(records, pieces[0].format):
                values = [(piece.format, piece.record.value) for piece in pieces]
                self.write(read_group(values, name, [record.header for record in records]), records)

    def write(self, drafts: list[Draft], records: list[Record]) -> None:
        """Write the dialogues of some records. Branches that are no dialogues are told; the first decides."""
        at = dict(records[0].at)
        if len(records) > 1:
            at["records"] = len(records)
        written = False
        problem: DataError | None = None
        for draft in drafts:
            draft.at = at
            draft.id = self._unique(draft)
            try:
                row = draft.row()
            except DataError as error:
                problem = problem or error
                continue
            self._writer(self.config.output).write(row)
            self._tell(draft)
            written = True
        if not written:
            raise problem or DataError("there is no conversation in it")
        if problem is not None:
            self._count(self.summary.unmapped, f"a branch is no dialogue: {_said(problem)}", records[0])
            self._report(drafts[0], "unmapped", "", f"a branch is no dialogue: {_said(problem)}")
        self.summary.used += len(records)

    def _unique(self, draft: Draft) -> str:
        """The draft's id; with a number behind it where the output has it already."""
        id = first = draft.id or draft.made_id()
        number = 1
        while (mark := blake2b(id.encode(errors="replace"), digest_size=8).digest()) in self._ids:
            number += 1
            id = f"{first}#{number}"
        if id != first:
            draft.notes.made("id", "an earlier dialogue has the same id; a number is added to this one's")
        self._ids.add(mark)
        return id

    def _tell(self, draft: Draft) -> None:
        summary = self.summary
        summary.dialogues += 1
        summary.branches += draft.branch is not None
        summary.scored += "reward" in draft.meta or bool(draft.meta.get("scores"))
        summary.inferred += bool(draft.inferred)
        summary.formats[draft.format] = summary.formats.get(draft.format, 0) + 1
        seen = set()
        for note in draft.notes.said:
            counts = {"unmapped": summary.unmapped, "made": summary.made, "left": summary.left}[note.kind]
            what = plain(note.path) if note.kind == "left" else note.what.split(": ")[0]
            if (note.kind, what) not in seen:
                seen.add((note.kind, what))
                self._count(counts, what, None, draft)
            self._report(draft, note.kind, note.path, note.what)
        for path in draft.notes.kept:
            self._report(draft, "kept", path, "kept in meta.import.kept")
        for name in draft.inferred:
            self._report(draft, "inferred", "tools", f"the schema of '{name}' is inferred from its calls")

    def _count(self, counts: dict[str, int], what: str, record: Record | None, draft: Draft | None = None) -> None:
        what = what if what in counts or len(counts) < _SHOWN else "other"
        counts[what] = counts.get(what, 0) + 1
        if what not in self.summary.examples:
            at = draft.at if draft is not None else record.at if record is not None else {}
            self.summary.examples[what] = _place(at)

    def _report(self, about: Draft | dict[str, Any], kind: str, path: str, what: str) -> None:
        if self.config.report is not None:
            told = {"id": about.id, "format": about.format, **about.at} if isinstance(about, Draft) else about
            self._writer(self.config.report).write({**told, "kind": kind, "at": path, "what": what})

    def reject(self, records: list[Record], format: str | None, reason: str) -> None:
        """Put records beside, with the reason."""
        self.summary.rejected += len(records)
        for record in records:
            self._count(self.summary.reasons, _short(reason), record)
            row: dict[str, Any] = {**record.at, "format": format, "reason": reason}
            if len(records) > 1:
                row["records"] = len(records)
            row["row"] = record.value if record.error is None else record.raw
            try:
                text = encode(row)
            except (RecursionError, TypeError):
                text = encode(row | {"row": None})
            self._writer(self.summary.rejects).write_text(scrub(text.decode()).encode())


def _said(error: DataError) -> str:
    where = error.where.path if error.where else None
    return f"{error.message} (at {where})" if where else error.message


def _short(reason: str) -> str:
    """A reason without what differs from record to record."""
    return plain(reason)[:200]


def _keys(value: Any) -> str:
    if isinstance(value, dict):
        return f"; its fields are {', '.join(list(map(str, value))[:12]) or 'none'}"
    return f"; it is {'a list' if isinstance(value, list) else 'no object'}"


def _place(at: dict[str, Any]) -> str:
    line = f":{at['line']}" if "line" in at else ""
    path = f" at {at['path']}" if "path" in at else ""
    return f"{at.get('file', '')}{line}{path}"
