"""Asking about all turns of a dialogue at once, when it is over.

One question holds every open item of every turn, and those about the whole dialogue: at which turn and step does each
first hold, or never? A yes counts at a step of the item's own turn only, with a quote that stands there, so that what a
later turn did is no evidence of it; what cannot hold is not asked about, as in the schedule `turn`.

What stands where is decided for a prefix cache. All items of the task stand in front of the record (`items: first`),
the same bytes for every run of the task, whatever of them is still open in this one; then the record, which siblings
share until they part; then, where it is not all of them, the ids of those that are asked about. Items with questions of
their own (`isolate`) stand behind the record, which these questions share.

Long dialogues are cut into several questions, at the end of a turn: each shows everything up to there, so that the next
one begins with the same bytes, and is about the turns since the last cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.judge.judge import about
from cm2.judge.judging import Judging
from cm2.judge.placed import Placed, placed
from cm2.judge.question import Said
from cm2.judge.schedule import batches, settle
from cm2.judge.sheet import Sheet
from cm2.judge.view import sees_thinking
from cm2.judge.whole import WholeSheet
from cm2.llm.fence import transcript
from cm2.verdict import WHOLE, Verdict

Ask = Callable[[int, "Part"], Coroutine[Any, Any, dict[str, Said]]]
"""Asks about a part, with the record shown up to the end of a turn."""


class Part(NamedTuple):
    """The items of one question, and those of the task that stand in front of the record."""

    items: list[Item]
    listed: tuple[Item, ...] = ()


class Open(NamedTuple):
    """An item that somebody has to be asked about, and where its answer goes."""

    item: Item
    sheet: Sheet | WholeSheet


async def judge_all(
    dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], config: Judging, ask: Ask
) -> tuple[list[list[Verdict]], int]:
    """A verdict on every item that is not known, by checklist, and how many items needed no call."""
    open_: dict[str, Open] = {}
    sheets: list[Sheet | WholeSheet | None] = []
    skipped = 0
    copies = _copies(checklists)
    for checklist, copy in zip(checklists, copies, strict=True):
        sheet, asked = _sheet(dialogue, checklist, known, config)
        sheets.append(sheet)
        if sheet is not None:
            skipped += sheet.skipped if isinstance(sheet, WholeSheet) else len(sheet.open) - len(asked)
            open_ |= {placed(item, checklist, copy).id: Open(item, sheet) for item in asked}
    parts = _parts(dialogue, _listed(checklists, copies, open_, config), open_, config)
    for said in await asyncio.gather(*(ask(_last(dialogue, part), part) for part in parts)):
        for id, one in said.items():
            open_[id].sheet.put_first(open_[id].item, one)
    return [[] if sheet is None else sheet.verdicts() for sheet in sheets], skipped


def _sheet(
    dialogue: Dialogue, checklist: Checklist, known: Sequence[Verdict], config: Judging
) -> tuple[Sheet | WholeSheet | None, list[Item]]:
    """The sheet of a checklist and what of it is to be asked; none for a turn that the run never reached."""
    mine = about(known, checklist)
    if checklist.turn == WHOLE:
        whole = WholeSheet(dialogue, checklist, mine, config)
        return whole, whole.asked
    if checklist.turn >= len(dialogue.turns):
        return None, []
    sheet = Sheet(dialogue, checklist.turn, checklist, mine)
    sheet.refuse_twins()
    return sheet, settle(sheet, config) if sheet.steps else []


def _copies(checklists: Sequence[Checklist]) -> list[int]:
    """How many checklists of the same turn and variant stand before each: mostly none."""
    places = [(each.turn, each.variant) for each in checklists]
    return [places[:at].count(place) for at, place in enumerate(places)]


def _listed(
    checklists: Sequence[Checklist], copies: Sequence[int], open_: dict[str, Open], config: Judging
) -> list[Item]:
    """All items of the task that a model may be asked about in one of its runs, by turn, whatever is known of this one.
    Where checks decide, what has a check is none of them, unless it is open all the same."""
    found = []
    for checklist, copy in sorted(zip(checklists, copies, strict=True), key=_when):
        ids = [item.id for item in checklist.items]
        for item in checklist.items:
            one = placed(item, checklist, copy)
            decided = config.by_checks and item.check is not None
            if one.id in open_ or (not decided and ids.count(item.id) == 1):
                found.append(one)
    return list(found)


def _when(placed: tuple[Checklist, int]) -> tuple[bool, int, int, int]:
    checklist, copy = placed
    return checklist.turn == WHOLE, checklist.turn, checklist.variant, copy


def _parts(dialogue: Dialogue, listed: list[Item], open_: dict[str, Open], config: Judging) -> list[Part]:
    """The questions. What is asked about thinking shares list and record with the rest, and shows the thinking too."""
    together = [item for item in listed if not config.alone(item)]
    front = tuple(together) if config.items == "first" else ()
    parts = []
    for batch in batches([item for item in listed if item.id in open_], config):
        alone = len(batch) == 1 and config.alone(batch[0])
        parts += [Part(piece, () if alone else front) for piece in _pieces(dialogue, batch, config)]
    return parts


def _pieces(dialogue: Dialogue, items: list[Item], config: Judging) -> list[list[Item]]:
    """The items cut where a question would judge too many of them or too much of the record."""
    found: list[list[Item]] = []
    judged: set[int] = set()  # turns of the last piece
    chars = 0
    for item in items:
        assert isinstance(item, Placed)
        more = 0 if item.turn in judged or item.turn == WHOLE else _chars(dialogue, item.turn, config)
        if not found or len(found[-1]) >= config.at_once or (judged and more and chars + more > config.span):
            found.append([])
            judged, chars = set(), 0
            more = 0 if item.turn == WHOLE else _chars(dialogue, item.turn, config)
        found[-1].append(item)
        judged.add(item.turn)
        chars += more
    return found


def _chars(dialogue: Dialogue, turn: int, config: Judging) -> int:
    """How long the record of a turn is."""
    alone = Dialogue(dialogue.id, [dialogue.turns[turn]])
    return len(transcript(alone, thinking=False, cut=config.cut))


def _last(dialogue: Dialogue, part: Part) -> int:
    """The turn up to whose end the record is shown."""
    turns = [item.turn for item in part.items if isinstance(item, Placed)]
    return len(dialogue.turns) - 1 if WHOLE in turns else max(turns)


def minds(part: Part) -> tuple[int, ...]:
    """The turns whose thinking a part is shown: those of its items that look at it."""
    turns = {item.turn for item in part.items if isinstance(item, Placed) and sees_thinking(item)}
    return tuple(sorted(turns))
