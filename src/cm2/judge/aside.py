"""Aside: a judge that is asked about more than is paid for, in the same calls.

Two sorts of items are mixed in: canaries, whose answer is known, and items that are held out, which are real duties
that never become a reward. The verdicts on them are put aside; whoever called gets the verdicts on its own checklist
and nothing else, so that credit cannot see them. What was put aside of a rollout is taken with `take`.

Held-out items are chosen once a task (`hold_out`): no strict ones and none on which others depend, so that what is paid
for means the same without them, and at least one item stays in every checklist.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue
from cm2.judge.canary import Canary, Pool, given, impossible, mix, wrong
from cm2.judge.judge import AsyncJudge, Judge
from cm2.verdict import Verdict

Place = tuple[int, int]


class Kept(msgspec.Struct):
    """What was put aside of one rollout."""

    canaries: list[tuple[Canary, bool | None]] = []
    """Those that still have the answer they were made for, and whether the judge got them wrong (None: not decided)."""
    spoiled: int = 0
    """Canaries that what the agent did gave another answer."""
    verdicts: list[Verdict] = []
    """On the held-out items."""


def hold_out(task: Task, share: float, seed: int = 0) -> tuple[Task, dict[Place, list[Item]]]:
    """The task without some of its items, which are (about) this share of those that can be spared; and these items."""
    checklists, held = [], {}
    for checklist in task.checklists:
        needed = {id for item in checklist.items for id in item.depends_on}
        free = [item for item in checklist.items if not item.required_for_next_turn and item.id not in needed]
        free = free[: len(checklist.items) - 1]
        chosen = [
            item for item in free if drawn(seed, task.dialogue.id, checklist.turn, checklist.variant, item.id) < share
        ]
        ids = {item.id for item in chosen}
        rest = [item for item in checklist.items if item.id not in ids]
        checklists.append(msgspec.structs.replace(checklist, items=rest).normalised() if chosen else checklist)
        if chosen:
            held[checklist.turn, checklist.variant] = chosen
    return msgspec.structs.replace(task, checklists=checklists), held


class Aside:
    """See the module.

    Args:
        inner: who judges.
        pool: what canaries are made from; None makes none.
        canaries: canaries a checklist that must stay no.
        given: canaries a checklist that must be yes.
        held: of each dialogue, the held-out items of each (turn, variant).
        seed: of which canaries, and where they stand.
    """

    name = "aside"

    def __init__(
        self,
        inner: Judge,
        pool: Pool | None = None,
        *,
        canaries: int = 0,
        given: int = 0,
        held: dict[str, dict[Place, list[Item]]] | None = None,
        seed: int = 0,
    ):
        self.inner, self.pool, self.seed = inner, pool, seed
        self.canaries, self.given = canaries, given
        self.held = {} if held is None else held
        self._kept: dict[int, tuple[Dialogue, Kept]] = {}

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`."""
        more, canaries = self._more(dialogue, turn, checklist)
        return self._split(dialogue, turn, checklist, canaries, self.inner.judge(dialogue, turn, more, since))

    def take(self, dialogue: Dialogue) -> Kept:
        """What was put aside while this very dialogue was judged (it is forgotten here)."""
        return self._kept.pop(id(dialogue), (dialogue, Kept()))[1]

    def clear(self) -> None:
        """Forget what nobody took."""
        self._kept.clear()

    def _more(self, dialogue: Dialogue, turn: int, checklist: Checklist) -> tuple[Checklist, dict[str, Canary]]:
        if not 0 <= turn < len(dialogue.turns):
            return checklist, {}
        made: list[Canary] = []
        if self.pool is not None:
            made += impossible(dialogue, turn, checklist, self.canaries, self.pool, self.seed)
            made += given(dialogue, turn, checklist, self.given, self.seed)
        held = self.held.get(dialogue.id, {}).get((turn, checklist.variant), [])
        more, ids = mix(checklist, [*held, *(canary.item for canary in made)], self.seed, dialogue.id)
        return more, dict(zip(ids[len(held) :], made, strict=True))

    def _split(
        self,
        dialogue: Dialogue,
        turn: int,
        checklist: Checklist,
        canaries: dict[str, Canary],
        verdicts: list[Verdict],
    ) -> list[Verdict]:
        own = {item.id for item in checklist.items}
        # The dialogue is kept with it, so that its id() cannot become another's.
        _, kept = self._kept.setdefault(id(dialogue), (dialogue, Kept()))
        for id_, canary in canaries.items():
            if canary.stands(dialogue, turn):
                kept.canaries.append((canary, wrong(canary, [v for v in verdicts if v.item == id_])))
            else:
                kept.spoiled += 1
        kept.verdicts += [v for v in verdicts if v.item not in own and v.item not in canaries]
        return [v for v in verdicts if v.item in own]


class AsyncAside(Aside):
    """The same around a judge that must be waited for."""

    inner: AsyncJudge

    async def judge_async(
        self,
        dialogue: Dialogue,
        turn: int,
        checklist: Checklist,
        since: int = 0,
        known: Sequence[Verdict] = (),
        again: int = 0,
    ) -> list[Verdict]:
        """See `AsyncJudge.judge_async`."""
        more, canaries = self._more(dialogue, turn, checklist)
        found = await self.inner.judge_async(dialogue, turn, more, since, known, again)
        return self._split(dialogue, turn, checklist, canaries, found)


def aside(inner: Judge, pool: Pool | None = None, **settings: Any) -> Aside:
    """An `Aside` around the judge, one that can be awaited where the judge can."""
    return (AsyncAside if hasattr(inner, "judge_async") else Aside)(inner, pool, **settings)


def drawn(*parts: object) -> float:
    """A number in [0, 1) that depends on all of these."""
    digest = hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=8).digest()
    return math.ldexp(int.from_bytes(digest, "big"), -64)
