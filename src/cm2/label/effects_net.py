"""Net effects: what a reference changed in the end, read from its calls.

An effect is a call that changes state (`cm2.writes`), was well-formed and was not refused. Attempts that failed
and look-ups are no effects. Of those, some do not last:

- a *setting* (update, modify, assign …) that a later one of the same thing replaces, or its opposite undoes (lock,
  unlock): only the last one lasts;
- a setting that was made twice: once is enough;
- something made and taken back within one turn, by the id that making it handed out: the assistant corrected itself,
  and neither lasts. With a word of the user in between both were wanted, and few systems forget what was cancelled.

What does not last is no duty, but it is allowed: an agent may take the reference's own detour. Handing the
conversation to a person ends it and changes nothing; it is told apart.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.dialogue import Dialogue, Tool
from cm2.judge.values import equal, scalar_text, walk
from cm2.label.arguments import is_reference
from cm2.label.sources import Source
from cm2.writes import changes_state, mode, words

_SETTING = frozenset(
    """update set modify change edit adjust rename move reschedule assign mark replace switch activate deactivate enable
    disable lock unlock block unblock mute unmute open close start stop pause resume connect disconnect subscribe
    unsubscribe turn toggle archive cancel delete""".split()  # noqa: SIM905
)
"""Verbs whose second call with the same arguments changes nothing more."""
_UNDOING = frozenset(
    "cancel delete remove revoke undo withdraw reverse discard release drop void return refund".split()  # noqa: SIM905
)
_OPPOSITES = (
    ("enable", "disable"), ("lock", "unlock"), ("block", "unblock"), ("mute", "unmute"), ("open", "close"),
    ("start", "stop"), ("pause", "resume"), ("connect", "disconnect"), ("subscribe", "unsubscribe"),
    ("activate", "deactivate"), ("on", "off"), ("archive", "unarchive"), ("add", "remove"), ("ban", "unban"),
)  # fmt: skip
_OPPOSITE = {one: other for pair in _OPPOSITES for one, other in (pair, pair[::-1])}
_PEOPLE = frozenset("human humans agent agents operator representative person supervisor".split())  # noqa: SIM905
_HANDING = frozenset("transfer escalate handoff forward connect hand".split())  # noqa: SIM905


class Effect(msgspec.Struct):
    """A call of the reference that changed something."""

    source: Source
    lasts: bool = True
    """Whether the change is still there at the end of the reference. One that is not may happen, but need not."""
    times: int = 1
    """How often exactly this was done, where doing it again does more."""

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.source.tool

    @property
    def arguments(self) -> dict[str, Any]:
        """The call's arguments."""
        found: dict[str, Any] = self.source.call.arguments
        return found


class Deeds(msgspec.Struct):
    """What a reference did that matters afterwards."""

    effects: list[Effect]
    escalations: list[Source]


def hands_over(name: str) -> bool:
    """Whether a tool hands the conversation to a person."""
    found = words(name)
    return bool(_PEOPLE & set(found)) and bool(_HANDING & set(found))


def is_write(tool: Tool | None, name: str, arguments: Any = None) -> bool:
    """Whether a call of the tool is an effect; without `arguments`, whether any call of it can be."""
    return not hands_over(name) and changes_state(tool, name, arguments)


def net(dialogue: Dialogue, sources: list[Source]) -> Deeds:
    """The effects and escalations of a reference, in order; `sources` are its calls."""
    known = {tool.name: tool for tool in dialogue.tools}
    effects: list[Effect] = []
    escalations: list[Source] = []
    for source in sources:
        if source.failed or (known and source.tool not in known):
            continue
        tool = known.get(source.tool)
        if hands_over(source.tool):
            escalations.append(source)
        elif changes_state(tool, source.tool, source.call.arguments):
            effects.append(Effect(source))
    for at, effect in enumerate(effects):
        for earlier in effects[:at]:
            if not earlier.lasts:
                continue
            if _takes_back(effect, earlier):
                earlier.lasts = effect.lasts = False
            elif _replaces(effect, earlier):
                earlier.lasts = False
    return Deeds(_counted(effects), escalations)


def _counted(effects: list[Effect]) -> list[Effect]:
    """The same effect done several times as one."""
    found: list[Effect] = []
    for effect in effects:
        same = next((each for each in found if each.lasts == effect.lasts and _same_call(each, effect)), None)
        if same is None:
            found.append(effect)
        else:
            same.times += effect.times
    return found


def _same_call(left: Effect, right: Effect) -> bool:
    return left.tool == right.tool and equal(left.arguments, right.arguments)


def sets(name: str) -> bool:
    """Whether a tool sets something: a second, equal call changes nothing more."""
    return bool(_SETTING & set(words(name)))


def _replaces(later: Effect, earlier: Effect) -> bool:
    """Whether a later setting makes an earlier one void."""
    if not sets(later.tool) or not sets(earlier.tool):
        return False
    if _same_call(later, earlier):
        return True
    if later.tool != earlier.tool:
        return _opposite(later.tool, earlier.tool) and equal(later.arguments, earlier.arguments)
    if later.arguments.keys() != earlier.arguments.keys():
        return False
    things = [key for key, value in later.arguments.items() if _names_a_thing(key, value)]
    return bool(things) and all(equal(later.arguments[key], earlier.arguments[key]) for key in things)


def _names_a_thing(key: str, value: Any) -> bool:
    """Whether an argument says which thing a setting is of. How it is paid for does not."""
    if isinstance(value, (dict, list, bool)) or value is None:
        return False
    return is_reference(key, value) and not {"payment", "pay", "card"} & set(words(key))


def _takes_back(later: Effect, earlier: Effect) -> bool:
    """Whether a later call of the same turn removes what an earlier one made: it names an id that only that answer
    told."""
    if later.source.turn != earlier.source.turn:
        return False
    if not _UNDOING & set(words(later.tool)) or later.source is earlier.source or earlier.source.response is None:
        return False
    if _UNDOING & set(words(earlier.tool)):
        return False
    return any(is_minted(value, earlier.source) for value in walk(later.arguments, keys=False))


def is_minted(value: Any, source: Source) -> bool:
    """Whether a value is an id that this answer told first: it stands there, and the call did not carry it."""
    if isinstance(value, bool) or value in (None, "") or len(scalar_text(value)) < 2:
        return False
    leaf = source.by_text.get(scalar_text(value))
    return leaf is not None and is_reference(leaf.name, leaf.value) and not source.echoes(value)


def _opposite(left: str, right: str) -> bool:
    one, other = words(left), words(right)
    if len(one) != len(other):
        return False
    changed = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return len(changed) == 1 and _OPPOSITE.get(changed[0][0]) == changed[0][1]


def doing(tool: Tool | None) -> dict[str, list[Any]]:
    """The argument, with its values, that makes a call of the tool a write; empty where every call is one."""
    choice = mode(tool)
    return {choice.argument: choice.doing} if choice is not None else {}
