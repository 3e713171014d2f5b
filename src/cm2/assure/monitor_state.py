"""State: what a monitor knows, folded from its log one dialogue at a time.

`State` is a pure function of the log and the rules: the same rows give the same counts, windows and alerts, in one run
or in ten that were killed. A snapshot of it lies beside the log so that a start need not read everything again; it says
which byte of the log it stands at, and a snapshot that is lost or damaged costs time, nothing else.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from cm2.assure.monitor_log import Came, Event, File, Judge, Passed, Why
from cm2.assure.rules import Rules
from cm2.checklist import Severity

CODES = {"pass": "p", "fail": "f", "unscored": "u"}
EXAMPLES = 20
"""Dialogues that are remembered of each duty that failed, and of each that was not decided."""
FIRST = 200
"""Dialogues that tell the baseline where nobody says otherwise."""


class At(msgspec.Struct):
    """How far a file was read."""

    path: str
    device: int = 0
    inode: int = 0
    offset: int = 0
    line: int = 0
    tail: str = ""
    mark: str = ""


class Example(msgspec.Struct, omit_defaults=True):
    """A dialogue in which a duty failed or was not decided."""

    dialogue: str
    file: str
    line: int
    turn: int
    reason: str
    at: float
    rollout: str = ""
    owner: str = ""


class Watch(msgspec.Struct):
    """What one rule knows of one duty."""

    digest: str
    """Of the rule."""
    streak: int = 0
    """Evaluations in a row that speak for the other state."""
    alert: str | None = None
    """The alert that stands."""
    since: float = 0.0
    reference: float | None = None
    """drift: the rate before the fall."""
    detector: str | float | None = None


class DutyState(msgspec.Struct):
    """What is known of one duty."""

    severity: Severity | None = None
    digest: str = ""
    counts: dict[str, int] = {}
    recent: str = ""
    """The latest results: p, f, u."""
    times: list[float] = []
    first: str = ""
    """The first that were decided, p or f, for a baseline."""
    failed: list[Example] = []
    lost: list[Example] = []
    watches: dict[str, Watch] = {}
    """By name of the rule."""


class Known(msgspec.Struct):
    """The part of a state that a snapshot holds."""

    log: int = 0
    """Bytes of the log that are in it."""
    files: dict[int, At] = {}
    dialogues: int = 0
    repeated: int = 0
    rejected: int = 0
    problems: list[str] = []
    """The latest reasons of rejected rows."""
    duties: dict[str, DutyState] = {}
    lost: dict[str, int] = {}
    cost: float = 0.0
    last: float = 0.0
    verdicts: int = 0
    kept: int = 0
    judge: str = ""
    alerts: dict[str, int] = {}
    """Alerts raised, by rule."""


class Window:
    """Counts over the latest results of a duty: the last `size`, or those of the last `seconds`."""

    def __init__(self, size: int | None, seconds: float | None):
        self._size, self._seconds = size, seconds
        self._held: deque[tuple[float, str]] = deque()
        self.counts = {"p": 0, "f": 0, "u": 0}

    def add(self, at: float, code: str) -> None:
        """Take in a result, and let go of those that are too old."""
        held = self._held
        held.append((at, code))
        self.counts[code] += 1
        while (self._size is not None and len(held) > self._size) or (
            self._seconds is not None and held[0][0] < at - self._seconds
        ):
            self.counts[held.popleft()[1]] -= 1

    def __len__(self) -> int:
        return len(self._held)

    @property
    def scored(self) -> int:
        """Results that passed or failed."""
        return self.counts["p"] + self.counts["f"]

    @property
    def rate(self) -> float | None:
        """passed / (passed + failed); None where nothing was decided."""
        return self.counts["p"] / self.scored if self.scored else None

    @property
    def since(self) -> float:
        """When the oldest result came."""
        return self._held[0][0] if self._held else 0.0


class State:
    """See the module.

    Args:
        rules: which windows are kept.
        known: a snapshot.
    """

    def __init__(self, rules: Rules, known: Known | None = None):
        self.rules = rules
        self.known = known or Known()
        self._spans = {(rule.dialogues, rule.seconds) for rule in rules.rules} | {(rules.window, None)}
        self._first = max([FIRST, *(b for rule in rules.rules if isinstance(b := rule.baseline, int))])
        self.windows: dict[str, dict[Any, Window]] = {}
        for name, duty in self.known.duties.items():
            self.windows[name] = self._made()
            for at, code in zip(duty.times, duty.recent, strict=True):
                for window in self.windows[name].values():
                    window.add(at, code)
        for duty in self.known.duties.values():  # a rule that is another now knows nothing yet
            digests = {rule.name: rule.digest for rule in rules.rules}
            duty.watches = {n: watch for n, watch in duty.watches.items() if digests.get(n) == watch.digest}

    def take(self, event: Event, end: int) -> list[str]:
        """Fold one row in; the duties of which a new result came."""
        known = self.known
        known.log = end
        if isinstance(event, Judge):
            self._judge(event)
            return []
        if isinstance(event, File):
            at = known.files.setdefault(event.file, At(event.path))
            at.path, at.device, at.inode, at.mark = event.path, event.device, event.inode, event.mark
            return []
        at = known.files[event.file]
        at.offset, at.line, at.tail = event.offset, event.line, event.tail
        if isinstance(event, Passed):
            known.repeated += event.repeated
            known.rejected += event.rejected
            if event.reason:
                known.problems = [*known.problems, f"{at.path}:{event.line}: {event.reason}"][-5:]
            return []
        known.dialogues += 1
        known.cost += event.cost
        known.last, known.verdicts, known.kept = event.at, event.verdicts, event.kept
        for owner, count in event.lost.items():
            known.lost[owner] = known.lost.get(owner, 0) + count
        return [name for name, result in event.results.items() if self._result(event, at.path, name, result)]

    def declare(self, duty: str, severity: Severity | None) -> None:
        """Say how bad it is to fail a duty."""
        self._duty(duty).severity = severity

    def window(self, duty: str, size: int | None = None, seconds: float | None = None) -> Window:
        """The counts of a duty over a window that the rules have; without one, that of the metrics."""
        return self.windows[duty][(self.rules.window, None) if size is seconds is None else (size, seconds)]

    def snapshot(self) -> bytes:
        """What a later start goes on with."""
        for name, duty in self.known.duties.items():
            self._prune(name, duty)
        return msgspec.json.encode(self.known)

    def _judge(self, event: Judge) -> None:
        self.known.judge = event.judge
        for name, digest in event.duties.items():
            duty = self.known.duties.get(name)
            if duty is not None and duty.digest not in ("", digest):  # it asks something else now
                self.known.duties[name] = DutyState(duty.severity, counts=duty.counts)
                self.windows[name] = self._made()
            self._duty(name).digest = digest

    def _result(self, event: Came, path: str, name: str, result: str) -> bool:
        duty = self._duty(name)
        duty.counts[result] = duty.counts.get(result, 0) + 1
        code = CODES.get(result)
        if code is None:
            return False
        duty.recent += code
        duty.times.append(event.at)
        if code != "u" and len(duty.first) < self._first:
            duty.first += code
        if code != "p":
            why = event.why.get(name, Why(0, ""))
            place = (event.dialogue, path, event.line, why.turn, why.reason, event.at, event.rollout, why.owner)
            if code == "f":
                duty.failed = [*duty.failed, Example(*place)][-EXAMPLES:]
            else:
                duty.lost = [*duty.lost, Example(*place)][-EXAMPLES:]
        for window in self.windows[name].values():
            window.add(event.at, code)
        if len(duty.recent) > 2 * max(map(len, self.windows[name].values())) + 1000:
            self._prune(name, duty)
        return True

    def _prune(self, name: str, duty: DutyState) -> None:
        """Let go of results that no window holds."""
        most = max(map(len, self.windows[name].values()))
        duty.recent, duty.times = duty.recent[len(duty.recent) - most :], duty.times[len(duty.times) - most :]

    def _duty(self, name: str) -> DutyState:
        if name not in self.known.duties:
            self.windows[name] = self._made()
            self.known.duties[name] = DutyState()
        return self.known.duties[name]

    def _made(self) -> dict[Any, Window]:
        return {span: Window(*span) for span in self._spans}
