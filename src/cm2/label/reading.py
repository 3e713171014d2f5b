"""Reading: a reference as a labeller understands it, before any item is written.

For every call that worked: the arguments that matter, whether it changed something, and who used its answer. A read is
needed when a later call or reply uses its answer, or when it is the turn's last word from its tool; a failed, malformed
or repeated call is not, and a setting that the reference itself replaced in the same turn is not either.
"""

from __future__ import annotations

import msgspec

from cm2.dialogue import Dialogue
from cm2.judge.checks import State
from cm2.label.arguments import Arguments, Wanted
from cm2.label.facts import Facts, Stated
from cm2.label.heard import Heard
from cm2.label.paths import Leaf
from cm2.label.sources import Source, Sources
from cm2.writes import changes_state, words

_SETTING = frozenset("update set modify change edit adjust".split())  # noqa: SIM905


class Deed(msgspec.Struct):
    """A call of the reference that worked (or, where `rejected`, failed for good and was reported so)."""

    source: Source
    wanted: list[Wanted]
    write: bool
    rejected: bool = False
    used: list[tuple[int, Leaf, str | None]] = []
    """Who used its answer: (turn, the value, the path that finds it)."""

    @property
    def key(self) -> str:
        """What names the call among the candidates of its turn."""
        return f"call {self.source.step} {self.source.index}"


class Reading:
    """See the module.

    Args:
        dialogue: the reference.
    """

    def __init__(self, dialogue: Dialogue):
        self.dialogue = dialogue
        self.heard, self.sources = Heard(dialogue), Sources(dialogue)
        arguments = Arguments(self.heard, self.sources)
        facts = Facts(self.heard, self.sources)
        self.deeds: list[Deed] = []
        self.facts: list[list[Stated]] = []
        for t, turn in enumerate(dialogue.turns):
            state = State(dialogue, t, len(turn.steps) - 1)
            mine = self.sources.of(t)
            for source in mine:
                rejected = _rejected(source, mine)
                if self._worked(source) or rejected:
                    tool = dialogue.tool(source.tool)
                    wanted = arguments.of(source, tool, state)
                    write = changes_state(tool, source.tool, source.call.arguments)
                    self.deeds.append(Deed(source, wanted, write, rejected))
            self.facts.append(facts.of(state))
        self._note_uses()

    def _worked(self, source: Source) -> bool:
        known = not self.dialogue.tools or self.dialogue.tool(source.tool) is not None
        return known and not source.failed

    def _note_uses(self) -> None:
        by_source = {id(deed.source): deed for deed in self.deeds}
        for deed in self.deeds:
            for wanted in deed.wanted:
                origin = wanted.origin
                if origin is not None and id(origin.source) in by_source:
                    path = getattr(wanted.matcher, "path", None)
                    by_source[id(origin.source)].used.append((deed.source.turn, origin.leaf, path))
        for t, facts in enumerate(self.facts):
            for stated in facts:
                if id(stated.source) in by_source:
                    by_source[id(stated.source)].used.append((t, stated.leaf, stated.fact.path))

    def of(self, turn: int) -> list[Deed]:
        """The deeds of a turn that were needed, in order."""
        mine = [deed for deed in self.deeds if deed.source.turn == turn]
        kept: list[Deed] = []
        for at, deed in enumerate(mine):
            later = [each for each in mine[at + 1 :] if each.source.tool == deed.source.tool]
            if any(
                each.source.call.arguments == deed.source.call.arguments
                for each in kept
                if each.source.tool == deed.source.tool
            ):
                continue
            if deed.write:
                if not any(_replaces(each, deed) for each in later):
                    kept.append(deed)
            elif deed.used or not later or self._asked_apart(deed, later):
                kept.append(deed)
        return kept

    def _asked_apart(self, deed: Deed, later: list[Deed]) -> bool:
        """Whether an unused read answers another question of the user than the later ones of its tool."""
        if deed.source.empty:
            return False
        own = {wanted.key: wanted.value for wanted in deed.wanted if wanted.named}
        others = [{wanted.key: wanted.value for wanted in each.wanted} for each in later]
        return all(any(own[key] != other.get(key) for key in own) for other in others)

    def writes_after(self, turn: int) -> list[Deed]:
        """The writes of later turns."""
        return [deed for deed in self.deeds if deed.write and deed.source.turn > turn]


def _rejected(source: Source, mine: list[Source]) -> bool:
    """Whether a well-formed call failed and nothing of its tool worked in the turn: the refusal is the outcome."""
    if not source.call.valid or source.response is None or not source.failed:
        return False
    same = [each for each in mine if each.tool == source.tool]
    return source is same[-1] and all(each.failed for each in same) and source is mine[-1]


def _replaces(later: Deed, deed: Deed) -> bool:
    """Whether a later setting of the same things replaces this one."""
    if not _SETTING & set(words(deed.source.tool)):
        return False
    same = {wanted.key for wanted in deed.wanted if wanted.origin is not None or wanted.named}
    first, second = deed.source.call.arguments, later.source.call.arguments
    return first.keys() == second.keys() and all(first.get(key) == second.get(key) for key in same if key in first)
