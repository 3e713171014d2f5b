"""MinHash: which of many texts are nearly the same, from 512 bytes of memory a text.

A text is the set of its shingles (runs of words). Two texts resemble each other as their sets do: Jaccard, the shared
part of the union. A signature keeps for each of 256 random orders of all shingles the first one of the text, as 16 bits
of its hash. Two signatures agree in a place with the probability of the resemblance (and in one place of 65,536 by
accident), so the share of places that agree estimates it within 0.03.

Comparing all with all is quadratic. So signatures are cut into bands: texts that agree in all places of one band are
compared. The bands are as wide as they may be while a pair of the resemblance that matters is missed once in 10,000.

Everything works on arrays: with dictionaries of bands, as libraries have them, 300,000 texts take 5 GB (Broder 1997; Li
and König 2010).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Signatures = NDArray[np.uint16]
SIZE = 256
"""Places of a signature."""
WORDS = 3
"""Words of a shingle."""
MISSED = 1e-4
"""The share of pairs of the resemblance asked for that the bands may miss."""
BIG = 4_000
"""Texts that agree in one band; of more, nobody compares each with each: they count as one group."""
BLOCK = 1 << 15
"""Pairs that are compared at once."""
_RUN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_DRAW = np.random.default_rng(20_260_212)  # one set of orders for all: signatures of different runs can be compared
_FACTORS = _DRAW.integers(1 << 62, size=SIZE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _DRAW.integers(1 << 63, size=SIZE, dtype=np.uint64)
_PLACES = _DRAW.integers(1 << 62, size=WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def shingles(texts: Iterable[str], words: int = WORDS) -> NDArray[np.uint64]:
    """The shingles of some texts as hashes, each once. None runs from one text into the next; a text of fewer words
    is one shingle; scripts without spaces count a character as a word."""
    row: list[int] = []
    starts: list[bool] = []  # where a shingle may start: not where it would run over the end of its text
    for text in texts:
        hashes = [zlib.crc32(word.encode(errors="replace")) + 1 for word in _RUN.findall(text.casefold())]
        if hashes:
            hashes += [0] * (words - len(hashes))
            row += hashes
            starts += [True] * (len(hashes) - words + 1) + [False] * (words - 1)
    count = len(row) - words + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    hashed, mixed = np.array(row, np.uint64), np.zeros(count, np.uint64)
    for place in range(words):
        mixed = (mixed ^ hashed[place : place + count]) * _PLACES[place % WORDS]
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed[np.array(starts[:count], np.bool_)])


def signature(found: NDArray[np.uint64]) -> Signatures:
    """The signature of a set of shingles. That of nothing is all zeros."""
    if not len(found):
        return np.zeros(SIZE, np.uint16)
    least = np.full(SIZE, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(found), 2048):
        hashed = found[start : start + 2048, None] * _FACTORS + _OFFSETS
        np.minimum(least, hashed.min(axis=0), out=least)
    return ((least >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.uint16)


def resemblance(a: Signatures, b: Signatures) -> NDArray[np.float64]:
    """The estimated Jaccard resemblance of signatures, row by row."""
    return np.asarray((a == b).mean(axis=-1), np.float64)


def spread(near: float) -> float:
    """The standard error of an estimate of that resemblance."""
    return float(np.sqrt(near * (1 - near) / SIZE))


def band_width(near: float) -> int:
    """The widest band with which a pair of that resemblance is missed at most once in 10,000."""
    fitting = [width for width in range(1, 33) if (1 - near**width) ** (SIZE // width) <= MISSED]
    return max(fitting, default=1)


def groups(signatures: Signatures, near: float) -> NDArray[np.int64]:
    """A number for each text, the same for two that a chain of near-duplicates connects.

    A pair counts as near from three standard errors below `near` on, so that one of that resemblance is hardly ever
    taken for less.
    """
    count, least = len(signatures), near - 3 * spread(near)
    label = _same(signatures)
    width = band_width(near)
    for band in range(SIZE // width):
        keys = _keys(signatures[:, band * width : (band + 1) * width])
        order = np.argsort(keys, kind="stable")
        edges = list(_edges(signatures, keys[order], order, label, least))
        if edges:
            ends = np.concatenate(edges, axis=1)
            graph = coo_array((np.ones(ends.shape[1], np.int8), (label[ends[0]], label[ends[1]])), shape=(count, count))
            label = connected_components(graph, directed=False)[1].astype(np.int64)[label]
    return label


def _same(signatures: Signatures) -> NDArray[np.int64]:
    """A number for each text, the same for equal signatures."""
    keys = _keys(signatures)
    return np.unique(keys, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _keys(columns: Signatures) -> NDArray[np.uint64]:
    keys = np.zeros(len(columns), np.uint64)
    for place in range(columns.shape[1]):
        keys = (keys ^ columns[:, place]) * _FACTORS[place]
        keys ^= keys >> np.uint64(31)
    return keys


def _edges(
    signatures: Signatures,
    keys: NDArray[np.uint64],
    order: NDArray[np.int64],
    label: NDArray[np.int64],
    least: float,
) -> Iterator[NDArray[np.int64]]:
    """Pairs that agree in a band (whose sorted keys these are), are near, and not known to belong together."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    for start, size in zip(starts[sizes > BIG], sizes[sizes > BIG], strict=True):
        members = order[start : start + size]
        yield np.stack([np.full(size - 1, members[0]), members[1:]])
    left = np.repeat(sizes, sizes) - (np.arange(len(keys)) - np.repeat(starts, sizes)) - 1
    left[np.repeat(sizes, sizes) > BIG] = 0
    active, distance = np.flatnonzero(left), 0  # places in the order that have someone of their band after them
    while len(active):
        distance += 1
        active = active[left[active] >= distance]
        for start in range(0, len(active), BLOCK):
            here = active[start : start + BLOCK]
            one, other = order[here], order[here + distance]
            strangers = label[one] != label[other]
            one, other = one[strangers], other[strangers]
            near = resemblance(signatures[one], signatures[other]) >= least
            if near.any():
                yield np.stack([one[near], other[near]])


def leaders(signatures: Signatures, near: float) -> NDArray[np.bool_]:
    """Which of some texts stay when every text goes that is near to an earlier one that stays."""
    stays = np.ones(len(signatures), np.bool_)
    for at in range(len(signatures)):
        if stays[at]:
            rest = at + 1 + np.flatnonzero(stays[at + 1 :])
            for start in range(0, len(rest), BLOCK):
                block = rest[start : start + BLOCK]
                stays[block[resemblance(signatures[block], signatures[at]) >= near]] = False
    return stays
