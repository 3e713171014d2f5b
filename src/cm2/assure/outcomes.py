"""Outcome: how one duty came out in one dialogue, and the reading of a store of verdicts dialogue by dialogue.

A judge gives a verdict an item and step; here they are put together, item by item, into one of four results. `pass`: it
held in some state of its turn. `fail`: it was judged and held in none, or the run ended before its turn. `unscored`: it
could not be decided (never a fail). `not_applicable`: the dialogue gave no occasion. Rates are pass / (pass + fail).

Dialogues stream; of a store only where each dialogue's verdicts stand is kept: 24 bytes a dialogue and stretch of
lines.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.formats import read_tasks
from cm2.formats.rows import Row
from cm2.judge.stored import decode_verdict
from cm2.policy import Policy
from cm2.policy.policy import WEIGHTS
from cm2.verdict import WHOLE, Verdict

Result = Literal["pass", "fail", "not_applicable", "unscored"]
_MASK = (1 << 64) - 1


class Outcome(msgspec.Struct):
    """How one duty came out in one dialogue (and turn)."""

    dialogue: str
    rollout: str
    variant: int
    turn: int
    """`WHOLE` (-1) for a duty of the whole dialogue."""
    item: Item
    result: Result
    verdict: Verdict | None = None
    """The verdict that decided it: the first yes, else the last no, else the last one. None: its turn was never reached
    or it was never judged."""
    cost: float = 0.0
    """US dollars, of all its verdicts."""

    @property
    def duty(self) -> str:
        """The name under which outcomes are counted together: a policy's duty by its id, an item of a reference by what
        sort of duty it is and of which tool (`call book_flight`)."""
        return duty_name(self.item)

    @property
    def weight(self) -> float:
        """What it counts in a dialogue's score."""
        return WEIGHTS[self.item.severity] if self.item.severity else self.item.weight

    @property
    def reason(self) -> str:
        """Why it came out so, in the judge's words."""
        if self.verdict is not None:
            return self.verdict.reason
        return "the run ended before this turn" if self.result == "fail" else "not judged"


class Judged(msgspec.Struct):
    """One dialogue with how its duties came out."""

    line: int
    dialogue: Dialogue
    rollout: str
    outcomes: list[Outcome]

    @property
    def score(self) -> float | None:
        """The weighted share of duties that pass, of those that apply and are scored; None where there is none."""
        return score(self.outcomes)

    @property
    def penalty(self) -> float:
        """The summed weights of the duties that fail. To tell good runs from bad it is better than the share, in which
        the failures of a long dialogue drown among what passes whatever happens (docs/prove.md)."""
        return sum(outcome.weight for outcome in self.outcomes if outcome.result == "fail")

    @property
    def critical_failures(self) -> int:
        """How many critical outcomes fail."""
        return sum(one.result == "fail" and one.item.severity == "critical" for one in self.outcomes)

    @property
    def badness(self) -> tuple[int, float]:
        """What to sort dialogues by, worst last: critical failures first, then the penalty."""
        return self.critical_failures, self.penalty


def score(outcomes: Iterable[Outcome]) -> float | None:
    """Sum of the weights of the outcomes that pass / sum of the weights of those that pass or fail; None of none."""
    passed = total = 0.0
    for outcome in outcomes:
        if outcome.result in ("pass", "fail"):
            total += outcome.weight
            passed += outcome.weight if outcome.result == "pass" else 0.0
    return passed / total if total else None


def duty_name(item: Item) -> str:
    """See `Outcome.duty`."""
    if item.severity is not None:
        return item.id
    tool = getattr(item.check, "tool", None)
    kind = item.kind or item.focus_on
    return f"{kind} {tool}" if tool else kind


def decide_outcomes(
    dialogue: Dialogue, rollout: str, checklists: Sequence[Checklist], verdicts: Sequence[Verdict]
) -> list[Outcome]:
    """How every item of the checklists came out, by the verdicts on this dialogue; of several with one key the last."""
    last = {verdict.key: verdict for verdict in verdicts}
    by_item: dict[tuple[int, int, str], list[Verdict]] = {}
    for verdict in last.values():
        by_item.setdefault((verdict.variant, verdict.turn, verdict.item), []).append(verdict)
    found = []
    for checklist in checklists:
        reached = checklist.turn == WHOLE or (
            checklist.turn < len(dialogue.turns) and bool(dialogue.turns[checklist.turn].steps)
        )
        for item in checklist.items:
            mine = sorted(
                by_item.get((checklist.variant, checklist.turn, item.id), []), key=lambda verdict: verdict.step
            )
            result, deciding = _decide(mine, reached)
            cost = sum(one.cost for one in mine)
            found.append(Outcome(dialogue.id, rollout, checklist.variant, checklist.turn, item, result, deciding, cost))
    return found


def _decide(verdicts: list[Verdict], reached: bool) -> tuple[Result, Verdict | None]:
    if not verdicts:
        return ("unscored" if reached else "fail"), None
    yes = next((one for one in verdicts if one.met), None)
    if yes is not None:
        return "pass", yes
    if not any(one.applies for one in verdicts):
        return "not_applicable", verdicts[-1]
    lost = next((one for one in reversed(verdicts) if one.met is None and one.applies), None)
    if lost is not None:
        return "unscored", lost
    return "fail", next(one for one in reversed(verdicts) if one.met is False)


def read_judged(
    dialogues: str,
    verdicts: str,
    *,
    policy: Policy | None = None,
    checklists: str | None = None,
    format: str = "auto",
    on_error: Callable[[Row], None] | None = None,
) -> Iterator[Judged]:
    """Every dialogue of a file with its outcomes, by a store of verdicts on it.

    Args:
        dialogues: the file that was judged.
        verdicts: the store that `cm2 judge` wrote.
        policy: the duties, where it was judged by a policy.
        checklists: the labelled file, where it was judged by another file's checklists.
        format: of both files of dialogues.
        on_error: is told of rows that do not read. Without it the first one raises.

    Raises:
        DataError: a file is missing or of another kind; without `on_error`, a row does not read.
    """
    where = _Places(verdicts)
    lent: dict[str, list[Checklist]] | None = None
    if checklists is not None:
        lent = {task.dialogue.id: task.checklists for _, task in read_tasks(checklists, format, on_error=on_error)}
    seen: dict[str, int] = {}
    for line, task in read_tasks(dialogues, format, on_error=on_error):
        dialogue = task.dialogue
        seen[dialogue.id] = seen.get(dialogue.id, 0) + 1
        rollout = str(seen[dialogue.id]) if seen[dialogue.id] > 1 else ""
        if policy is not None:
            own = policy.checklists(dialogue)
        else:
            own = task.checklists if lent is None else lent.get(dialogue.id, [])
        yield Judged(line, dialogue, rollout, decide_outcomes(dialogue, rollout, own, where.of(dialogue.id, rollout)))


class _Places:
    """Where in a store the verdicts of each dialogue stand: stretches of lines, found by hash."""

    def __init__(self, path: str) -> None:
        self._path = path
        hashes, starts, ends = array("Q"), array("q"), array("q")
        at = 0
        try:
            self._file = open(path, "rb")  # noqa: SIM115 (it is read from until the last dialogue)
        except FileNotFoundError as error:
            raise DataError("there is no such file", where=Where(file=path), fix="judge first: cm2 judge") from error
        before = None
        for number, line in enumerate(self._file):
            if line.endswith(b"\n"):  # a killed run leaves a torn last line
                try:
                    row = _head(line)
                except msgspec.DecodeError as error:
                    where = Where(file=path, line=number + 1)
                    fix = "pass a store that cm2 judge wrote"
                    raise DataError(f"this is no verdict: {error}", where=where, fix=fix) from error
                key = (row.dialogue, row.rollout)
                if key == before:
                    ends[-1] = at + len(line)
                else:
                    hashes.append(hash(key) & _MASK)
                    starts.append(at)
                    ends.append(at + len(line))
                before = key
            at += len(line)
        found = np.array(hashes, dtype=np.uint64)
        order = np.argsort(found, kind="stable")
        self._hashes, self._starts, self._ends = found[order], np.array(starts)[order], np.array(ends)[order]

    def of(self, dialogue: str, rollout: str) -> list[Verdict]:
        """The verdicts of one dialogue, in the order in which they were written."""
        key = np.uint64(hash((dialogue, rollout)) & _MASK)
        low, high = np.searchsorted(self._hashes, key, "left"), np.searchsorted(self._hashes, key, "right")
        found: list[Verdict] = []
        for place in range(int(low), int(high)):
            self._file.seek(int(self._starts[place]))
            block = self._file.read(int(self._ends[place] - self._starts[place]))
            found += [decode_verdict(line) for line in block.splitlines() if line]
        return [one for one in found if (one.dialogue, one.rollout) == (dialogue, rollout)]


class _Head(msgspec.Struct):
    dialogue: str
    rollout: str = ""


def _head(line: bytes) -> _Head | Verdict:
    try:
        return _HEAD(line)
    except msgspec.DecodeError:
        return decode_verdict(line)


_HEAD = msgspec.json.Decoder(_Head).decode
