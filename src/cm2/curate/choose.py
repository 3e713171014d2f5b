"""Choose: which row goes to which split. A function of the features alone, so the order of the file does not matter.

Rows that a chain of near-duplicates connects are a group. Of rows that are near to each other one stays (the one whose
draw comes first); rows of one group that are not near enough to be dropped may all stay, but all in the same split:
nothing in one split is a near-duplicate of anything in another.

Drawing by complexity is Efraimidis and Spirakis' scheme (2006): each row gets the key -ln(u) / weight, u from its own
draw, and the smallest keys are taken. So a row's luck does not depend on the other rows.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from cm2.curate.minhash import groups, leaders
from cm2.curate.pool import Mask, Pool, Rows
from cm2.curate.selection import SelectConfig, Split

FREE = -1
EXACT, NEAR, UNREADABLE = "exact duplicate", "near-duplicate", "no dialogue"


class Choice(msgspec.Struct):
    """What was chosen."""

    split: NDArray[np.int64]
    """For each row the number of its split, `FREE` where it has none."""
    group: NDArray[np.int64]
    """For each row the number of its group of near-duplicates."""
    left_out: dict[str, int]
    """Rows that are in no split because of what they are, by reason."""
    duplicate: Mask
    """Which rows were dropped as duplicates."""
    wanted: dict[str, int | None]
    """Rows of each split that were asked for (after `shrink`), those held out of it not among them."""
    passed: dict[str, int]
    """For each split, how many rows (no duplicates) have what it asks for at least."""
    unseen_tools: list[str] = []
    """The tools that only rows with unseen tools see."""


def choose(pool: Pool, config: SelectConfig) -> Choice:
    """Which row goes where."""
    readable = pool.readable
    group, duplicate, left_out = _duplicates(pool, config, readable)
    usable = readable & ~duplicate
    counts = _counts(config, pool, usable)
    passed = {split.name: int((usable & _has(pool, config, split)).sum()) for split in config.splits}
    choice = Choice(np.full(len(pool), FREE), group, left_out, duplicate, {}, passed)
    owner = np.full(group.max(initial=-1) + 1, FREE)  # of each group, the split that has rows of it
    tools = _reserve(pool, config, usable, group, counts)
    reserved = np.zeros(len(pool), np.bool_)
    if tools is not None:
        reserved = _whole_groups(tools.rows, group)
        choice.unseen_tools = tools.names
    for number, split in enumerate(config.splits):
        count = counts[split.name]
        held_out = [each for each in config.splits if each.source == split.name]
        apart = sum(counts[each.name] or 0 for each in held_out if each.unseen_tools)
        if split.source is not None and not split.unseen_tools:
            parent = [each.name for each in config.splits].index(split.source)
            rows = _rank(pool, config, split, np.flatnonzero(choice.split == parent))
            rows = _groups_that_fit(rows, np.flatnonzero(choice.split == parent), group, count)
        else:
            free = (choice.split == FREE) & usable & _has(pool, config, split)
            free &= np.isin(owner[group], (FREE, number))
            free &= reserved & tools.calls if split.unseen_tools and tools is not None else ~reserved
            rows = _rank(pool, config, split, np.flatnonzero(free))
            rows = rows if count is None else rows[: max(0, count - apart)]
        choice.split[rows] = number
        owner[group[rows]] = number
        taken = sum(counts[each.name] or 0 for each in held_out)
        choice.wanted[split.name] = None if count is None else max(0, count - taken)
    return choice


def _duplicates(pool: Pool, config: SelectConfig, readable: Mask) -> tuple[NDArray[np.int64], Mask, dict[str, int]]:
    """Each row's group, and which rows go because another stays that says the same."""
    count = len(pool)
    group = np.arange(count)
    gone = np.zeros(count, np.bool_)
    order = np.lexsort((pool.draws, pool.exact))
    order = order[readable[order]]
    again = np.append(False, pool.exact[order[1:]] == pool.exact[order[:-1]])[: len(order)]
    gone[order[again]] = True
    group[order] = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))]
    counts = {UNREADABLE: int((~readable).sum()), EXACT: int(gone.sum()), NEAR: 0}
    if config.near is not None:
        rows = np.flatnonzero(readable & ~gone)
        label = groups(pool.signatures[rows], config.near)
        first = np.full(label.max(initial=-1) + 1, count)
        np.minimum.at(first, label, rows)
        group[rows] = first[label]
        group = group[group]  # exact duplicates follow the row that stays
        for members in _several(rows, label):
            members = members[np.argsort(pool.draws[members], kind="stable")]
            gone[members[~leaders(pool.signatures[members], config.near)]] = True
        counts[NEAR] = int(gone.sum()) - counts[EXACT]
    return group, gone, {reason: number for reason, number in counts.items() if number}


def _several(rows: Rows, label: NDArray[np.int64]) -> list[Rows]:
    """The groups of two rows or more."""
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    return [members for members in np.split(rows[order], cuts) if len(members) > 1]


def _has(pool: Pool, config: SelectConfig, split: Split) -> Mask:
    """Which rows have what the split, and the one it is held out of, ask for at least."""
    fine = np.ones(len(pool), np.bool_)
    for each in (split, *(other for other in config.splits if other.name == split.source)):
        for name, least in each.least.items():
            fine &= pool.number(name) >= least
    return fine


def _rank(pool: Pool, config: SelectConfig, split: Split, rows: Rows) -> Rows:
    """The rows in the order in which the split takes them."""
    draws = pool.draws[rows]
    if split.by == "complex":
        return rows[np.lexsort((draws, -pool.complexity[rows]))]
    mixed = draws * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(_hash(f"{config.seed} {split.name}"))  # a draw of its own
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    if split.by == "random":
        return rows[np.lexsort((draws, mixed))]
    uniform = (mixed.astype(np.float64) + 1) / 2.0**64
    return rows[np.lexsort((draws, -np.log(uniform) / np.maximum(pool.complexity[rows], 1e-9)))]


def _groups_that_fit(ranked: Rows, parent: Rows, group: NDArray[np.int64], count: int | None) -> Rows:
    """The first rows, each with all rows of its group that the parent has, so that none stays behind."""
    if count is None:
        return ranked
    sizes = np.bincount(group[parent], minlength=group.max(initial=-1) + 1)
    taken: dict[int, None] = {}
    room = count
    for row in ranked:
        mine = int(group[row])
        if mine not in taken and sizes[mine] <= room:
            taken[mine] = None
            room -= int(sizes[mine])
        if not room:
            break
    return parent[np.isin(group[parent], list(taken))]


def _counts(config: SelectConfig, pool: Pool, usable: Mask) -> dict[str, int | None]:
    """Rows that each split is to have, those held out of it included."""
    counts = {split.name: split.count for split in config.splits}
    if not config.shrink:
        return counts
    first = [split for split in config.splits if split.source is None]
    wanted = sum(split.count or 0 for split in first)
    there = [int((usable & _has(pool, config, split)).sum()) for split in first]
    least = min(filter(None, there), default=0)  # a split that no row fits is empty whatever the others do
    if wanted <= least:
        return counts
    return {name: None if count is None else int(count * least / wanted) for name, count in counts.items()}


class _Tools(msgspec.Struct):
    """Tools that are kept out of training."""

    names: list[str]
    rows: Mask
    """Rows that see one of them."""
    calls: Mask
    """Rows that call one of them."""


def _reserve(
    pool: Pool, config: SelectConfig, usable: Mask, group: NDArray[np.int64], counts: dict[str, int | None]
) -> _Tools | None:
    """Tools to hold out, in a random order, until there are enough rows that call one; rare tools before common ones,
    so that training loses little."""
    splits = [split for split in config.splits if split.unseen_tools]
    if not splits:
        return None
    wanted = sum(counts[split.name] or 0 for split in splits)
    fine = usable & np.logical_or.reduce([_has(pool, config, split) for split in splits])
    seen_tools, seen_rows = pool.tool_rows()
    called_tools, called_rows = pool.tool_rows(called=True)
    most = config.unseen_share * usable.sum()
    found = _Tools([], np.zeros(len(pool), np.bool_), np.zeros(len(pool), np.bool_))
    order = sorted(range(len(pool.tool_names)), key=lambda tool: _hash(f"{config.seed} {pool.tool_names[tool]}"))
    for cap in (most / 16, most / 4, most):
        for tool in order:
            if (found.calls & fine).sum() >= wanted:
                return found
            callers = _slice(called_tools, called_rows, tool)
            seers = _slice(seen_tools, seen_rows, tool)
            name = pool.tool_names[tool]
            if fine[callers].any() and usable[seers].sum() <= cap and name not in found.names:
                found.calls[callers] = True
                found.rows[seers] = True
                found.names.append(name)
    return found


def _slice(tools: NDArray[np.int64], rows: Rows, tool: int) -> Rows:
    return rows[np.searchsorted(tools, tool) : np.searchsorted(tools, tool, side="right")]


def _whole_groups(rows: Mask, group: NDArray[np.int64]) -> Mask:
    """The rows, and all rows of their groups."""
    touched = np.zeros(group.max(initial=-1) + 1, np.bool_)
    touched[group[rows]] = True
    return np.asarray(touched[group], np.bool_)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big")
