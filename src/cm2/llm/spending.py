"""Spending: calls, tokens and money by stage, of what was paid for or of what a dry run plans."""

from __future__ import annotations

import msgspec

from cm2.llm.request import Usage


class Stage(msgspec.Struct):
    """One kind of question. A call is one HTTP request that was answered; an answer may have taken more than one."""

    answers: int = 0
    """Valid answers, from the cache or paid for."""
    reused: int = 0
    """Of those, the ones from the cache or shared with an equal question under way."""
    failed: int = 0
    """Questions without a valid answer."""
    calls: int = 0
    repairs: int = 0
    """Calls that asked again because an answer was not valid."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider's prefix cache had."""
    completion_tokens: int = 0
    cost: float = 0.0
    """US dollars of the calls whose price is known."""
    most: float = 0.0
    """In a dry run: US dollars if every answer were as long as it may be."""
    unpriced: int = 0
    """Calls whose price is not known; they are not in `cost`."""

    @property
    def money(self) -> str:
        """The cost as text; what is not known is said."""
        if self.unpriced and self.unpriced == self.calls:
            return "unknown"
        told = f"{self.cost:.4f}" if self.cost < 1 else f"{self.cost:,.2f}"
        if self.most > self.cost:
            told += f" … {self.most:,.2f}"
        return f"{told} + unknown" if self.unpriced else told

    def add(self, other: Stage) -> None:
        """Add another's counts."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Spending(msgspec.Struct):
    """What was spent (or planned), stage by stage, and what is worth saying about it."""

    stages: dict[str, Stage] = {}
    notes: list[str] = []

    def stage(self, name: str) -> Stage:
        """The stage of that name, made when first asked for."""
        return self.stages.setdefault(name, Stage())

    def call(self, stage: str, usage: Usage, cost: float | None, *, repair: bool = False) -> None:
        """Count calls that were answered, at what they cost (None: not known)."""
        one = self.stage(stage)
        one.calls += usage.calls
        one.repairs += usage.calls if repair else 0
        one.prompt_tokens += usage.prompt_tokens
        one.cached_tokens += usage.cached_tokens
        one.completion_tokens += usage.completion_tokens
        one.cost += cost or 0.0
        one.unpriced += usage.calls if cost is None else 0

    def note(self, text: str) -> bool:
        """Keep a remark; whether it is new."""
        if text in self.notes:
            return False
        self.notes.append(text)
        return True

    @property
    def total(self) -> Stage:
        """All stages together."""
        found = Stage()
        for stage in list(self.stages.values()):
            found.add(stage)
        return found

    @property
    def calls(self) -> int:
        """Calls of all stages."""
        return self.total.calls

    @property
    def cost(self) -> float:
        """US dollars of all stages, as far as the prices are known."""
        return self.total.cost
