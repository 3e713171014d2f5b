"""Monitor: judge what an agent's logs gain, watch its duties, and say when one is missed more than it may be.

What a monitor knows stands in a folder (`monitor_book`), which a killed one goes on with: nothing is lost, nothing is
counted twice. Content that was judged before is not judged again, whatever file it stands in, so logs may be rotated,
copied and compressed, and producers may send twice. A judge or provider that fails leaves a verdict unscored; one that
refuses everything stops the look, and the next look begins where this one stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Literal

import msgspec

from cm2.assure.alerts import Baseline
from cm2.assure.monitor_book import Book
from cm2.assure.monitor_files import STREAM, Folder, Row, Stream, check_input
from cm2.assure.monitor_judge import Found, Judges
from cm2.assure.monitor_log import Came, Event, Passed
from cm2.assure.monitor_rows import read_record
from cm2.assure.monitor_state import State
from cm2.assure.rules import Rules
from cm2.checklist import Task
from cm2.errors import ConfigError, DataError
from cm2.formats import write_task
from cm2.formats.tasks import AUTO, known
from cm2.llm import BudgetReached, ProviderError
from cm2.llm.scrub import scrub, scrubbed

_REASON = 200


class MonitorConfig(msgspec.Struct, kw_only=True):
    """What is watched, and how."""

    input: str
    """A folder that grows, a file, or - for standard input."""
    output: str
    """The monitor's folder."""
    rules: Rules = msgspec.field(default_factory=Rules)
    """When to say something."""
    baselines: dict[str, Baseline] = {}
    """Rates that are fine, by duty."""
    format: str = AUTO
    """The format of the rows, when it cannot be told."""
    keep: Literal["none", "failed", "all"] = "none"
    """Which dialogues are copied into dialogues.jsonl: those in which a duty failed, or all. Streams cannot be gone
    back to, and logs are rotated away."""
    settle: float = 60.0
    """Seconds after which a file that did not change is taken for finished."""
    concurrency: int = 16
    """Dialogues under way at once, where a model is asked."""


class _Work(msgspec.Struct):
    """A row on its way: a dialogue to judge, or what the row is instead."""

    row: Row
    task: Task | None = None
    rollout: str = ""
    digest: str = ""
    last: bool = True
    """Whether the row has been read when this is done."""
    reason: str = ""


class Monitor:
    """A monitor in its folder; a context manager. `look` judges what is new.

    Args:
        config: what and how.
        judges: who judges, by what.
        say: takes in a line for a person.
        stdin: the stream, for the input "-".

    Attributes:
        pulse: is called now and then, and after each look.

    Raises:
        CM2Error: another monitor lives in the folder.
        ConfigError: a rule names a duty that there is not; there is no such format; it would read its own files.
        DataError: there is no such input, or the folder's files were damaged.
    """

    def __init__(
        self, config: MonitorConfig, judges: Judges, say: Callable[[str], None], stdin: IO[bytes] | None = None
    ):
        known(config.format, also=AUTO)
        check_input(config.input, config.output)
        self.config, self.judges, self.say = config, judges, say
        if judges.policy is not None and (unknown := config.rules.unknown(set(judges.severities))):
            have = ", ".join(sorted(judges.severities))
            raise ConfigError(f"the rules name {', '.join(unknown)}, which the policy has not", fix=f"it has {have}")
        self.pulse: Callable[[Monitor], None] = lambda monitor: None
        self.polled = time.time()
        self.judged = self.repeated = self.rejected = self._raised = 0
        self.book = self._open()
        self._whole = True
        files = self.state.known.files
        self.source: Folder | Stream
        if config.input == STREAM:
            assert stdin is not None
            self.source = Stream(stdin, files, self._note)
        else:
            self.source = Folder(config.input, files, self._note, config.settle)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._whole:  # else a row may be half folded
                self.book.snapshot()
        finally:
            self.book.close()

    def _open(self) -> Book:
        return Book(self.config.output, self.judges, self.config.rules, self.config.baselines, self.say)

    def _note(self, event: Event) -> None:
        self.book.note(event)

    def look(self, wait: float = 0.0, stop: Callable[[], bool] = lambda: False) -> int:
        """Judge what came since; how many dialogues that were.

        Args:
            wait: a stream: seconds to wait for the first row.
            stop: whether to take no further row.

        Raises:
            ProviderError: the judge's provider refuses every request; nothing that was not judged is passed over.
            BudgetReached: there is no money left.
            OSError: the disk is full.
        """
        if not self._whole:
            self._reopen()
        held: deque[Row] = deque()
        try:
            return self._look(held, wait, stop)
        except (ProviderError, BudgetReached, OSError):
            self._whole = False
            if isinstance(self.source, Stream):
                self.source.give_back(list(held))
            raise

    def _reopen(self) -> None:
        """Forget what was on its way: the folder says how far it came."""
        self._raised += self.book.raised
        self.book.close()
        self.book = self._open()
        self.source.files = self.state.known.files
        self._whole = True

    def _look(self, held: deque[Row], wait: float, stop: Callable[[], bool]) -> int:
        def works() -> Iterator[_Work]:
            for row in self.source.new(wait) if isinstance(self.source, Stream) else self.source.new():
                held.append(row)
                yield from self._works(row)
                if stop():
                    return

        before = self.judged
        repeated: dict[int, tuple[_Work, int]] = {}
        for work, found in self.judges.run(works(), _asked, self.config.concurrency):
            file = work.row.file
            if found is None and not work.reason:  # many of these come at once, from a copy: one row for all
                repeated[file] = (work, repeated[file][1] + 1 if file in repeated else 1)
            else:
                self._repeated(repeated)
                if found is None:
                    self.rejected += 1
                    self._note(self._passed(work, rejected=1, reason=work.reason, digest=work.digest))
                else:
                    self._judged(work, found)
            if work.last:
                held.popleft()
            if self.book.due:
                self.book.snapshot()
                self.pulse(self)
        self._repeated(repeated)
        self.book.snapshot()
        self.polled = time.time()
        return self.judged - before

    def _repeated(self, repeated: dict[int, tuple[_Work, int]]) -> None:
        for work, count in repeated.values():
            self.repeated += count
            self._note(self._passed(work, repeated=count))
        repeated.clear()

    def _works(self, row: Row) -> Iterable[_Work]:
        """What a row is: dialogues that are new, one that came before, or none with the reason."""
        digest, tasks = row.digest, list[Task]()
        if row.error is None:
            try:
                tasks = read_record(row.value, row.header, self.config.format)
            except DataError as error:
                row.error = error.message if error.fix is None else f"{error.message} ({error.fix})"
        if row.error is not None:
            reason = "" if self.book.seen(digest) else scrub(row.error)[:_REASON]
            yield _Work(row, digest=digest, reason=reason)
        for number, task in enumerate(tasks):
            mark, last = f"{digest}#{number}" if number else digest, number == len(tasks) - 1
            if self.book.seen(mark):
                yield _Work(row, digest=mark, last=last)
            else:
                yield _Work(row, task, self.book.rollout(task.dialogue.id), mark, last)

    def _judged(self, work: _Work, found: Found) -> None:
        assert work.task is not None
        for duty, severity in found.severities.items():
            self.state.declare(duty, severity)
        keep = self.config.keep == "all" or (self.config.keep == "failed" and "fail" in found.results.values())
        row = scrubbed(write_task(work.task, "openai")) if keep else None
        verdicts, kept = self.book.store(found.verdicts, row)
        offset, line, tail = self._place(work)
        came = Came(
            file=work.row.file,
            offset=offset,
            line=line,
            at=time.time(),
            dialogue=work.task.dialogue.id,
            digest=work.digest,
            results=found.results,
            rollout=work.rollout,
            why=found.why,
            verdicts=verdicts,
            kept=kept,
            tail=tail,
            lost=found.lost,
            cost=found.cost,
        )
        self._note(came)
        self.judged += 1

    def _passed(self, work: _Work, **fields: Any) -> Passed:
        offset, line, tail = self._place(work)
        return Passed(work.row.file, offset, line, time.time(), tail=tail, **fields)

    def _place(self, work: _Work) -> tuple[int, int, str]:
        """How far its file is read when this is done."""
        row, at = work.row, self.state.known.files[work.row.file]
        return (row.offset, row.line, row.tail) if work.last else (at.offset, at.line, at.tail)

    @property
    def state(self) -> State:
        """What is known."""
        return self.book.state

    @property
    def raised(self) -> int:
        """Alerts that were raised in this run."""
        return self._raised + self.book.raised

    @property
    def unread(self) -> int:
        """Bytes that wait."""
        return self.source.unread

    @property
    def unreadable(self) -> int:
        """Files that cannot be read."""
        return len(self.source.unreadable)

    @property
    def deliveries(self) -> dict[tuple[str, str], int]:
        """Calls of webhooks by webhook and result."""
        return dict(self.book.desk.courier.counts)


def _asked(work: _Work) -> tuple[Task, str] | None:
    return None if work.task is None else (work.task, work.rollout)
