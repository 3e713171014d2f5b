"""Pairs: two answers to the same prefix, one after which the duties held and one after which they did not.

Dialogues that begin alike (system prompt, tools, everything said and done) are one path until some step; there they
take different actions. An action is *better* where every dialogue that took it went on to a turn that passes, and
*worse* where every one failed in that turn (or as a whole). Actions after which both happened, or nobody could judge,
are no evidence and make no pair. Ids of calls, the order of arguments and white space make no difference.

Two passes: one keeps 33 bytes a step and finds the pairs, one fetches the messages of those.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from cm2.assure.export_formats import Pair
from cm2.assure.export_standing import Standing
from cm2.assure.export_talk import Unsayable, action_of, talk_of
from cm2.dialogue import Dialogue, Step

PASS, FAIL = 1, 0
_ENCODER = msgspec.json.Encoder(order="sorted")


class Place(msgspec.Struct, frozen=True):
    """A step of a dialogue, which is known by its number in the stream."""

    dialogue: int
    turn: int
    step: int


class Wanted(msgspec.Struct, frozen=True):
    """A pair that was found."""

    better: Place
    worse: Place


class Paths:
    """The steps of a stream of dialogues, by what came before them."""

    def __init__(self) -> None:
        self._before, self._action = array("Q"), array("Q")
        self._verdict = array("b")
        self._places = array("q")
        self.dialogues = 0
        self.mixed = 0
        """Actions at a fork after which duties held and did not."""

    def add(self, dialogue: Dialogue, standing: Standing) -> None:
        """Take in a dialogue; the next number is its."""
        before = _digest(dialogue.system, dialogue.tools, [_of(step) for step in dialogue.opening])
        for t, turn in enumerate(dialogue.turns):
            before = _digest(before, _plain(turn.user))
            verdict = standing.of_turn(t)
            for s, step in enumerate(turn.steps):
                action = _digest(_action(step))
                if verdict in ("pass", "fail"):
                    self._before.append(before)
                    self._action.append(action)
                    self._verdict.append(PASS if verdict == "pass" else FAIL)
                    self._places.extend((self.dialogues, t, s))
                before = _digest(before, _of(step))
        self.dialogues += 1

    def pairs(self, most: int = 1) -> list[Wanted]:
        """The pairs, at most so many a prefix: of the actions that were taken most often first."""
        before = np.frombuffer(self._before, np.uint64) if self._before else np.zeros(0, np.uint64)
        action = np.frombuffer(self._action, np.uint64) if self._before else before
        order = np.lexsort((action, before))
        ordered = before[order]
        starts: list[int] = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])).tolist() if len(order) else []
        found: list[Wanted] = []
        self.mixed = 0
        for start, end in zip(starts, [*starts[1:], len(order)], strict=False):
            if end - start > 1:
                found += self._fork(order[start:end], most)
        return sorted(found, key=lambda pair: (pair.better.dialogue, pair.better.turn, pair.better.step))

    def _fork(self, rows: Any, most: int) -> list[Wanted]:
        taken: dict[int, list[int]] = {}
        for row in rows.tolist():
            taken.setdefault(self._action[row], []).append(row)
        if len(taken) < 2:
            return []
        better, worse = [], []
        for mine in taken.values():
            passed = sum(self._verdict[row] for row in mine)
            if passed == len(mine):
                better.append(mine)
            elif passed == 0:
                worse.append(mine)
            else:
                self.mixed += 1
        for side in (better, worse):
            side.sort(key=lambda mine: (-len(mine), mine[0]))
        both = [(good, bad) for good in better for bad in worse]
        both.sort(key=lambda pair: -len(pair[0]) * len(pair[1]))
        return [Wanted(self._place(good[0]), self._place(bad[0])) for good, bad in both[:most]]

    def _place(self, row: int) -> Place:
        return Place(*self._places[3 * row : 3 * row + 3])


def fetch(wanted: list[Wanted], dialogues: Iterable[Dialogue], left_out: dict[str, int]) -> Iterator[Pair]:
    """The messages of pairs, from the same stream of dialogues; each as soon as both halves came.

    Args:
        wanted: the pairs.
        dialogues: in the order in which `Paths` took them in.
        left_out: takes in why some cannot be said, counted.
    """
    by_dialogue: dict[int, list[tuple[int, bool]]] = {}
    for number, pair in enumerate(wanted):
        by_dialogue.setdefault(pair.better.dialogue, []).append((number, True))
        by_dialogue.setdefault(pair.worse.dialogue, []).append((number, False))
    halves: dict[int, Any] = {}
    for at, dialogue in enumerate(dialogues):
        for number, better in by_dialogue.get(at, ()):
            place = wanted[number].better if better else wanted[number].worse
            try:
                mine: Any = action_of(dialogue, place.turn, place.step)
                if better:
                    mine = (dialogue.id, talk_of(dialogue, place.turn, place.step), mine)
            except Unsayable as reason:
                mine = str(reason)
            other = halves.pop(number, None)
            if other is None:
                halves[number] = mine
                continue
            good, bad = (mine, other) if better else (other, mine)
            why = next((one for one in (good, bad) if isinstance(one, str)), None)
            if why is not None:
                left_out[why] = left_out.get(why, 0) + 1
                continue
            id, prompt, chosen = good
            yield Pair(f"{id}/{place.turn}/{place.step}", prompt, chosen, bad)


def _action(step: Step) -> Any:
    """What the agent did, without what makes no difference. Thinking is no action."""
    calls = [[call.name, call.arguments if call.valid else call.raw] for call in step.calls]
    return [_plain(step.reply or ""), calls]


def _of(step: Step) -> Any:
    return [_action(step), [_plain(response.content) for response in step.responses]]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _digest(*values: Any) -> int:
    try:
        text = _ENCODER.encode(values)
    except UnicodeEncodeError:  # lone surrogates
        text = repr(msgspec.to_builtins(values)).encode(errors="replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
