"""Filtering a file: every row is kept as it stood or rejected with the reasons; nothing that was read is lost.

The rules look first. Where a model is asked too (see `cm2.curate.judged`), it is asked only about what they keep; a row
about which its answer was lost is set aside with the reason.

A line that is broken is a rejected row; it stops nothing. A row that was repaired is written anew, every other kept row
is its own text, byte for byte (a byte order mark, which is no part of the row, goes). Both outputs appear whole at the
end, so a run that is killed leaves nothing half written and the same command gives the same result.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from cm2.curate.check import Checker
from cm2.curate.finding import Finding, Findings
from cm2.curate.opinion import PASSES, JudgedSummary, Opinion, parse_passes
from cm2.curate.outputs import Nowhere, check_paths
from cm2.curate.profile import make_profile
from cm2.curate.repair import named, repair
from cm2.curate.wire import parse_data
from cm2.errors import ConfigError, Where
from cm2.formats.jsonlines import encode
from cm2.formats.rows import Row, RowWriter, parse_object, read_rows

if TYPE_CHECKING:  # the rules do without models, and without the time that it takes to load them
    from cm2.curate.judged import Gate
    from cm2.llm import Asker

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
    llm: bool = False
    """Whether a model is asked about the rows that the rules keep."""
    passes: str = PASSES
    """How often it is asked about each row and with which effort, until it says no for the first time."""
    set_aside: str | None = None
    """Where rows go about which an answer was lost; `output` + ".unscored.jsonl" where it is None."""
    width: int = 256
    """Rows under way at once; more than the model's concurrency, so that a slow answer holds nobody up."""
    dry: bool = False
    """Whether to write nothing: for an asker that only plans."""
    lines_before: int = 0
    """Lines that stand before the input's first, where it is one file of several that are told of as one."""

    @property
    def unscored(self) -> str:
        """Where rows are set aside."""
        return self.set_aside or f"{self.output}.unscored.jsonl"


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
    unscored: int = 0
    """Rows set aside because the model's answer was lost: read = kept + rejected + unscored."""
    llm: JudgedSummary | None = None
    """What the model said, where it was asked."""

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        if self.llm is None:
            del value["llm"], value["unscored"]
        return value

    def count(self, counts: dict[str, int], findings: list[Finding], line: int) -> None:
        """Count a row once under each rule among its findings."""
        for finding in findings:
            if finding.rule not in self.examples:
                place = f" at {finding.path}" if finding.path else ""
                self.examples[finding.rule] = f"line {line}{place}: {finding.message}"
        for rule in dict.fromkeys(finding.rule for finding in findings):
            counts[rule] = counts.get(rule, 0) + 1


class Looked(msgspec.Struct, gc=False):
    """A row that the rules looked at."""

    row: Row
    value: Any = None
    """The row's object, repaired where it was; None where the line is none."""
    found: Findings | None = None
    text: bytes = b""
    """The row as it is written when it is kept."""
    repaired: list[str] = []


def filter_file(
    config: FilterConfig,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda rows: rows,
    asker: Asker | None = None,
) -> Summary:
    """Filter a file. Streams, whatever its size.

    Args:
        config: what and how.
        progress: wraps the iteration over the rows.
        asker: answers for the model, where `config.llm` is set.

    Raises:
        DataError: the input is missing, empty or no file of rows.
        ConfigError: an unknown profile, rule or repair, outputs that are in each other's way or the input's, or a model
            is to be asked and there is none.
        ProviderError, BudgetReached: there is no use in asking on, or the money is spent. No output appears; what was
            answered is in the asker's cache, so that the same command goes on from there.
    """
    look = _Look(config)
    gate = _gate(config, asker)
    outputs = {"-o": config.output, "--rejected": config.rejected, "--flagged": config.flagged}
    check_paths(config.input, outputs | ({"--set-aside": config.unscored} if config.llm else {}))
    summary = Summary(llm=None if gate is None else gate.summary())
    with ExitStack() as stack:
        if gate is None and gc.isenabled():
            # Rows are trees, freed as they go; to look for cycles among them takes a tenth of the time. Requests under
            # way do make cycles.
            gc.disable()
            stack.callback(gc.enable)
        open_writer = Nowhere if config.dry else RowWriter
        rejected = stack.enter_context(open_writer(config.rejected))
        flagged = None if config.flagged is None else stack.enter_context(open_writer(config.flagged))
        if gate is None:
            kept = stack.enter_context(open_writer(config.output))
            for looked in map(look.at, progress(_rows(config, look.parse))):
                _sort(looked, summary, kept, rejected, flagged)
            return summary
        from cm2.llm.flow import ordered

        set_aside = stack.enter_context(open_writer(config.unscored))
        kept = stack.enter_context(open_writer(config.output))

        async def judge(looked: Looked) -> Opinion | None:
            if looked.found is None or looked.found.violations:
                return None
            return await gate.judge(looked.value, Where(looked.row.file or config.input, looked.row.line))

        rows = map(look.at, _rows(config, look.parse))
        for looked, opinion in progress(ordered(rows, judge, config.width)):
            if opinion is not None:
                assert summary.llm is not None
                summary.llm.count(opinion, looked.row.line)
                if opinion.keep is None:
                    _set_aside(set_aside, looked, opinion)
                    summary.read, summary.unscored = summary.read + 1, summary.unscored + 1
                    continue
                if opinion.keep is False:
                    looked.found.reject("llm", opinion.reason, opinion.path)
            _sort(looked, summary, kept, rejected, flagged)
    return summary


def _rows(config: FilterConfig, parse: Any) -> Iterator[Row]:
    rows = read_rows(config.input, parse)
    return rows if not config.lines_before else _after(config.lines_before, rows)


def _after(lines: int, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        row.line += lines
        yield row


class _Look:
    """The rules and repairs of a configuration."""

    def __init__(self, config: FilterConfig):
        self._checker = Checker(make_profile(config.profile, config.rules, config.without))
        self._repairs = named(config.repair)
        self.parse: Any = parse_object if self._repairs or config.llm else parse_data

    def at(self, row: Row) -> Looked:
        """A row with what the rules find in it."""
        if row.value is None:
            return Looked(row)
        repairs = self._repairs
        value, done = repair(row.value, repairs) if repairs else (row.value, [])
        found = self._checker.check(value, None if done else row.text)
        if done or row.text is None:
            text = _written(value, found)
        else:
            text = row.text.removeprefix(_BOM)
        return Looked(row, value, found, text, done)


def _sort(looked: Looked, summary: Summary, kept: RowWriter, rejected: RowWriter, flagged: RowWriter | None) -> None:
    """Write a row where it belongs, and count it."""
    row, found = looked.row, looked.found
    summary.read += 1
    if found is None:
        broken = [Finding(unreadable(row.error or ""), row.error or "")]
        summary.rejected += 1
        summary.count(summary.rules, broken, row.line)
        rejected.write({"line": row.line, "violations": broken, "raw": row.raw})
        return
    if found.violations:
        summary.rejected += 1
        summary.count(summary.rules, found.violations, row.line)
        _write_with(rejected, row, b'"violations":%s' % encode(found.violations))
        return
    summary.kept += 1
    if looked.repaired:
        summary.repaired += 1
        for name in looked.repaired:
            summary.repairs[name] = summary.repairs.get(name, 0) + 1
    if found.flags:
        summary.flagged += 1
        summary.count(summary.flags, found.flags, row.line)
        if flagged is not None:
            flagged.write({"line": row.line, "flags": found.flags})
    kept.write_text(looked.text)


def _set_aside(writer: RowWriter, looked: Looked, opinion: Opinion) -> None:
    _write_with(writer, looked.row, b'"unscored":%s' % encode(opinion.lost))


def _gate(config: FilterConfig, asker: Asker | None) -> Gate | None:
    if not config.llm:
        return None
    from cm2.curate.judged import Gate

    passes = parse_passes(config.passes)
    if asker is None:
        raise ConfigError("the LLM filter has nobody to ask", fix="pass an asker (cm2.llm.Models)")
    return Gate(asker, passes)


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


def _write_with(writer: RowWriter, row: Row, told: bytes) -> None:
    """Write a row as it stood, with its line and what is told about it (the inside of a JSON object)."""
    head = b'{"line":%d,%s' % (row.line, told)
    text = row.text
    if text is None or (isinstance(row.value, dict) and (b"NaN" in text or b"Infinity" in text)):
        try:
            writer.write_text(head + b',"row":%s}' % encode(row.value))
        except RecursionError:
            writer.write_text(head + b',"raw":%s}' % encode((text or b"").decode(errors="replace")))
    else:  # the row's own text goes in: to write it anew would cost as much as to check it
        writer.write_text(head + b',"row":%s}' % text.removeprefix(_BOM))
