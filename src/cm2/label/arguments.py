"""Arguments: which arguments of a reference call matter, and how each is matched.

| the value | is matched by |
|---|---|
| the schema's default, empty, or against the schema | not asked for |
| named by the user | its value: case and punctuation folded, numbers as numbers, dates and times in any spelling |
| an answer of an earlier call | where it came from (tool and path), whatever the value |
| free text (a message, a query, an address) | the words that it shares with the user's: see `cm2.label.worded` |
| one of the schema's choices | its value, where the user's words or the tool's mode decide it |
| one of a thing, in a count that the schema requires | 1: "a coffee" names no number |
| anything else | not asked for: nobody could know it |

Arguments inside lists and objects are matched the same way, by a JMESPath into the arguments.
"""

from __future__ import annotations

import re
from itertools import permutations
from typing import Any

import msgspec

from cm2.check import CameFrom, Contains, Equals, Matcher, Number, OneOf
from cm2.dialogue import Tool
from cm2.formats.schema import validator_of
from cm2.judge.checks import State, matches
from cm2.judge.statement import number_of
from cm2.judge.text import fold
from cm2.judge.values import argument, equal, is_number, leaves, member
from cm2.label.heard import FLAGS, Heard, content_words, spellings
from cm2.label.paths import Leaf, chosen, scalars, wide
from cm2.label.sources import Origin, Source, Sources
from cm2.label.worded import PROSE, wording
from cm2.writes import mode, words

MOST = 8
"""More matched arguments than this make a check nobody can read; the first ones are kept."""
_COUNTS = frozenset("quantity qty count amount number num".split())  # noqa: SIM905
"""What is counted by such an argument is one where nobody said a number ("a coffee")."""
_CONSTRAINT = {"operator", "value"}
_LONG = 4
_ID = re.compile(
    r"(?i)(?:^|[_\W]|(?<=[a-z])(?-i:(?=[A-Z])))(?:id|uuid|guid|token|code|ref|reference|pin|zip|phone|account|card|password)s?"
    r"(?:_?(?:number|no|code))?$"
)
_SEVERAL_WORDS = 6
_PERMUTED = 3
"""Up to so many members a list is matched as a whole, in each of its orders."""


class Wanted(msgspec.Struct):
    """One argument of a call that matters: its name or path, its matcher, and where its value came from."""

    key: str
    matcher: Matcher
    value: Any
    origin: Origin | None = None
    named: bool = False
    """Whether the user named the value in full."""


class Arguments:
    """Reads what matters in the arguments of a reference's calls.

    Args:
        heard: what the user had said.
        sources: what the tools had answered.
    """

    def __init__(self, heard: Heard, sources: Sources):
        self.heard, self.sources = heard, sources

    def of(self, source: Source, tool: Tool | None, state: State) -> list[Wanted]:
        """The arguments of a call that matter, in its own order. `state` is the reference after the call's step."""
        schema = tool.parameters if tool else {}
        listed = schema.get("required")
        required: list[str] = listed if isinstance(listed, list) else []
        choice = mode(tool)
        found: list[Wanted] = []
        for key, value in source.call.arguments.items():
            own = member(schema, key)
            if value in (None, "", [], {}) or not fits(own, value):
                continue
            if isinstance(own, dict) and "default" in own and equal(own["default"], value):
                continue
            if choice is not None and key == choice.argument:
                found.append(Wanted(key, Equals(value), value))
            elif isinstance(value, (dict, list)):
                found += self._nested(key, value, own, source)
            else:
                one = self._scalar(_key_of(key, own), key, value, own, source, key in required)
                found += [one] if one else []
        if not found:
            found = self._sole(source, schema, required)
        return [each for each in found if _holds(each, source, tool, state)][:MOST]

    def _nested(self, key: str, value: Any, schema: Any, source: Source) -> list[Wanted]:
        if isinstance(value, dict) and set(value) == _CONSTRAINT and not isinstance(value["value"], (dict, list)):
            allowed = [each for each in _constraints(schema) if fits(each, value["value"])]
            path = f"{_quoted(key)}.value || {_quoted(key)}"
            one = self._scalar(path, key, value["value"], allowed[0] if allowed else None, source, False)
            return [one] if one else []
        groups: dict[str, list[Leaf]] = {}
        for leaf in scalars(value, (key,)):
            groups.setdefault(wide(leaf.keys), []).append(leaf)
        found = []
        for path, group in groups.items():
            ones = [self._scalar(path, leaf.name, leaf.value, None, source, False) for leaf in group]
            kept = [one for one in ones if one is not None]
            if not kept:
                continue
            if "[*]" not in path:
                found.append(kept[0])
            elif all(isinstance(one.matcher, CameFrom) for one in kept):
                found += [kept[0]] if len(kept) == len(group) and len({repr(one.matcher) for one in kept}) == 1 else []
            else:
                values = [one.value for one in kept if not isinstance(one.matcher, CameFrom) and one.named]
                if values and len(values) == len(group):
                    found += _whole_list(path, values)
                elif values:
                    found.append(Wanted(path, Contains(values if len(values) > 1 else values[0]), values, named=True))
        return found

    def _scalar(self, path: str, key: str, value: Any, schema: Any, source: Source, required: bool) -> Wanted | None:
        turn = source.turn
        if isinstance(value, bool) or (isinstance(value, str) and value.lower() in FLAGS):
            return Wanted(path, Equals(value), value) if required or self.heard.flagged(key, turn) else None
        named = self.heard.named_at(value, turn) is not None
        if _is_choice(schema, value):
            decided = named or required or self._mostly_said(" ".join(words(str(value))), turn)
            return Wanted(path, Equals(value), value, named=named) if decided else None
        prose = isinstance(value, str) and (bool(PROSE & set(words(key))) or len(value.split()) > _LONG)
        if named and not prose:
            return Wanted(path, _by_value(key, value), value, named=True)
        origin = None if named else self.sources.origin(value, turn, source.step)
        if origin is not None and _tells(value):
            return Wanted(path, self._came_from(origin, value, turn), value, origin)
        if _tells(value) and not prose and self.heard.system_names(value):
            return Wanted(path, _by_value(key, value), value)
        if isinstance(value, str) and (found := self._loosely(path, key, value, named, turn)) is not None:
            return found
        one = required and not is_reference(key, value) and _COUNTS & set(words(key)) and number_of(str(value)) == 1
        return Wanted(path, Number(1), value) if one else None

    def _mostly_said(self, text: str, turn: int) -> bool:
        """Whether the user had said at least half of the words ("Southside" for "Southside Venue")."""
        subject = content_words(text)
        return bool(subject) and 2 * len(self.heard.shared(text, turn)) >= len(subject)

    def _loosely(self, path: str, key: str, value: str, named: bool, turn: int) -> Wanted | None:
        """Text in the assistant's own words: what it shares with the user's."""
        if named and len(value.split()) <= _LONG:
            return Wanted(path, Contains(value.strip()), value, named=True)
        forms = spellings(value)
        if forms:
            return Wanted(path, OneOf(list(forms), fold=True), value)
        short = self.heard.initials(value, turn)
        if short:
            return Wanted(path, OneOf([value, short], fold=True), value)
        shared = self.heard.shared(value, turn)
        matcher = wording(key, value, shared, named)
        return Wanted(path, matcher, value) if matcher is not None else None

    def _came_from(self, origin: Origin, value: Any, turn: int) -> CameFrom:
        source, keys = origin.source, origin.leaf.keys
        assert source.response is not None
        path, _ = chosen(source.value, keys, self.heard.chooser(turn), self.heard.wish(turn))
        for each in (path, wide(keys)):
            if each and leaves(source.response.content, each).hold(value):
                return CameFrom(source.tool, each)
        return CameFrom(source.tool)

    def _sole(self, source: Source, schema: Any, required: list[str]) -> list[Wanted]:
        """Where nothing else tells the call from another: a short value that it cannot do without."""
        for key in required:
            value = source.call.arguments.get(key)
            if is_number(value) and fits(member(schema, key), value):
                return [Wanted(key, Number(value), value)]
        return []


def _whole_list(path: str, values: list[Any]) -> list[Wanted]:
    """A list of which the user named every member: those and no others, in any order."""
    path = path.removesuffix("[*]")
    if len(values) > _PERMUTED:
        many = Wanted(f"length({path})", Number(len(values)), values)
        return [Wanted(path, Contains(values), values, named=True), many]
    orders: list[Any] = []
    for each in permutations(values):
        if list(each) not in orders:
            orders.append(list(each))
    matcher = OneOf(orders, fold=True) if len(orders) > 1 else Equals(orders[0], fold=True)
    return [Wanted(path, matcher, values, named=True)]


def _holds(wanted: Wanted, source: Source, tool: Tool | None, state: State) -> bool:
    value, own = argument(source.call.arguments, wanted.key, tool.parameters if tool else None)
    return matches(wanted.matcher, value, state, source.step, own)


def _by_value(key: str, value: Any) -> Matcher:
    if is_number(value):
        return Number(value)
    forms = spellings(value)
    if len(forms) > 1:
        return OneOf(list(forms), fold=True)
    number = number_of(value)
    if number is not None and not is_reference(key, value):
        return Number(int(number) if number.is_integer() else number)
    return Equals(value, fold=bool(fold(value)))


def is_reference(key: str, value: Any) -> bool:
    """Whether a value is a reference (an id, a code, a phone number) rather than an amount."""
    text = str(value)
    return bool(_ID.search(key)) or text.startswith("0") or sum(char.isdigit() for char in text) > _SEVERAL_WORDS


def _tells(value: Any) -> bool:
    """Whether where a value came from tells anything: 1 or "a" stand everywhere."""
    return len(str(value)) > 1 or (isinstance(value, str) and not value.isdigit())


def _is_choice(schema: Any, value: Any) -> bool:
    choices = schema.get("enum") if isinstance(schema, dict) else None
    if isinstance(choices, list):
        return not is_number(value)
    return any(_is_choice(each, value) for each in alternatives(schema) if fits(each, value))


def alternatives(schema: Any) -> list[Any]:
    """The schemas of an anyOf or oneOf."""
    found = (schema.get("anyOf") or schema.get("oneOf")) if isinstance(schema, dict) else None
    return found if isinstance(found, list) else []


def _key_of(key: str, schema: Any) -> str:
    """The argument's name, or a path that finds the value of a constraint object where the schema allows one."""
    return f"{_quoted(key)}.value || {_quoted(key)}" if _constraints(schema) else key


def _constraints(schema: Any) -> list[Any]:
    """The schemas of `value` in the constraint objects ({operator, value}) that a schema allows."""
    found = []
    for each in alternatives(schema):
        properties = each.get("properties") if isinstance(each, dict) else None
        if isinstance(properties, dict) and set(properties) == _CONSTRAINT:
            found.append(properties["value"])
    return found


def _quoted(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else msgspec.json.encode(key).decode()


def fits(schema: Any, value: Any) -> bool:
    """Whether a value fits its own schema (one that is absent or does not compile allows everything)."""
    if not isinstance(schema, dict) or not schema:
        return True
    try:
        validator = validator_of(msgspec.json.encode(schema))
        return validator is None or bool(validator.is_valid(value))
    except UnicodeEncodeError:  # half a surrogate pair is no text, so it fits no schema
        return False
