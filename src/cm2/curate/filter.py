"""Filtering a file: every row is kept as it stood or rejected with the reasons; nothing that was read is lost.

A line that is broken is a rejected row; it stops nothing. A row that was repaired is written anew, every other kept row
is its own text, byte for byte (a byte order mark, which is no part of the row, goes). Both outputs appear whole at the
end, so a run that is killed leaves nothing half written and the same command gives the same result.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from cm2.curate.check import Checker
from cm2.curate.finding import Finding, Findings
from cm2.curate.profile import make_profile
from cm2.curate.repair import named, repair
from cm2.curate.wire import parse_data
from cm2.errors import ConfigError
from cm2.formats.jsonlines import encode
from cm2.formats.rows import Row, RowWriter, parse_object, read_rows

_BOM = b"\xef\xbb\xbf"


class FilterConfig(msgspec.Struct):
    """What to filter and how."""

    input: str
    """Rows: .jsonl, .jsonl.gz, .jsonl.zst, Parquet, or a folder of such files."""
    output: str
    """Where the rows that pass go."""
    rejected: str
    """Where the others go, each with its line and the rules that it breaks."""
    flagged: str | None = None
    """Where to tell what is odd about rows that pass, when the summary's counts are not enough."""
    profile: str = "default"
    """`default` for logs of real agents, `published` for what the method's authors asked of training data."""
    rules: Sequence[str] | None = None
    """The only rules to apply, when not all of them."""
    without: Sequence[str] = ()
    """Rules to leave out."""
    repair: Sequence[str] = ()
    """Repairs to make before the rules look."""


class Summary(msgspec.Struct):
    """What the filter did. A row may break several rules and is then counted under each."""

    read: int = 0
    kept: int = 0
    rejected: int = 0
    repaired: int = 0
    flagged: int = 0
    rules: dict[str, int] = {}
    flags: dict[str, int] = {}
    repairs: dict[str, int] = {}
    examples: dict[str, str] = {}
    """The first row of each rule and flag: its line and what was wrong."""

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return msgspec.to_builtins(self)

    def count(self, counts: dict[str, int], findings: list[Finding], line: int) -> None:
        """Count a row once under each rule among its findings."""
        for finding in findings:
            if finding.rule not in self.examples:
                place = f" at {finding.path}" if finding.path else ""
                self.examples[finding.rule] = f"line {line}{place}: {finding.message}"
        for rule in dict.fromkeys(finding.rule for finding in findings):
            counts[rule] = counts.get(rule, 0) + 1


def filter_file(
    config: FilterConfig, progress: Callable[[Iterable[Row]], Iterable[Row]] = lambda rows: rows
) -> Summary:
    """Filter a file. Streams, whatever its size.

    Raises:
        DataError: the input is missing, empty or no file of rows.
        ConfigError: an unknown profile, rule or repair, or outputs that are in each other's way or the input's.
    """
    checker = Checker(make_profile(config.profile, config.rules, config.without))
    repairs = named(config.repair)
    _check_paths(config)
    summary = Summary()
    with ExitStack() as stack:
        if gc.isenabled():  # rows are trees, freed as they go; to look for cycles among them takes a tenth of the time
            gc.disable()
            stack.callback(gc.enable)
        rejected = stack.enter_context(RowWriter(config.rejected))
        flagged = None if config.flagged is None else stack.enter_context(RowWriter(config.flagged))
        kept = stack.enter_context(RowWriter(config.output))
        for row in progress(read_rows(config.input, parse_object if repairs else parse_data)):
            summary.read += 1
            if row.value is None:
                broken = [Finding(unreadable(row.error or ""), row.error or "")]
                summary.rejected += 1
                summary.count(summary.rules, broken, row.line)
                rejected.write({"line": row.line, "violations": broken, "raw": row.raw})
                continue
            value, done = repair(row.value, repairs) if repairs else (row.value, [])
            found = checker.check(value, None if done else row.text)
            text = None if row.text is None else row.text.removeprefix(_BOM)
            if done or text is None:
                text = _written(value, found)
            if found.violations:
                summary.rejected += 1
                summary.count(summary.rules, found.violations, row.line)
                _reject(rejected, row, found.violations)
                continue
            summary.kept += 1
            if done:
                summary.repaired += 1
                for name in done:
                    summary.repairs[name] = summary.repairs.get(name, 0) + 1
            if found.flags:
                summary.flagged += 1
                summary.count(summary.flags, found.flags, row.line)
                if flagged is not None:
                    flagged.write({"line": row.line, "flags": found.flags})
            kept.write_text(text)
    return summary


def unreadable(error: str) -> str:
    """The name under which a line that is no row is rejected, from the reader's error."""
    if error.startswith("the row is "):
        return "structure"
    return "limit" if error.startswith("the line has ") else "parse"


def _written(value: dict[str, Any], found: Findings) -> bytes:
    """The JSON of a row that has no text of its own."""
    try:
        return encode(value)
    except RecursionError:
        found.reject("limit", "the row is nested too deeply to write")
        return b""


def _reject(writer: RowWriter, row: Row, violations: list[Finding]) -> None:
    head = b'{"line":%d,"violations":%s' % (row.line, encode(violations))
    text = row.text
    if text is None or (isinstance(row.value, dict) and (b"NaN" in text or b"Infinity" in text)):
        try:
            writer.write_text(head + b',"row":%s}' % encode(row.value))
        except RecursionError:
            writer.write_text(head + b',"raw":%s}' % encode((text or b"").decode(errors="replace")))
    else:  # the row's own text goes in: to write it anew would cost as much as to check it
        writer.write_text(head + b',"row":%s}' % text.removeprefix(_BOM))


def _check_paths(config: FilterConfig) -> None:
    outputs = {"-o": config.output, "--rejected": config.rejected, "--flagged": config.flagged}
    taken: dict[str, str] = {_real(config.input): "IN"}
    inside: Any = os.path.isdir(config.input) and _real(config.input) + os.sep
    for option, path in outputs.items():
        if path is None:
            continue
        real = _real(path)
        if real in taken:
            raise ConfigError(f"{option} and {taken[real]} are the same file", fix="give each a name of its own")
        if inside and real.startswith(inside):
            raise ConfigError(f"{option} lies in the folder that is read", fix="write to another folder")
        taken[real] = option


def _real(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)
