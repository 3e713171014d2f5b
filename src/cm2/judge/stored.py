"""Stored: what a store of verdicts says already, in nine bytes a line.

A store is only appended to. What a model or its provider failed to decide stands in it too, and is tried again by the
next run, so that of several lines with one key the last one counts (`read_verdicts`) and their number says how often it
was tried. Keys are kept as 64-bit hashes: two of ten million collide once in 400,000 stores.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import parse
from cm2.verdict import FAILED, Verdict, unscored_reason

Key = tuple[str, str, int, int, int, str]
_NO, _YES, _NO_OCCASION, _KINDS = 0, 1, 2, 3
_MASK = (1 << 64) - 1
_MOST_KINDS = 250


class Line(msgspec.Struct, frozen=True):
    """What the last line of a key says."""

    met: bool | None
    kind: str = ""
    """Why it is unscored."""
    failed: bool = False
    """A model or its provider failed: it is to be tried again."""
    applies: bool = True
    """False: there was no occasion for it."""
    tries: int = 0
    """How many lines say so."""


class Stored:
    """The lines of a store. `add` takes them in as the store is opened; after `seal` they can be looked up."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._codes = bytearray()
        self._kinds: dict[tuple[str, bool], int] = {}
        self._sealed = False
        self._sorted = np.empty(0, dtype=np.uint64)
        self._order = np.empty(0, dtype=np.int64)
        self._read = np.empty(0, dtype=np.uint8)

    def add(self, row: dict[str, Any]) -> int:
        """Take in a row (JSON values). It is the `key` of a `Store`, which keeps nothing then: every key is 0.

        Raises:
            KeyError: the row is no verdict.
        """
        key = (row["dialogue"], row.get("rollout", ""), row.get("variant", 0), row["turn"], row["step"], row["item"])
        met = row["met"]
        if not self._sealed:
            self._hashes.append(hash(key) & _MASK)
            absent = row.get("applies", True) is False
            self._codes.append(int(met) if met is not None else _NO_OCCASION if absent else self._code(row))
        return 0

    def seal(self) -> None:
        """Nothing more is taken in: what follows was written by this run."""
        self._sealed = True
        hashes = np.frombuffer(self._hashes, dtype=np.uint64) if self._hashes else self._sorted
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        self._read = np.frombuffer(bytes(self._codes), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._hashes)

    def look(self, keys: Sequence[Key]) -> list[Line | None]:
        """What is known of each key; None where there is no line."""
        if not len(self._sorted):
            return [None] * len(keys)
        wanted = np.array([hash(key) & _MASK for key in keys], dtype=np.uint64)
        starts = np.searchsorted(self._sorted, wanted, "left")
        ends = np.searchsorted(self._sorted, wanted, "right")
        return [self._line(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]

    def _line(self, start: int, end: int) -> Line | None:
        if start == end:
            return None
        codes = self._read[self._order[start:end]]
        if codes[-1] in (_NO, _YES):
            return Line(bool(codes[-1] == _YES))
        if codes[-1] == _NO_OCCASION:
            return Line(None, applies=False)
        kinds = list(self._kinds)
        kind, failed = kinds[codes[-1] - _KINDS]
        return Line(None, kind, failed, tries=sum(code >= _KINDS and kinds[code - _KINDS][1] for code in codes))

    def _code(self, row: dict[str, Any]) -> int:
        kind = (unscored_reason(row.get("reason", "")), row.get("owner", "") in FAILED)
        if len(self._kinds) >= _MOST_KINDS:  # somebody else's reasons: only whether it failed is kept
            kind = ("other reasons", kind[1])
        return _KINDS + self._kinds.setdefault(kind, len(self._kinds))


def read_verdicts(path: str) -> Iterator[Verdict]:
    """The verdicts of a store; of several with one key (a failed one was tried again) the last.

    A torn last line (a killed run) is left out.

    Raises:
        DataError: the file is missing, or another line is no verdict.
    """
    hashes = np.array(array("Q", (hash(verdict.key) & _MASK for _, verdict in _lines(path))), dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    final = np.ones(len(hashes), dtype=bool)
    final[order[:-1][ordered[1:] == ordered[:-1]]] = False
    for number, verdict in _lines(path):
        if final[number]:
            yield verdict


def decode_verdict(line: bytes) -> Verdict:
    """The verdict of a line.

    Raises:
        msgspec.DecodeError: it is none.
    """
    try:
        return _decode(line)
    except msgspec.DecodeError:
        value, error = parse(line)  # half a surrogate pair, which a quoted snippet may hold
        if error:
            raise
        return msgspec.convert(value, Verdict)


_decode = msgspec.json.Decoder(Verdict).decode


def _lines(path: str) -> Iterable[tuple[int, Verdict]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield number, decode_verdict(line)
                except msgspec.DecodeError as error:
                    where = Where(file=path, line=number + 1)
                    raise DataError(
                        f"this is no verdict: {error}", where=where, fix="pass a file that cm2 wrote"
                    ) from error
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=Where(file=path), fix="check the path") from error
