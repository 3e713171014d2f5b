"""Matching an effect's arguments: the same values, however they are written.

| the value | is matched by |
|---|---|
| a number | its value, a text that is this number too; cents may be rounded |
| a date or time | any usual spelling |
| a text | itself, but for case, space and punctuation; a long one that nobody had said, by a word of the user's |
| a list | the same members in any order; lists that belong together by name keep their pairs |
| an object | the same members |
| an id that an earlier change of the run handed out | where it came from: another run's differs |
| the assistant's own words (a note, a summary) | not at all: nobody can say which words are right |

What the schema has as a default, and an absent flag or list, is the same as giving it. With `ids="origin"` values that
a tool handed out are matched by where they came from altogether (`cm2.label.arguments`): for worlds whose ids differ.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any, Literal

import msgspec

from cm2.check import CameFrom, Contains, Equals, Matcher, Number, OneOf
from cm2.dialogue import Tool
from cm2.judge.checks import State, matches
from cm2.judge.statement import number_of
from cm2.judge.text import fold
from cm2.judge.values import argument, is_number, leaves, member, walk
from cm2.label.arguments import Arguments, Wanted, is_reference
from cm2.label.effects_net import Effect, is_minted
from cm2.label.heard import Heard, spellings
from cm2.label.paths import wide
from cm2.label.sources import Source, Sources
from cm2.writes import words

Ids = Literal["same", "origin"]
CENTS = 0.01
MOST_PAIRED = 3
"""Lists that belong together are held in pairs up to this length: of n members there are n! orders."""
_OWN_WORDS = frozenset(
    """message content text body note notes comment comments reason description subject title query question symptoms
    details feedback summary report instructions prompt search topic thought explanation""".split()  # noqa: SIM905
)
_LONG = 4


class Matching:
    """Makes the matchers of effects.

    Args:
        heard: what the user had said.
        sources: what the tools had answered.
        effects: all of the reference.
        ids: see the module.
    """

    def __init__(self, heard: Heard, sources: Sources, effects: list[Effect], ids: Ids):
        self.heard, self.sources, self.effects, self.ids = heard, sources, effects, ids
        self._by_origin = Arguments(heard, sources)

    def of(self, effect: Effect, tool: Tool | None, state: State) -> list[list[Wanted]]:
        """What the arguments must be: alternatives (one but for paired lists), each a list of conditions that all hold.

        `state` is the reference after the call's step.
        """
        source, schema = effect.source, tool.parameters if tool else {}
        if self.ids == "origin":
            return [self._by_origin.of(source, tool, state)]
        given = {key: value for key, value in source.call.arguments.items() if value is not None and _is_json(value)}
        paired = _paired(given)
        plain = [
            one
            for key, value in given.items()
            if key not in paired
            for one in self._argument(key, value, schema, source)
        ]
        for key in _properties(schema):
            if source.call.arguments.get(key) is None and _may_be_left_out(schema, key):
                plain.append(Wanted(key, OneOf([None, False, []]), None))
        plain = [one for one in plain if _holds(one, source, tool, state)]
        if not paired:
            return [plain]
        length = len(given[paired[0]])
        orders = [
            [
                Wanted(_key(key, schema), Equals([given[key][at] for at in order], fold=True), given[key])
                for key in paired
            ]
            for order in permutations(range(length))
        ]
        return [[*each, *plain] for each in orders]

    def _argument(self, key: str, value: Any, schema: Any, source: Source) -> list[Wanted]:
        if value is False or value in ("", [], {}):
            return [Wanted(_key(key, schema), OneOf([None, value]), value)]
        if _is_own_words(key, value):
            return []
        if isinstance(value, list):
            return self._list(key, value, schema)
        if isinstance(value, dict):
            kept = {name: each for name, each in value.items() if each is not None and not _is_own_words(name, each)}
            if set(value) == {"operator", "value"}:
                return [Wanted(f"{_quoted(key)}.value || {_quoted(key)}", _scalar(key, value["value"], None), value)]
            return [Wanted(_key(key, schema), Contains(kept), value)] if kept else []
        minted = self._minted(value, source)
        if minted is not None:
            return [Wanted(_key(key, schema), minted, value)]
        if isinstance(value, str) and len(value.split()) > _LONG and not self._known(value, source):
            loose = self._loosely(key, value, schema, source)
            if loose is not None:
                return [loose]
        return [Wanted(_key(key, schema), _scalar(key, value, member(schema, key)), value)]

    def _list(self, key: str, value: list[Any], schema: Any) -> list[Wanted]:
        count = Wanted(f"length({_quoted(key)})", Number(len(value)), value)
        members = [
            {name: one for name, one in each.items() if one is not None and not _is_own_words(name, one)}
            if isinstance(each, dict)
            else each
            for each in value
        ]
        members = [each for each in members if each not in (None, {}) and not _is_own_words("", each)]
        return [Wanted(_key(key, schema), Contains(members), value), count] if members else [count]

    def _minted(self, value: Any, source: Source) -> CameFrom | None:
        """Where an id came from that an earlier effect of the reference handed out."""
        for effect in self.effects:
            earlier = effect.source
            if (earlier.turn, earlier.step) >= (source.turn, source.step):
                break
            if not isinstance(value, (dict, list)) and earlier.answered and is_minted(value, earlier):
                leaf = earlier.find(value)
                assert leaf is not None and earlier.response is not None
                path = wide(leaf.keys)
                held = bool(path) and leaves(earlier.response.content, path).hold(value)
                return CameFrom(earlier.tool, path if held else None)
        return None

    def _known(self, value: str, source: Source) -> bool:
        """Whether the user, the system prompt or a tool had this text."""
        if self.heard.named_at(value, source.turn) is not None or self.heard.system_names(value):
            return True
        return any(each.find(value) is not None for each in self.sources.before(source.turn, source.step))

    def _loosely(self, key: str, value: str, schema: Any, source: Source) -> Wanted | None:
        """Many words that stand nowhere: the first that the user had said must be there."""
        shared = self.heard.shared(value, source.turn)
        return Wanted(_key(key, schema), Contains(shared[0]), value) if shared else None


def _scalar(key: str, value: Any, schema: Any) -> Matcher:
    if is_number(value):
        return _number(value, schema)
    if not isinstance(value, str):
        return Equals(value)
    forms = spellings(value)
    if len(forms) > 1:
        return OneOf(list(forms), fold=True)
    number = number_of(value)
    if number is not None and not is_reference(key, value):
        return _number(number, schema)
    return Equals(value, fold=bool(fold(value)))


def _number(value: float, schema: Any) -> Number:
    whole = isinstance(schema, dict) and schema.get("type") == "integer"
    return Number(value, 0.0 if whole or float(value).is_integer() else CENTS)


def _is_own_words(key: str, value: Any) -> bool:
    """Whether a text is worded by the assistant: a note by its name, or a sentence."""
    if not isinstance(value, str):
        return False
    if spellings(value):
        return False
    return bool(_OWN_WORDS & set(words(key))) or len(value.split()) > 2 * _LONG


def _is_json(value: Any) -> bool:
    """Whether a value can be written down: infinities, which some parsers let through, cannot."""
    return not any(isinstance(each, float) and not math.isfinite(each) for each in walk(value, keys=False))


def _paired(given: dict[str, Any]) -> list[str]:
    """The arguments that are lists of scalars of one length and belong together by a word of their names."""
    lists = {
        key: value
        for key, value in given.items()
        if isinstance(value, list)
        and 2 <= len(value) <= MOST_PAIRED
        and not any(each is None or isinstance(each, (dict, list)) for each in value)
    }
    for key, value in lists.items():
        stem = {word.rstrip("s") for word in words(key)}
        same = [
            other
            for other, each in lists.items()
            if other != key and len(each) == len(value) and stem & {word.rstrip("s") for word in words(other)}
        ]
        if same:
            return [key, *same]
    return []


def _properties(schema: Any) -> dict[str, Any]:
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _may_be_left_out(schema: Any, key: str) -> bool:
    """Whether an absent argument is a flag that is off or an empty list, and has no other default."""
    own = member(schema, key)
    if not isinstance(own, dict) or "default" in own:
        return False
    return own.get("type") in ("boolean", "array")


def _holds(wanted: Wanted, source: Source, tool: Tool | None, state: State) -> bool:
    value, own = argument(source.call.arguments, wanted.key, tool.parameters if tool else None)
    return matches(wanted.matcher, value, state, source.step, own)


def _key(key: str, schema: Any) -> str:
    """The argument's name, quoted where it could be read as a path."""
    return key if key.isidentifier() or member(schema, key) is not None else _quoted(key)


def _quoted(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else msgspec.json.encode(key).decode()
