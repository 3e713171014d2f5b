"""Draft: an item as a model proposed it, on its way into a checklist or out of it.

A draft keeps what the model gave, the item that was read from it, and every fault that was found; it is sound while
there is none. Ids are ours (C0, C1 … within a turn and variant), so that a model's double or odd ids confuse nothing.
The items of the reference labeller enter as drafts too, in a hybrid labelling; they are `code` and above suspicion.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.checklist import Item


class Fault(msgspec.Struct, frozen=True):
    """Why an item, or its check, cannot stay: a word to count by, and a sentence to the model that gave it."""

    reason: str
    message: str


class Draft(msgspec.Struct):
    """See the module."""

    id: str
    given: Any = None
    """What the model gave, for the question that asks it again."""
    item: Item | None = None
    """None where too little could be read. Its weight is the model's own, not yet a share."""
    faults: list[Fault] = []
    refused: Fault | None = None
    """Why its check was not kept; the item stays."""
    code: bool = False
    repaired: bool = False
    """Whether it is the answer to a second question."""
    mended: int = 0
    """Pointers whose snippet was brought to the exact text of the reference."""
    strays: int = 0
    """Pointers that were left out because they do not stand, beside others that do."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.item is not None and not self.faults

    @property
    def kind(self) -> str:
        """What its faults are counted under."""
        return self.item.kind if self.item is not None and self.item.kind else "model"


Key = tuple[int, int]
"""A turn and a variant."""
Sheets = dict[Key, list[Draft]]
"""The drafts of every checklist of a dialogue."""
