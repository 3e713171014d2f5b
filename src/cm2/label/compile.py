"""Compile: from what a model proposes as a check to a `Check`, or to the reason why it is none.

The proposal comes from a model that has read hostile text, and it will run on every rollout. So its shape is held
against `cm2.check` key by key (a misspelt key would silently make it wider), its size and its paths are bounded, its
tools exist, and it looks at what the item is about. Two faults that lint cannot see, because the reference itself
passes, are refused too: values that a tool handed out and that another run will not have, and the reference's wording.

Whether the check holds where it must and fails where it must is lint's business (`cm2.label.settle`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import jmespath
import msgspec

from cm2 import check as forms
from cm2.check import Check
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.judge.checks import regex
from cm2.judge.text import fold, holds
from cm2.judge.values import is_number, member, scalar_text
from cm2.label.draft import Fault
from cm2.label.heard import Heard
from cm2.label.sources import Sources

DEEPEST = 24
"""Levels of JSON in a proposal."""
MOST_LEAVES = 24
MOST_TIMES = 20
"""Calls that a check may count: a counterexample repeats them."""
LONGEST_TEXT = 2000
LONGEST_PATH = 200
MOST_NODES = 60
OWN_WORDS = 5
"""So many words of the reference's reply in a row are its wording, not a fact."""
_LOOKS_AT: dict[str, tuple[type, ...]] = {
    "assistant.tool_calls": (forms.Called, forms.NotCalled, forms.Response),
    "assistant.content.user_visible_reply": (forms.Reply,),
    "tool.content": (forms.Response, forms.Called),
    "assistant.content.thinking": (),
}
_SELECTS = frozenset({"multi_select_list", "multi_select_dict"})
_Leaf = forms.Called | forms.NotCalled | forms.Response | forms.Reply


class Compiler:
    """Compiles the proposals about one reference.

    Args:
        dialogue: the reference.
    """

    def __init__(self, dialogue: Dialogue):
        self.dialogue = dialogue
        self._heard, self._sources = Heard(dialogue), Sources(dialogue)
        self._tools = {tool.name for tool in dialogue.tools} | {call.name for *_, call, _ in dialogue.calls()}

    def compile(self, given: Any, turn: int, focus: str) -> Check | Fault | None:
        """The check; None where none is proposed; a `Fault` that says why it cannot be one.

        Args:
            given: a JSON value, or its text.
            turn: which turn the item is about.
            focus: what the item focuses on.
        """
        if isinstance(given, str):
            if not given.strip():
                return None
            try:
                given = msgspec.json.decode(given)
            except (msgspec.DecodeError, RecursionError) as error:
                return Fault("form", f"the check is no JSON: {error}")
        if given is None or given == {}:
            return None
        if _depth(given) > DEEPEST:
            return Fault("bounds", "the check is nested too deeply; a few leaves must do")
        try:
            check: Check = msgspec.convert(given, Check)
        except msgspec.ValidationError as error:
            return Fault("form", f"the check is not as it should be: {error}")
        unknown = next(_unknown(given, check, "check"), None)
        if unknown is not None:
            return Fault("form", f"the check has an unknown key: {unknown}")
        leaves: list[_Leaf] = []
        for leaf in forms.leaves(check):
            if isinstance(leaf, forms.Expression):
                told = "an expression is a policy's; lint could not show what it misses: use the other forms"
                return Fault("form", told)
            leaves.append(leaf)
        for reason, found in (
            ("bounds", _too_much(leaves)),
            ("tool", self._unknown_tool(leaves)),
            ("focus", _elsewhere(leaves, focus)),
            ("hard_coded", self._hard_coded(leaves, turn)),
            ("wording", self._own_wording(leaves, turn)),
        ):
            if found:
                return Fault(reason, found)
        return check

    def _unknown_tool(self, leaves: list[_Leaf]) -> str:
        for leaf in leaves:
            if isinstance(leaf, forms.Reply):
                named = [fact.tool for fact in [*leaf.states, *leaf.never] if fact.tool is not None]
            else:
                named = [*leaf.tools] if isinstance(leaf, forms.NotCalled) else [leaf.tool]
                named += [m.tool for m in _matchers(leaf) if isinstance(m, forms.CameFrom) and m.tool is not None]
            missing = next((name for name in named if name not in self._tools), None)
            if missing is not None:
                return f"the dialogue has no tool {missing!r}"
        return ""

    def _hard_coded(self, leaves: list[_Leaf], turn: int) -> str:
        """What a tool handed out, asked for by its value."""
        for leaf in leaves:
            if isinstance(leaf, forms.Reply):
                for fact in leaf.states:
                    for value in fact.any_of if fact.tool is None and fact.path is None else ():
                        if self._handed_out(value, turn):
                            return (
                                f"the fact {value!r} was handed out by a tool and another run will not have it; "
                                'give its "tool" and "path"'
                            )
                continue
            for key, matcher in leaf.arguments.items():
                for value in _literals(matcher):
                    if self._handed_out(value, turn) and not self._chosen(leaf, key, value):
                        return (
                            f"argument {key} asks for {value!r}, which a tool gave and another run will not have; "
                            'match it by {"op": "came_from"}'
                        )
        return ""

    def _handed_out(self, value: Any, turn: int) -> bool:
        """Whether a value with a digit in it stood in a tool's response and was named by nobody before."""
        text = scalar_text(value) if is_number(value) else value
        if not isinstance(text, str) or len(text) < 2 or " " in text or not any(map(str.isdigit, text)):
            return False
        if self._heard.named_at(value, turn) is not None or self._heard.system_names(value):
            return False
        return self._sources.origin(value, turn, len(self.dialogue.turns[turn].steps)) is not None

    def _chosen(self, leaf: _Leaf, key: str, value: Any) -> bool:
        """Whether the argument's schema lists the value: a choice, not an id."""
        tool = self.dialogue.tool(leaf.tool) if isinstance(leaf, (forms.Called, forms.Response)) else None
        schema = member(tool.parameters, key) if tool is not None else None
        choices = schema.get("enum") if isinstance(schema, dict) else None
        return isinstance(choices, list) and value in choices

    def _own_wording(self, leaves: list[_Leaf], turn: int) -> str:
        said = fold(self.dialogue.turns[turn].reply or "")
        for leaf in leaves:
            if not isinstance(leaf, forms.Reply):
                continue
            branches = [] if leaf.pattern is None else leaf.pattern.split("|")
            texts = [re.sub(r"\\.|[^\w\s']", " ", branch) for branch in branches]
            texts += [str(value) for fact in leaf.states if fact.tool is None for value in fact.any_of]
            for text in texts:
                words = fold(text).split()
                runs = (" ".join(words[at : at + OWN_WORDS]) for at in range(len(words) - OWN_WORDS + 1))
                if any(holds(said, run) for run in runs):
                    return "it asks for the reference's own wording; ask for the facts in it"
        return ""


def _depth(value: Any) -> int:
    """How many levels a JSON value has, without recursion."""
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        deepest += 1
        inner: list[Any] = []
        for each in level:
            inner += each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
        level = inner
    return deepest


def _unknown(given: Any, parsed: Any, place: str) -> Iterator[str]:
    """Keys that were given and that the parsed Struct does not have; free JSON values are not looked into."""
    if isinstance(parsed, msgspec.Struct):
        fields = dict(zip(parsed.__struct_encode_fields__, parsed.__struct_fields__, strict=True))
        tag = parsed.__struct_config__.tag_field
        for key, value in given.items():
            if key in fields:
                yield from _unknown(value, getattr(parsed, fields[key]), f"{place}.{key}")
            elif key != tag:
                yield f"{place}.{key} (it takes {', '.join(fields)})"
    elif isinstance(parsed, list) and parsed and isinstance(parsed[0], msgspec.Struct):
        for number, (one, each) in enumerate(zip(given, parsed, strict=True)):
            yield from _unknown(one, each, f"{place}[{number}]")
    elif isinstance(parsed, dict) and any(isinstance(value, msgspec.Struct) for value in parsed.values()):
        for key, each in parsed.items():
            yield from _unknown(given[key], each, f"{place}.{key}")


def _matchers(leaf: _Leaf) -> list[forms.Matcher]:
    if isinstance(leaf, forms.Reply):
        return []
    return [*leaf.arguments.values(), *([leaf.match] if isinstance(leaf, forms.Response) else [])]


def _literals(matcher: forms.Matcher) -> list[Any]:
    if isinstance(matcher, forms.OneOf):
        return matcher.values
    return [matcher.value] if isinstance(matcher, forms.Equals | forms.Contains) else []


def _too_much(leaves: list[_Leaf]) -> str:
    """What is out of bounds, or does not parse, in the leaves of a check."""
    if len(leaves) > MOST_LEAVES:
        return f"the check has {len(leaves)} conditions, at most {MOST_LEAVES} are allowed"
    for leaf in leaves:
        paths: list[str] = []
        patterns: list[str] = []
        keys: list[str] = []  # names, or paths into the arguments
        if isinstance(leaf, forms.Called):
            most = leaf.at_most
            if not 0 <= leaf.at_least <= MOST_TIMES or (most is not None and not leaf.at_least <= most <= MOST_TIMES):
                return f"at_least and at_most count from 0 to {MOST_TIMES}, the first not above the second"
        if isinstance(leaf, forms.Reply):
            facts = [*leaf.states, *leaf.never]
            paths += [fact.path for fact in facts if fact.path is not None]
            patterns += [leaf.pattern] if leaf.pattern is not None else []
            count, texts = len(facts), [str(value) for fact in facts for value in fact.any_of]
        else:
            matchers = _matchers(leaf)
            if any(
                isinstance(each, forms.Number) and not (math.isfinite(each.value) and 0 <= each.tolerance < math.inf)
                for each in matchers
            ):
                return "a number and its tolerance are finite, the tolerance not below 0"
            paths += [each.path for each in matchers if isinstance(each, forms.CameFrom) and each.path is not None]
            paths += [leaf.path] if isinstance(leaf, forms.Response) and leaf.path is not None else []
            keys = [key for key in leaf.arguments if not key.isidentifier()]
            patterns += [each.pattern for each in matchers if isinstance(each, forms.Pattern)]
            names = leaf.tools if isinstance(leaf, forms.NotCalled) else [leaf.tool]
            count, texts = len(matchers) + len(names), [str(each) for each in matchers]
        if count > MOST_TIMES or any(len(text) > LONGEST_TEXT for text in [*texts, *patterns]):
            return f"a condition has at most {MOST_TIMES} parts of at most {LONGEST_TEXT} characters"
        found = [*map(_bad_path, paths), *(_bad_path(key, name=True) for key in keys), *map(_bad_pattern, patterns)]
        for wrong in filter(None, found):
            return wrong
    return ""


def _bad_path(path: str, name: bool = False) -> str:
    """What is wrong with a JMESPath. Multi-selects are refused: piped into each other they multiply without bound.

    With `name` it may as well be the plain name of an argument, which need not be a path.
    """
    if len(path) > LONGEST_PATH:
        return f"a path has at most {LONGEST_PATH} characters"
    try:
        tree = jmespath.compile(path).parsed
    except (jmespath.exceptions.JMESPathError, ValueError, RecursionError) as error:
        return "" if name else f"{path!r} is no JMESPath: {str(error).splitlines()[0]}"
    nodes, open_ = 0, [tree]
    while open_:
        node = open_.pop()
        nodes += 1
        many = node["type"] in _SELECTS and len(node["children"]) > 1
        if many or nodes > MOST_NODES:
            return f"{path!r} is too much for a path: name one value, or a list by [*]"
        open_ += [child for child in node["children"] if isinstance(child, dict)]
    return ""


def _bad_pattern(pattern: str) -> str:
    try:
        regex(pattern)
    except DataError as error:
        return error.message
    return ""


def _elsewhere(leaves: list[_Leaf], focus: str) -> str:
    """Why the check cannot be about what the item focuses on."""
    wanted = _LOOKS_AT.get(focus, ())
    if not wanted:
        return "thinking cannot be checked by code; give no check"
    if not any(isinstance(leaf, wanted) for leaf in leaves):
        return f"the item focuses on {focus}, and no condition of the check looks there"
    return ""
