"""Nothing else: how often each tool that can change something may have done so.

No more than in the frozen run, that is, counted over the whole dialogue. A setting may be made again with the same
arguments, and the run's own detours may be taken: all of them or none.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from cm2.check import All, Any, Called, Check, Matcher, NotCalled, OneOf
from cm2.dialogue import Dialogue
from cm2.judge.values import equal
from cm2.label.arguments import Wanted
from cm2.label.effects_net import Effect, doing, is_write, sets
from cm2.label.sources import Source

MOST_TOOLS = 64
"""So many tools that change something are watched call by call; of the others not even a failed try is allowed."""
MOST_REPEATS = 6
Checks = list[tuple[Effect, Check, list[Wanted]]]
"""The effects of a run, each with the check that it was produced and the arguments of that."""


class Limits:
    """See the module.

    Args:
        dialogue: the run.
        sources: its calls.
        effects: those that changed something.
    """

    def __init__(self, dialogue: Dialogue, sources: list[Source], effects: list[Effect]):
        self.dialogue, self.sources, self.effects = dialogue, sources, effects

    def answered(self, tool: str) -> bool:
        """Whether a call must have got an answer to count: where the log has the answers."""
        own = [effect.source for effect in self.effects if effect.tool == tool]
        return all(source.answered for source in own or self.sources if own or not source.failed)

    def nothing_else(self, checks: Checks) -> Check | None:
        """No write but the reference's lasting effects; or besides them all the detours that it took itself."""
        straight = self._at_most(checks, with_detours=False)
        if straight is None:
            return None
        lasting = [effect for effect in self.effects if effect.lasts]
        detours = [
            check
            for effect, check, _ in checks
            if not effect.lasts
            and not any(effect.tool == each.tool and equal(effect.arguments, each.arguments) for each in lasting)
        ]
        return Any([straight, All([*detours, *self._limits(checks, with_detours=True)])]) if detours else straight

    def _at_most(self, checks: Checks, with_detours: bool) -> Check | None:
        limits = self._limits(checks, with_detours)
        return None if not limits else limits[0] if len(limits) == 1 else All(limits)

    def _limits(self, checks: Checks, with_detours: bool) -> list[Check]:
        """For each tool that can change something, how often it may."""
        allowed: Counter[str] = Counter()
        for effect in self.effects:
            if effect.lasts or with_detours:
                allowed[effect.tool] += effect.times
        names = [tool.name for tool in self.dialogue.tools if is_write(tool, tool.name)]
        every = list(dict.fromkeys([effect.tool for effect in self.effects] + names))
        found: list[Check] = [self._limit(checks, name, allowed[name]) for name in every[:MOST_TOOLS]]
        left = every[MOST_TOOLS:]
        return [*found, NotCalled(left)] if left else found

    def _limit(self, checks: Checks, name: str, count: int) -> Check:
        tool = self.dialogue.tool(name)
        which: dict[str, Matcher] = {key: OneOf(values) for key, values in doing(tool).items()}
        answered = self.answered(name)
        if not answered:  # then failed tries count too: the run's own must be allowed
            count += sum(each.tool == name and each.failed and each.call.valid for each in self.sources)
        limit = Called(name, which, at_least=0, at_most=count, answered=answered)
        if not count or not sets(name):
            return limit
        again: list[Check] = []
        for effect, check, _ in checks:
            if effect.tool == name and len(again) < MOST_REPEATS:
                again += [
                    All([_more(check, extra), msgspec.structs.replace(limit, at_most=count + extra)])
                    for extra in sorted({1, self._repeats(effect)} - {0})
                ]
        return Any([limit, *again]) if again else limit

    def _repeats(self, effect: Effect) -> int:
        """How often the run itself made the very same setting again."""
        same = [
            each
            for each in self.effects
            if each is not effect and each.tool == effect.tool and equal(each.arguments, effect.arguments)
        ]
        return sum(each.times for each in same)


def _more(check: Check, extra: int) -> Check:
    """The check that an effect was produced, so many times more."""
    if isinstance(check, Any):
        return Any([_more(one, extra) for one in check.checks])
    assert isinstance(check, Called), "effects are calls"
    return msgspec.structs.replace(check, at_least=check.at_least + extra)
