"""Pool: the features of all rows of a file, in columns. What selection keeps of a row takes some 700 bytes."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
from numpy.typing import NDArray

from cm2.curate.features import NUMBERS, Features
from cm2.curate.minhash import SIZE, Signatures

Rows = NDArray[np.int64]
"""Numbers of rows, from 0 in the order of the file."""
Mask = NDArray[np.bool_]


class Pool:
    """Rows, in columns. What is no dialogue has a place too, and is not `readable`.

    Args:
        near: whether rows have signatures.
    """

    def __init__(self, near: bool = True) -> None:
        self._places = SIZE if near else 0
        self.tool_names: list[str] = []
        self._tool_ids: dict[str, int] = {}
        self._numbers = array("q")
        self._complexity = array("d")
        self._signatures = array("H")
        self._draws = array("Q")
        self._exact = array("Q")
        self._called, self._called_ends = array("q"), array("q")
        self._offered, self._offered_ends = array("q"), array("q")
        self._readable = array("b")

    def __len__(self) -> int:
        return len(self._readable)

    def add(self, found: Features, complexity: float, near: Signatures | None, exact: bytes, row: bytes) -> None:
        """Add a dialogue.

        Args:
            found: its features.
            complexity: how complex it is.
            near: its signature, None where nobody looks for near-duplicates.
            exact: what makes it an exact duplicate of another.
            row: what its draws are made of: all that it says, and the seed.
        """
        self._readable.append(1)
        self._numbers.extend(found.numbers[name] for name in NUMBERS)
        self._complexity.append(complexity)
        if near is not None:
            self._signatures.frombytes(near.tobytes())
        self._draws.append(_digest(row))
        self._exact.append(_digest(exact))
        for names, column, ends in (
            (found.called, self._called, self._called_ends),
            (found.offered | found.called, self._offered, self._offered_ends),
        ):
            column.extend(sorted(self._tool(name) for name in names))
            ends.append(len(column))

    def skip(self) -> None:
        """Add a row that is no dialogue."""
        self._readable.append(0)
        self._numbers.extend([0] * len(NUMBERS))
        self._complexity.append(0.0)
        self._signatures.extend([0] * self._places)
        self._draws.append(0)
        self._exact.append(0)
        self._called_ends.append(len(self._called))
        self._offered_ends.append(len(self._offered))

    def _tool(self, name: str) -> int:
        if name not in self._tool_ids:
            self._tool_ids[name] = len(self.tool_names)
            self.tool_names.append(name)
        return self._tool_ids[name]

    def is_row(self, number: int, row: bytes) -> bool:
        """Whether the row of that number is this one."""
        return self._draws[number] == _digest(row)

    @property
    def readable(self) -> Mask:
        """Which rows are dialogues."""
        return np.frombuffer(self._readable, np.int8).astype(np.bool_)

    def number(self, name: str) -> NDArray[np.int64]:
        """One number of every row."""
        return np.frombuffer(self._numbers, np.int64).reshape(-1, len(NUMBERS))[:, list(NUMBERS).index(name)]

    @property
    def complexity(self) -> NDArray[np.float64]:
        """The complexity of every row."""
        return np.frombuffer(self._complexity, np.float64)

    @property
    def signatures(self) -> Signatures:
        """The signature of every row."""
        return np.frombuffer(self._signatures, np.uint16).reshape(-1, SIZE)

    @property
    def draws(self) -> NDArray[np.uint64]:
        """A random number for every row, the same for the same row and seed wherever it stands."""
        return np.frombuffer(self._draws, np.uint64)

    @property
    def exact(self) -> NDArray[np.uint64]:
        """Equal for rows that are exact duplicates."""
        return np.frombuffer(self._exact, np.uint64)

    def tools_of(self, row: int, called: bool = False) -> list[str]:
        """The tools that a row sees (offers or calls), or those that it calls."""
        column, ends = (self._called, self._called_ends) if called else (self._offered, self._offered_ends)
        return [self.tool_names[tool] for tool in column[ends[row - 1] if row else 0 : ends[row]]]

    def tool_rows(self, called: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(tool, row) for every tool that a row sees, or calls, in order of the tool."""
        column, ends = (self._called, self._called_ends) if called else (self._offered, self._offered_ends)
        tools = np.frombuffer(column, np.int64) if len(column) else np.zeros(0, np.int64)
        counts = np.diff(np.frombuffer(ends, np.int64), prepend=np.int64(0)).astype(np.int64)
        rows = np.repeat(np.arange(len(self)), counts)
        order = np.argsort(tools, kind="stable")
        return tools[order], rows[order]


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
