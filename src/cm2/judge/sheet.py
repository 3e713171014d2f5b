"""Sheet: the verdicts of one turn while it is being judged.

It holds, per item and step, what is known: what was known before (checks), what was said, what cannot hold. From it a
schedule reads which items are still open; in the end it is the list of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.judge.question import Said
from cm2.verdict import Verdict, unscored

SKIP = "skip"
"""The judge of verdicts that needed no call."""
TWICE = "two items of the checklist share the id"


class Sheet:
    """The verdicts of a turn under a checklist.

    Args:
        dialogue, turn, checklist: what is judged.
        known: verdicts on some of its items, which are not asked about; they ground the others.
    """

    def __init__(self, dialogue: Dialogue, turn: int, checklist: Checklist, known: Iterable[Verdict] = ()):
        self.dialogue, self.turn, self.checklist = dialogue, turn, checklist
        self.steps = dialogue.turns[turn].steps
        self.known: dict[str, list[bool | None]] = {}
        for verdict in known:
            if (verdict.turn, verdict.variant) == (turn, checklist.variant) and verdict.step < len(self.steps):
                says = self.known.setdefault(verdict.item, [None] * len(self.steps))
                says[verdict.step] = verdict.met
        self.open = [item for item in checklist.items if item.id not in self.known]
        """Items that no verdict is known of; what is put on the sheet does not change it."""
        self._said: dict[tuple[int, str], Verdict] = {}
        self._satisfied: dict[str, int] = {}

    def put(
        self, item: Item, step: int, met: bool | None, reason: str, said: Said | None = None, cost: float = 0.0
    ) -> None:
        """Write down the verdict on an item after a step."""
        verdict = Verdict(self.dialogue.id, self.turn, step, item.id, met, self.checklist.variant, reason, judge=SKIP)
        if said is not None:
            verdict.judge, verdict.owner, verdict.cost = said.judge, said.owner, cost
            verdict.evidence = list(said.evidence) if met else []
        self._said[step, item.id] = verdict

    def put_all(self, item: Item, reason: str, *, met: bool | None = False, owner: str = "") -> None:
        """The same verdict after every step, without a call."""
        for step in range(len(self.steps)):
            self.put(item, step, met, reason, Said(met, judge=SKIP, owner=owner))

    def put_first(self, item: Item, said: Said) -> None:
        """What follows for every step from the first one after which the item holds; the call's cost is shared."""
        cost = said.cost / len(self.steps)
        for step in range(len(self.steps)):
            met = said.met if said.first is None else step >= said.first
            self.put(item, step, met, said.reason, said, cost)

    def refuse_twins(self) -> None:
        """Items that share an id cannot be told apart in an answer: they are unscored, and not asked about."""
        ids = [item.id for item in self.checklist.items]
        for item in [item for item in self.open if ids.count(item.id) > 1]:
            self.put_all(item, unscored(TWICE), met=None, owner="data")
        self.open = [item for item in self.open if ids.count(item.id) == 1]

    def says(self, id: str) -> Sequence[bool | None]:
        """What is known of an item after each step so far."""
        if id in self.known:
            return self.known[id]
        found = []
        for step in range(len(self.steps)):
            if (step, id) not in self._said:
                break
            found.append(self._said[step, id].met)
        return found

    def verdicts(self, since: int = 0) -> list[Verdict]:
        """All that was put down, in order of step, then item."""
        return [
            self._said[step, item.id]
            for step in range(since, len(self.steps))
            for item in self.checklist.items
            if (step, item.id) in self._said
        ]


def ground(sheet: Sheet, id: str, step: int, path: frozenset[str] = frozenset()) -> bool | None:
    """Whether an item is satisfied in the state before `step`, read `gated`; None where that hangs on what is unscored
    or on an item that the checklist does not have."""
    item = sheet.checklist.item(id)
    if item is None:
        return None
    if id in path:
        return False  # what depends on itself is never satisfied
    unsure = False
    for s, met in enumerate(sheet.says(id)[:step]):
        if met is False:
            continue
        grounds = [ground(sheet, other, s, path | {id}) for other in item.depends_on]
        if met and all(found is True for found in grounds):
            return True
        unsure = unsure or all(found is not False for found in grounds)
    return None if unsure else False
