"""Whether something was seen before, in 12 to 48 bytes each: a table of 64-bit hashes.

A set of Python numbers takes several times that, which shows when hundreds of thousands of rows stream by. Two
different things share a hash once in 2**64; a collision costs one wrong flag.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable


class Seen:
    """A growing set that only answers whether its argument came before."""

    def __init__(self) -> None:
        self._table = array("q", bytes(8 << 10))
        self._mask = len(self._table) - 1
        self._count = 0

    def before(self, thing: Hashable) -> bool:
        """Whether this came before; from now on it did."""
        key = hash((thing,)) or 1  # 0 marks a free place; a tuple's hash is well mixed, a number's is not
        table, mask = self._table, self._mask
        place = key & mask
        while (there := table[place]) != key:
            if not there:
                break
            place = place + 1 & mask
        else:
            return True
        table[place] = key
        self._count += 1
        if 3 * self._count > 2 * len(self._table):
            self._grow()
        return False

    def _place(self, key: int) -> int:
        table, mask = self._table, self._mask
        place = key & mask
        while table[place] not in (0, key):
            place = place + 1 & mask
        return place

    def _grow(self) -> None:
        old = self._table
        self._table = array("q", bytes(32 * len(old)))  # four times as many places
        self._mask = len(self._table) - 1
        for key in old:
            if key:
                self._table[self._place(key)] = key
