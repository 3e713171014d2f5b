"""Asking about a whole dialogue: one question, when it is over, with every open item in it.

The record stands first and the items last, so that the price of a long dialogue is paid once. A quote may stand
anywhere in what the agent did; its pointer carries the true turn and step. Nobody is asked where the part that an item
looks at is absent from the whole dialogue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step
from cm2.judge.form import Form, form
from cm2.judge.judging import Judging
from cm2.judge.prospect import ABSENT, NEVER, first_part
from cm2.judge.question import Said
from cm2.judge.schedule import batches
from cm2.judge.scope import final_reply, whole
from cm2.judge.sheet import SKIP, TWICE
from cm2.judge.view import View
from cm2.verdict import WHOLE, Verdict, unscored

NOTHING = "nothing was done in the dialogue"
Ask = Callable[[Form, list[Item]], Awaitable[dict[str, Said]]]


class WholeView(View, frozen=True, dict=True):
    """A whole dialogue, its steps numbered through."""

    @cached_property
    def _flat(self) -> tuple[list[Step], list[tuple[int, int]]]:
        state = whole(self.dialogue)
        return state.flat, state.places

    @property
    def steps(self) -> list[Step]:
        """The steps of all turns."""
        return self._flat[0]

    @cached_property
    def record(self) -> str:
        """The whole conversation."""
        return self.fence.transcript(self.dialogue, thinking=False, system=self.system, cut=self.cut)

    @cached_property
    def thinking(self) -> list[str]:
        """All thinking, a block a step."""
        if not self.thinks:
            return []
        return [
            self.fence.block(f"private thinking of the agent in turn {t} step {s}", step.thinking)
            for step, (t, s) in zip(*self._flat, strict=True)
            if step.thinking
        ]

    @property
    def ending(self) -> str:
        """How it ended."""
        if final_reply(self.steps) is not None:
            return "It ended with a reply to the user."
        return "It broke off without a final reply to the user."

    def places(self, item: Item, first: int | None) -> list[tuple[int, int]]:
        """See `View.places`: anywhere."""
        return self._flat[1]


class WholeSheet:
    """The verdicts on a whole dialogue while it is being judged: what `cm2.judge.sheet.Sheet` is to a turn.

    Attributes:
        asked: the items that somebody has to be asked about.
        skipped: how many needed nobody.
    """

    def __init__(self, dialogue: Dialogue, checklist: Checklist, known: Sequence[Verdict], config: Judging):
        self.dialogue, self.turn, self.checklist = dialogue, WHOLE, checklist
        said_before = {verdict.item for verdict in known}
        ids = [item.id for item in checklist.items]
        steps = whole(dialogue).flat
        self._said: dict[str, Said] = {}
        self.asked: list[Item] = []
        for item in checklist.items:
            if item.id in said_before:
                continue
            if ids.count(item.id) > 1:
                self._said[item.id] = Said(None, reason=unscored(TWICE), judge=SKIP, owner="data")
            elif not steps:
                self._said[item.id] = Said(False, reason=NOTHING, judge=SKIP)
            elif config.skip_absent and config.schedule != "published" and first_part(item, steps) == NEVER:
                part = ABSENT[item.focus_on].replace("turn", "dialogue")
                self._said[item.id] = Said(False, reason=f"cannot hold: {part}", judge=SKIP)
            else:
                self.asked.append(item)
        self.skipped = len(self._said)

    def put_first(self, item: Item, said: Said) -> None:
        """Write down what was said of an item."""
        self._said[item.id] = said

    def verdicts(self) -> list[Verdict]:
        """All that was put down, in order of the items."""
        return [
            Verdict(
                self.dialogue.id,
                WHOLE,
                WHOLE,
                item.id,
                one.met,
                self.checklist.variant,
                one.reason,
                list(one.evidence),
                one.judge,
                one.cost,
                owner=one.owner,
            )
            for item in self.checklist.items
            if (one := self._said.get(item.id)) is not None
        ]


async def judge_whole(
    dialogue: Dialogue, checklist: Checklist, known: Sequence[Verdict], config: Judging, ask: Ask
) -> tuple[list[Verdict], int]:
    """A verdict on every item that is not known, and how many of them needed no call."""
    sheet = WholeSheet(dialogue, checklist, known, config)
    for said in await asyncio.gather(*(ask(form("whole"), items) for items in batches(sheet.asked, config))):
        for item in sheet.asked:
            if item.id in said:
                sheet.put_first(item, said[item.id])
    return sheet.verdicts(), sheet.skipped
