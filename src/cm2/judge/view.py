"""View: what of a rollout a question shows, as text.

An item sees the whole conversation before its turn and, of its turn, calls, answers and replies; private thinking it
sees only if it looks at thinking, and then of its turn only. So there are two views of a state, and one is the other
with the thinking behind it: both begin with the same bytes.

Two rollouts whose views are equal get equal verdicts (`key`): siblings that have not parted yet, or that differ in what
came later, or in thinking alone.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec

from cm2.checklist import FocusOn, Item
from cm2.dialogue import Dialogue, Step
from cm2.judge.text import clean
from cm2.llm.fence import Fence

THINKING: FocusOn = "assistant.content.thinking"


class View(msgspec.Struct, frozen=True, dict=True):
    """The state after step `upto` of a turn, with the thinking of the turn or without it."""

    dialogue: Dialogue
    turn: int
    upto: int
    fence: Fence
    thinks: bool = False
    system: bool = True
    cut: int | None = None

    @property
    def steps(self) -> list[Step]:
        """The steps of the turn that have happened."""
        return self.dialogue.turns[self.turn].steps[: self.upto + 1]

    @cached_property
    def record(self) -> str:
        """The conversation up to this state; that of a later state begins with it, up to its end marker."""
        upto = (self.turn, self.upto + 1)
        return self.fence.transcript(self.dialogue, upto=upto, thinking=False, system=self.system, cut=self.cut)

    @cached_property
    def thinking(self) -> list[str]:
        """The thinking of the turn, a block a step."""
        if not self.thinks:
            return []
        return [
            self.fence.block(f"private thinking of the agent in turn {self.turn} step {s}", step.thinking)
            for s, step in enumerate(self.steps)
            if step.thinking
        ]

    @property
    def ending(self) -> str:
        """How the turn ended, if it did: an agent that was cut off may have left it open."""
        steps = self.dialogue.turns[self.turn].steps
        if self.upto + 1 < len(steps):
            return "The turn is not over in this state."
        if has_reply(steps[-1]) and not steps[-1].calls:
            return f"It ended with the reply of step {self.upto}."
        return f"It broke off after step {self.upto}, without a final reply to the user."

    def places(self, item: Item, first: int | None) -> list[tuple[int, int]]:
        """Turn and step of everything that a quote may stand in: of an item that is said to hold from step `first` on,
        or (None) of one that is said not to hold."""
        return [(self.turn, s) for s in range(self.upto + 1 if first is None else first + 1)]

    @cached_property
    def key(self) -> bytes:
        """What is the same for two states that look the same."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (str((self.turn, self.upto, self.thinks)), self.ending, self.record, *self.thinking):
            digest.update(part.encode(errors="surrogatepass") + b"\0")
        return digest.digest()


def sees_thinking(item: Item) -> bool:
    """Whether the item is shown the agent's private thinking."""
    return item.focus_on == THINKING


def has_reply(step: Step) -> bool:
    """Whether the user saw any words."""
    return step.reply is not None and bool(clean(step.reply).strip())


def has_part(step: Step, focus: FocusOn) -> bool:
    """Whether the part that `focus` names is there at all."""
    if focus == "assistant.tool_calls":
        return bool(step.calls)
    if focus == "tool.content":
        return bool(step.responses)
    if focus == THINKING:
        return bool((step.thinking or "").strip())
    return has_reply(step)
