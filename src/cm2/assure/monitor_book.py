"""Book: the folder of a monitor, opened: its log and stores, the state folded from them, and the rules at work.

    log.jsonl         what was read and how it came out, row by row: the truth (`monitor_log`)
    verdicts.jsonl    the verdicts, as `cm2 judge` writes them
    dialogues.jsonl   the dialogues themselves, where they are kept
    alerts.jsonl      what was raised and cleared; deliveries.jsonl: calls of webhooks
    state.json        a snapshot, for a fast start (`monitor_state`)

For each dialogue its verdicts are written, then its row of the log; then the state is folded and the rules are
evaluated. Opened after a kill, the book cuts off what no row of the log confirms and folds the rows that the snapshot
does not have; alerts that come out of these are recognised by their ids where they were noted before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec

from cm2.assure.alerts import Alert, Alerts, Baseline, Escalation
from cm2.assure.alerts_send import Desk
from cm2.assure.monitor_judge import Judges
from cm2.assure.monitor_log import Came, Event, Judge, Light, Lines, Passed, read_log
from cm2.assure.monitor_state import Known, State
from cm2.assure.rules import Rules
from cm2.curate.seen import Seen
from cm2.errors import DataError, Where
from cm2.formats.lock import lock_output
from cm2.verdict import Verdict

SNAPSHOT_EVERY = 30.0
"""Seconds between snapshots while rows keep coming."""


class Book:
    """See the module; a context manager.

    Args:
        folder: made where it does not exist.
        judges: who judges, by what; noted where it is another than before.
        rules: when to raise an alert.
        baselines: rates that are fine, by duty.
        say: takes in a line for a person.

    Raises:
        CM2Error: another monitor lives in the folder.
        DataError: the folder's files were damaged.
    """

    def __init__(
        self,
        folder: str,
        judges: Judges,
        rules: Rules,
        baselines: dict[str, Baseline],
        say: Callable[[str], None],
    ):
        self._folder, self._say = folder, say
        self.raised = 0
        """Alerts that were raised since it was opened."""
        self._seen, self._ids, self._again = Seen(), Seen(), dict[str, int]()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.callback(lock_output(self._path("log.jsonl")).release)
            self._open(stack, judges, rules, baselines)
            self._stack = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack, judges: Judges, rules: Rules, baselines: dict[str, Baseline]) -> None:
        log = self._path("log.jsonl")
        snapshot = self._read_snapshot()
        begun = os.path.exists(log) and os.path.getsize(log) > 0
        quiet = begun and snapshot is None  # everything is told anew, and nobody wants to hear it
        if quiet:
            self._say("the snapshot is lost: the whole log is read, and alerts that it tells of are noted only")
        self.state = State(rules, snapshot)
        for duty, severity in judges.severities.items():
            self.state.declare(duty, severity)
        self._alerts = Alerts(self.state, baselines)
        self._log = Lines(log)
        stack.callback(self._log.close)
        if self.state.known.log > self._log.end:
            fix = "restore the folder from a backup, or give -o another one"
            raise DataError("is shorter than the snapshot beside it says", where=Where(file=log), fix=fix)
        self.desk = Desk(self._folder, rules, self._say)
        stack.callback(self.desk.close)
        for end, event in read_log(log, self.state.known.log, self._saw):
            if isinstance(event, Came):
                self._saw(Light(event.dialogue, event.digest))
            elif isinstance(event, Passed):
                self._saw(Light("", event.digest))
            self._fold(event, end, quiet)
        known = self.state.known
        self._verdicts = Lines(self._path("verdicts.jsonl"), known.verdicts)
        stack.callback(self._verdicts.close)
        self._kept = Lines(self._path("dialogues.jsonl"), known.kept)
        stack.callback(self._kept.close)
        mine = {name: known.duties[name].digest for name in judges.digests}
        if (known.judge, mine) != (judges.name, judges.digests):
            self.note(Judge(time.time(), judges.name, judges.digests))
        self.snapshot()

    def __enter__(self) -> Book:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what was folded since the last snapshot is folded again by the next."""
        self._stack.close()

    def seen(self, digest: str) -> bool:
        """Whether this content came before; from now on it did."""
        return self._seen.before(digest)

    def rollout(self, dialogue: str) -> str:
        """The number of a dialogue among those of its id: "" for the first, then "2", "3" …"""
        if self._ids.before(dialogue):
            self._again[dialogue] = self._again.get(dialogue, 1) + 1
        return str(self._again[dialogue]) if dialogue in self._again else ""

    def _saw(self, row: Light) -> None:
        if row.digest:
            self._seen.before(row.digest)
        if row.dialogue:
            self.rollout(row.dialogue)

    def store(self, verdicts: Sequence[Verdict], kept: object = None) -> tuple[int, int]:
        """Write the verdicts of a dialogue, and the dialogue where it is kept, for the row that follows; where both
        files end."""
        self._verdicts.add(*verdicts)
        if kept is not None:
            self._kept.add(kept)
        return self._verdicts.end, self._kept.end

    def note(self, event: Event) -> None:
        """Write a row of the log, fold it and do what the rules say."""
        self._log.add(event)
        self._fold(event, self._log.end, quiet=False)

    def _fold(self, event: Event, end: int, quiet: bool) -> None:
        decided = self.state.take(event, end)
        if isinstance(event, Came) and decided:
            found: list[Alert | Escalation] = []
            for duty in decided:
                found += self._alerts.evaluate(duty, event.dialogue)
            if found:
                self.raised += self.desk.take(found, quiet)

    @property
    def due(self) -> bool:
        """Whether it is time for a snapshot."""
        return time.monotonic() - self._snapped > SNAPSHOT_EVERY

    def snapshot(self) -> None:
        """Write the state beside the log, at once or not at all."""
        self._snapped = time.monotonic()
        self.desk.queue()
        if not self.desk.settled:
            return  # what could not be noted is found again by folding from the last snapshot
        draft = self._path(f".state.{os.getpid()}.tmp")
        with open(draft, "wb") as file:
            file.write(self.state.snapshot())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path("state.json"))

    def _read_snapshot(self) -> Known | None:
        try:
            with open(self._path("state.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=Known)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:
            self._say("state.json is damaged; it is made anew of the log")
            return None

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)
