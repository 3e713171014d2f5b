"""Schedules: which questions a turn is judged by.

- `turn`: one question about all states of the turn, with every open item in it. From "it first holds after step f"
  follow the verdicts: no before f, yes from f on.
- `step`: one question a step, with the items that are still open. An item that held is not asked about again.
- `item`: as `step`, with a question of its own for every item.
- `published`: as `item`, with the item in front of the history.
- `dialogue`: one question about all turns of a dialogue that is over; it is asked in `cm2.judge.dialogue`.

Items that look at thinking, and with `isolate` those that are a matter of taste, have questions of their own. Nobody is
asked about what cannot hold (`cm2.judge.prospect`): in `turn` in no state, in the others in this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cm2.checklist import Item
from cm2.judge.form import Form, form
from cm2.judge.judging import Judging
from cm2.judge.prospect import ABSENT, cannot_hold, first_part
from cm2.judge.question import Said
from cm2.judge.sheet import Sheet, ground
from cm2.judge.view import sees_thinking

Ask = Callable[[Form, int, list[Item]], Awaitable[dict[str, Said]]]
"""Asks in a form, about the state after a step, about some items."""


async def fill(sheet: Sheet, config: Judging, ask: Ask) -> int:
    """Judge everything on the sheet that is open; how many items needed no call."""
    sheet.refuse_twins()
    if not sheet.steps or not sheet.open:
        return 0
    if config.schedule == "turn":
        return await _by_turn(sheet, config, ask)
    return await _by_step(sheet, config, ask)


async def _by_turn(sheet: Sheet, config: Judging, ask: Ask) -> int:
    asked = settle(sheet, config)
    last = len(sheet.steps) - 1
    for said in await asyncio.gather(*(ask(form("turn"), last, items) for items in batches(asked, config))):
        for item in asked:
            if item.id in said:
                sheet.put_first(item, said[item.id])
    return len(sheet.open) - len(asked)


def settle(sheet: Sheet, config: Judging) -> list[Item]:
    """Put down what can hold in no state of the turn; the open items that are left to ask about."""
    hopeless = _hopeless(sheet, config)
    for item in sheet.open:
        if item.id in hopeless:
            sheet.put_all(item, hopeless[item.id])
    return [item for item in sheet.open if item.id not in hopeless]


async def _by_step(sheet: Sheet, config: Judging, ask: Ask) -> int:
    hopeless = _hopeless(sheet, config)
    kind = form("published" if config.schedule == "published" else "step")
    asked_ever: set[str] = set()
    held: dict[str, tuple[int, Said]] = {}
    for step in range(len(sheet.steps)):
        asked = []
        for item in sheet.open:
            reason = hopeless.get(item.id) or _not_yet(sheet, item, step, config)
            if item.id in held:
                first, said = held[item.id]
                sheet.put(item, step, True, f"held after step {first}: {said.reason}", said)
            elif reason:
                sheet.put(item, step, False, reason)
            else:
                asked.append(item)
        parts = batches(asked, config)
        for answers in await asyncio.gather(*(ask(kind, step, items) for items in parts)):
            for item in asked:
                if item.id in answers:
                    said = answers[item.id]
                    sheet.put(item, step, said.met, said.reason, said, said.cost)
                    if said.met:
                        held[item.id] = (step, said)
        asked_ever |= {item.id for item in asked}
    return len(sheet.open) - len(asked_ever)


def batches(items: list[Item], config: Judging) -> list[list[Item]]:
    """The items by the questions that they go into: those of one question share a view."""
    if config.schedule in ("item", "published"):
        return [[item] for item in items]
    alone = [[item] for item in items if config.alone(item)]
    together = [item for item in items if not config.alone(item)]
    plain = [item for item in together if not sees_thinking(item)]
    thinking = [item for item in together if sees_thinking(item)]
    return [part for part in (plain, thinking, *alone) if part]


def _hopeless(sheet: Sheet, config: Judging) -> dict[str, str]:
    """The open items that can be satisfied in no state of the turn, with the reason."""
    absent = config.skip_absent and config.schedule != "published"
    found = cannot_hold(
        sheet.checklist.items, sheet.steps, sheet.known, absent=absent, ungrounded=config.skip_ungrounded
    )
    mine = {item.id for item in sheet.open}
    return {id: reason for id, reason in found.items() if id in mine}


def _not_yet(sheet: Sheet, item: Item, step: int, config: Judging) -> str:
    """Why the item cannot be satisfied by this step, "" where it can."""
    if config.skip_ungrounded:
        for id in item.depends_on:
            if ground(sheet, id, step) is False:
                return f"cannot hold yet: {id}, which it depends on, is not satisfied before this step"
    if config.skip_absent and config.schedule != "published" and first_part(item, sheet.steps) > step:
        return f"cannot hold yet: so far {ABSENT[item.focus_on]}"
    return ""
