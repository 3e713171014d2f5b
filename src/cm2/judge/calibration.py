"""Calibration: what was measured of a judge, as a file that other commands read.

    load("judge.calibration.json").false_yes("reply")    # how often it pays for a reply that does not hold

`cm2.judge.calibrate` makes it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from cm2.errors import DataError, Where
from cm2.formats.target import replacing
from cm2.judge.agreement import Confusion, Rate
from cm2.judge.majority import Votes

VERSION = 1
DEFAULT_OUTPUT = "judge.calibration.json"
NONE = "(none)"


class Repeat(msgspec.Struct):
    """Whether the judge says the same again."""

    items: int
    """Items that two runs or more scored."""
    identical: Rate
    """The share of them on which all runs agree."""
    alpha: float | None
    """Krippendorff's alpha between the runs; None where all of them always said the same one thing."""


class Group(msgspec.Struct):
    """One kind of duty, one focus, or all of them."""

    counts: Confusion
    missing: int = 0
    """Labels about which a run has no verdict (a turn that it did not judge, another step)."""
    base_rate: float | None = None
    agreement: Rate | None = None
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    pabak: float | None = None
    judge_yes: float | None = None
    false_yes: Rate | None = None
    """fp / (fp + tn): of what does not hold, the share that the judge pays for."""
    false_no: Rate | None = None
    """fn / (fn + tp): of what holds, the share that the judge does not pay for."""
    unscored: Rate | None = None
    """Of what has a known truth and was judged, the share that the judge left undecided."""
    repeat: Repeat | None = None
    vote_yes: Votes | None = None
    """What a vote does to false yes."""
    vote_no: Votes | None = None
    """What a vote does to false no."""

    @property
    def vote(self) -> int | None:
        """The smallest odd n that reaches the target for both errors, correlation counted where it is known."""
        best: list[int | None] = []
        for advice in (self.vote_yes, self.vote_no):
            if advice is not None:
                best.append((advice.correlated or advice.independent).n)
        return None if not best or None in best else max(n for n in best if n is not None)


class Doubt(msgspec.Struct):
    """A duty on which judge and truth agree too little beyond chance to be paid for."""

    what: str
    """kind, focus or item."""
    name: str
    kappa: float
    pabak: float
    base_rate: float
    n: int
    sure: bool = False
    """Whether the whole interval of kappa lies below the threshold."""
    question: str = ""


class Calibration(msgspec.Struct):
    """See the module."""

    judge: list[str]
    verdicts: list[str]
    against: str
    runs: int
    votes: int
    """Judgements of each verdict, where the store is of a vote: repeatability and votes are then about these."""
    labels: int
    target: float
    threshold: float
    total: Group
    kinds: dict[str, Group] = {}
    focuses: dict[str, Group] = {}
    judges: dict[str, Group] = {}
    """By who judged, where several did (checks some items, a model the others); (none): nobody."""
    steps: Group | None = None
    doubtful: list[Doubt] = []
    people: float | None = None
    """Krippendorff's alpha between several labels of the same thing: no judge can be held to more than this."""
    least: int = 20
    weighted: bool = False
    """Whether the labels had different weights: shares and rates are then of the whole that they were drawn from."""
    version: int = VERSION

    def group(self, kind: str = "") -> Group:
        """What is known of a kind of duty; of all of them where of this one too little is."""
        found = self.kinds.get(kind or NONE)
        return found if found is not None and found.counts.n >= self.least else self.total

    def false_yes(self, kind: str = "") -> Rate | None:
        """The rate of false yes of a kind of duty, or of all where too few of the kind are known not to hold."""
        return self._rate("false_yes", kind)

    def false_no(self, kind: str = "") -> Rate | None:
        """The rate of false no, likewise."""
        return self._rate("false_no", kind)

    def _rate(self, name: str, kind: str) -> Rate | None:
        own: Rate | None = getattr(self.group(kind), name)
        overall: Rate | None = getattr(self.total, name)
        return own if own is not None and own.n >= self.least else overall


def load(path: str | os.PathLike[str]) -> Calibration:
    """A calibration that was saved.

    Raises:
        DataError: there is none, or it is of another version.
    """
    where = Where(file=os.fspath(path))
    fix = "make it with cm2 judge calibrate"
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError("there is no such calibration", where=where, fix=fix) from error
    except msgspec.DecodeError as error:
        raise DataError(f"is no calibration: {error}", where=where, fix=fix) from error
    if found.version != VERSION:
        raise DataError(f"is of version {found.version}, this reads {VERSION}", where=where, fix=fix)
    return found


def save(found: Calibration, path: str | os.PathLike[str]) -> None:
    """Write it, whole or not at all."""
    try:
        with replacing(path) as draft:
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    except OSError as error:
        error.filename = os.fspath(path)
        raise
