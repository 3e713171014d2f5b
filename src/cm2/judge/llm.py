"""LLMJudge: a language model decides the items of a turn.

What it costs is decided by the schedule (`cm2.judge.schedule`), by what needs no call at all (`cm2.judge.prospect`) and
by what was seen before (`cm2.judge.memory`). What it may be believed is decided by how an answer is read
(`cm2.judge.question`): exactly the items that were asked about, each yes with a quote that stands. What the model or
its provider could not decide is unscored, with the one who failed (`Verdict.owner`); nothing else is.

Turns that ended early are judged on what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.judge.form import Form
from cm2.judge.judge import OnDoor
from cm2.judge.judging import Judging
from cm2.judge.memory import Memory
from cm2.judge.question import Counts, Question, Said
from cm2.judge.schedule import fill
from cm2.judge.sheet import Sheet
from cm2.judge.view import View, sees_thinking
from cm2.llm import Asker
from cm2.llm.fence import Fence
from cm2.verdict import Verdict


class LLMJudge(OnDoor):
    """Judges by asking a model; see the module.

    Args:
        asker: whom to ask: `cm2.llm.Models`.
        config: the schedule and what goes with it.
        sample: which independent judgement of the same questions this judge gives.
        stage: what its calls are called in the table of costs.
    """

    name = "llm"

    def __init__(self, asker: Asker, config: Judging | None = None, *, sample: int = 0, stage: str = ""):
        self.asker, self.sample = asker, sample
        self.config = Judging(kind="llm") if config is None else config
        self.stage = stage or f"judge: {self.config.schedule}"
        self.memory = Memory(asker)
        self.identity = self.name

    @property
    def counts(self) -> Counts:
        """Calls, money and what was spared, so far."""
        return self.memory.counts

    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        if turn >= len(dialogue.turns):
            return []
        sheet = Sheet(dialogue, turn, checklist, known)
        fence = Fence.make(getattr(self.asker, "secret", ""), dialogue.id)
        needed = frozenset(id for item in checklist.items for id in item.depends_on)

        @cache
        def view(step: int, thinks: bool) -> View:
            return View(dialogue, turn, step, fence, thinks, self.config.system, self.config.cut)

        async def ask(form: Form, step: int, items: list[Item]) -> dict[str, Said]:
            shown = view(step, any(map(sees_thinking, items)))
            return await self.memory.ask(Question(form, shown, items, self.sample, again, self.stage, needed))

        self.counts.skipped += await fill(sheet, self.config, ask)
        return sheet.verdicts(since)
