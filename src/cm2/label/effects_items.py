"""The items of a frozen run: what it changed, what it left alone and what it told, as checks on a whole dialogue.

Changes are counted by tool: every change of the run must be there with its arguments, and no tool that can change
something may have done so more often. Both together mean the same changes and no other, in any order. A setting may be
made twice, and the run's own detours may be taken: all of them or none.
"""

from __future__ import annotations

from collections import Counter

from cm2.check import All, Any, Called, Check
from cm2.checklist import Evidence, Item, call_text
from cm2.dialogue import Dialogue
from cm2.judge.checks import State
from cm2.label.arguments import Wanted
from cm2.label.candidate import CALLS, REPLY
from cm2.label.effects_limits import Limits
from cm2.label.effects_match import Ids, Matching
from cm2.label.effects_net import Deeds, Effect, hands_over, is_write, net
from cm2.label.effects_told import told
from cm2.label.named import Named
from cm2.label.phrases import quote, with_arguments
from cm2.label.reading import Reading
from cm2.label.sources import Source
from cm2.writes import words

LESSER, LESSER_ALONE = 5, 3
"""So many minor items beside changes, and beside none: together they weigh less than a wrong outcome costs."""


class FrozenRun:
    """See the module.

    Args:
        dialogue: the run.
        ids: how ids are matched (`cm2.label.effects_match`).
    """

    def __init__(self, dialogue: Dialogue, ids: Ids):
        self.dialogue = dialogue
        self.reading = Reading(dialogue)
        self.sources = self.reading.sources
        self.deeds: Deeds = net(dialogue, self.sources.all)
        self._matching = Matching(self.reading.heard, self.sources, self.deeds.effects, ids)
        self._limits = Limits(dialogue, self.sources.all, self.deeds.effects)
        self._checks = [(effect, *self._check(effect)) for effect in self.deeds.effects]
        self._named = Named()

    def items(self) -> list[Item]:
        """All items."""
        lasting = [each for each in self._checks if each[0].lasts]
        rest = self._limits.nothing_else(self._checks)
        found: list[Item] = []
        if lasting:
            checks = [check for _, check, _ in lasting]
            found.append(self._outcome([effect for effect, _, _ in lasting], checks, rest))
            found += [self._effect(*each) for each in lasting]
        found += self._rest(rest, alone=not lasting)
        lesser = [*self._escalated(), *self._told()]
        if not lasting and len(lesser) == len(self.deeds.escalations[:1]):
            lesser += self._looked_up()
        return found + lesser[: LESSER if lasting else LESSER_ALONE]

    def _check(self, effect: Effect) -> tuple[Check, list[Wanted]]:
        """The check that an effect was produced, and its arguments in words."""
        source = effect.source
        state = State(self.dialogue, source.turn, source.step)
        ways = self._matching.of(effect, self.dialogue.tool(effect.tool), state)
        checks: list[Check] = [
            Called(
                effect.tool,
                {wanted.key: wanted.matcher for wanted in way},
                at_least=effect.times,
                answered=self._limits.answered(effect.tool),
            )
            for way in ways
        ]
        shown = [wanted for wanted in ways[0] if wanted.value not in (None, False, [], "") and "(" not in wanted.key]
        return (checks[0] if len(checks) == 1 else Any(checks)), shown

    def _outcome(self, effects: list[Effect], checks: list[Check], rest: Check | None) -> Item:
        done = ", ".join(f"`{name}`{f' {count} times' if count > 1 else ''}" for name, count in _tools(effects).items())
        return self._named.item(
            "outcome",
            "critical",
            "outcome",
            All([*checks, *([rest] if rest is not None else [])]),
            f"Did the run leave exactly the changes of {done} behind?",
            "Every change of the reference was made with the arguments that matter, and no other change was. The order "
            "of calls, further look-ups, attempts that failed and the wording are free.",
            [_at(effect.source) for effect in effects],
            ["a change is missing", "a change has other arguments", "something else was changed as well"],
        )

    def _effect(self, effect: Effect, check: Check, wanted: list[Wanted]) -> Item:
        times = f" {effect.times} times" if effect.times > 1 else ""
        how = with_arguments(wanted[:6])
        answer = ", without an error," if self._limits.answered(effect.tool) else ""
        return self._named.item(
            f"effect-{effect.tool}",
            "major",
            "effect",
            check,
            f"Did `{effect.tool}` take effect{times}{how}?",
            f"`{effect.tool}` is called{answer} with the same arguments, wherever in the dialogue. Case, punctuation, "
            "the order of lists and the spelling of numbers, dates and times are free; so are the assistant's own "
            "words.",
            [_at(effect.source)],
            [f"`{effect.tool}` is not called, or fails", "an argument is another one"],
        )

    def _rest(self, check: Check | None, alone: bool) -> list[Item]:
        if check is None:
            return []
        evidence = last_words(self.dialogue)
        if alone:
            return [
                self._named.item(
                    "nothing-changed",
                    "critical",
                    "no_effect",
                    check,
                    "Did the run leave everything as it was?",
                    "No call that changes anything was made with success: the reference made none. Look-ups and "
                    "attempts that failed are free.",
                    evidence,
                    ["something is changed that the reference left alone"],
                )
            ]
        return [
            self._named.item(
                "nothing-else-changed",
                "major",
                "no_other_effect",
                check,
                "Did the run leave everything else as it was?",
                "No call that changes anything was made with success more often than in the reference.",
                evidence,
                ["something else is changed", "a change is made twice"],
            )
        ]

    def _looked_up(self) -> list[Item]:
        """That a run which changes nothing did something all the same."""
        looks = [each for each in self.sources.all if each.answered and each.leaves and self._looks(each)]
        names = list(dict.fromkeys(each.tool for each in looks))
        if not names:
            return []
        calls: list[Check] = [Called(name, answered=True) for name in names]
        which = " or ".join(f"`{name}`" for name in names)
        return [
            self._named.item(
                "looked-up",
                "minor",
                "look_up",
                calls[0] if len(calls) == 1 else Any(calls),
                f"Did the assistant look anything up with {which}?",
                "One of the look-ups is called and answers without an error; with which arguments is free.",
                [_at(looks[0])],
                ["the assistant answers without having looked"],
            )
        ]

    def _looks(self, source: Source) -> bool:
        tool = self.dialogue.tool(source.tool)
        return not hands_over(source.tool) and not is_write(tool, source.tool, source.call.arguments)

    def _told(self) -> list[Item]:
        return [
            self._named.item(
                f"told-{'-'.join(words(one.name)) or 'answer'}",
                "minor",
                "told",
                one.check,
                f"Was the user told {one.what} ({one.shown})?",
                "A reply, wherever in the dialogue, states it (of several values: one of them), in any spelling.",
                [one.evidence],
                ["it is left out", "another value is stated"],
                REPLY,
            )
            for one in told(self.reading)
        ]

    def _escalated(self) -> list[Item]:
        if not self.deeds.escalations:
            return []
        names = list(dict.fromkeys(source.tool for source in self.deeds.escalations))
        calls: list[Check] = [Called(name) for name in names]
        return [
            self._named.item(
                "escalated",
                "minor",
                "escalation",
                calls[0] if len(calls) == 1 else Any(calls),
                "Was the conversation handed over with " + " or ".join(f"`{name}`" for name in names) + "?",
                "The conversation is handed to a person; what is passed on is free.",
                [_at(self.deeds.escalations[0])],
                ["the assistant keeps a conversation that belongs to a person"],
            )
        ]


def _tools(effects: list[Effect]) -> Counter[str]:
    found: Counter[str] = Counter()
    for effect in effects:
        found[effect.tool] += effect.times
    return found


def _at(source: Source) -> Evidence:
    call = source.call
    return Evidence(
        source.turn, source.step, CALLS, call_text(call.name, call.raw if call.raw is not None else call.arguments)
    )


def last_words(dialogue: Dialogue) -> list[Evidence]:
    """The last reply as evidence; nothing where there is none."""
    for t in range(len(dialogue.turns) - 1, -1, -1):
        for s in range(len(dialogue.turns[t].steps) - 1, -1, -1):
            text = dialogue.turns[t].steps[s].reply or ""
            if text.strip():
                return [Evidence(t, s, REPLY, quote(text))]
    return []
