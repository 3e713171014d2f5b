"""LLMJudge: a language model decides the items of a turn.

What it costs is decided by the schedule (`cm2.judge.schedule`), by what needs no call at all (`cm2.judge.prospect`) and
by what was seen before (`cm2.judge.memory`). What it may be believed is decided by how an answer is read
(`cm2.judge.question`): exactly the items that were asked about, each yes with a quote that stands. What the model or
its provider could not decide is unscored, with the one who failed (`Verdict.owner`); nothing else is.

Turns that ended early are judged on what is there. Items about a whole dialogue are one question (`cm2.judge.whole`),
but for the schedule `dialogue`, which has one question for them and all turns (`cm2.judge.dialogue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.judge.dialogue import Part, judge_all, minds
from cm2.judge.form import Form, form
from cm2.judge.judge import OnDoor, about
from cm2.judge.judging import Judging
from cm2.judge.memory import Memory
from cm2.judge.placed import DialogueView
from cm2.judge.question import Counts, Question, Said
from cm2.judge.schedule import fill
from cm2.judge.sheet import Sheet
from cm2.judge.view import View, sees_thinking
from cm2.judge.whole import WholeView, judge_whole
from cm2.llm import Asker
from cm2.llm.fence import Fence
from cm2.verdict import WHOLE, Verdict


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
    def needs_end(self) -> bool:
        """See `cm2.judge.judge.needs_end`."""
        return self.config.schedule == "dialogue"

    @property
    def counts(self) -> Counts:
        """Calls, money and what was spared, so far."""
        return self.memory.counts

    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        if turn >= len(dialogue.turns):
            return []
        if self.needs_end:
            (found,) = await self._judge_dialogue(dialogue, [checklist], about(known, checklist), again)
            return [verdict for verdict in found if verdict.step >= since or turn == WHOLE]
        fence = Fence.make(getattr(self.asker, "secret", ""), dialogue.id)
        if turn == WHOLE:
            return await self._judge_whole(dialogue, checklist, fence, known, again)
        sheet = Sheet(dialogue, turn, checklist, known)
        needed = frozenset(id for item in checklist.items for id in item.depends_on)

        @cache
        def view(step: int, thinks: bool) -> View:
            return View(dialogue, turn, step, fence, thinks, self.config.system, self.config.cut)

        async def ask(how: Form, step: int, items: list[Item]) -> dict[str, Said]:
            shown = view(step, any(map(sees_thinking, items)))
            return await self.memory.ask(Question(how, shown, items, (), self.sample, again, self.stage, needed))

        self.counts.skipped += await fill(sheet, self.config, ask)
        return sheet.verdicts(since)

    async def _judge_dialogue(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], again: int
    ) -> list[list[Verdict]]:
        if not self.needs_end:
            return await super()._judge_dialogue(dialogue, checklists, known, again)
        fence = Fence.make(getattr(self.asker, "secret", ""), dialogue.id)

        @cache
        def view(turn: int, minds: tuple[int, ...]) -> DialogueView:
            upto = len(dialogue.turns[turn].steps) - 1
            return DialogueView(dialogue, turn, upto, fence, bool(minds), self.config.system, self.config.cut, minds)

        async def ask(turn: int, part: Part) -> dict[str, Said]:
            shown = view(turn, minds(part))
            question = Question(form("dialogue"), shown, part.items, part.listed, self.sample, again, self.stage)
            return await self.memory.ask(question)

        found, skipped = await judge_all(dialogue, checklists, known, self.config, ask)
        self.counts.skipped += skipped
        return found

    async def _judge_whole(
        self, dialogue: Dialogue, checklist: Checklist, fence: Fence, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        last = sum(len(turn.steps) for turn in dialogue.turns) - 1

        @cache
        def view(thinks: bool) -> WholeView:
            return WholeView(dialogue, WHOLE, last, fence, thinks, self.config.system, self.config.cut)

        async def ask(how: Form, items: list[Item]) -> dict[str, Said]:
            shown = view(any(map(sees_thinking, items)))
            return await self.memory.ask(Question(how, shown, items, (), self.sample, again, self.stage))

        verdicts, skipped = await judge_whole(dialogue, checklist, known, self.config, ask)
        self.counts.skipped += skipped
        return verdicts
