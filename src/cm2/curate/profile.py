"""Which rules are on and how strict they are.

The method names eight rules; each has a short name that switches it, and one or two finer names under which its
findings are counted. Both are accepted wherever a rule is named. `parse`, `structure` and `limit` are always on: a row
that is no dialogue, or an absurd one, cannot be judged by any rule.

`default` suits logs of real agents; `published` is what the method's authors asked of their training data.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from cm2.errors import ConfigError

RULES = {
    "tool_schema": "a known tool, arguments that are an object with the right names and types, well-formed tools",
    "tool_schema_strict": "the rest of JSON Schema: enum, nested values, ranges, patterns, references that resolve",
    "role_order": "system, then turns of user, calls and responses, reply; the dialogue ends with a reply",
    "tool_call_response_match": "as many responses after the calls as there are calls, by id where both carry one",
    "no_tool_response_in_assistant_message": "no tool response written into an assistant message",
    "arguments_json_valid": "arguments are JSON",
    "tool_response_json_valid": "tool responses are JSON (or text, where the profile allows it)",
    "duplicate_tools_by_name": "no two tools of one name",
    "duplicate_tools_by_schema": "no tool offered twice: the same parameters, and the same name or description",
    "think_tags": "at most one <think> section, first in an assistant message, none elsewhere; exactly one if required",
    "non_empty_content": "no empty user message or reply",
}
GROUPS = {
    "schema": ("tool_schema", "tool_schema_strict"),
    "role_order": ("role_order",),
    "calls": ("tool_call_response_match",),
    "response_in_assistant": ("no_tool_response_in_assistant_message",),
    "json": ("arguments_json_valid", "tool_response_json_valid"),
    "duplicates": ("duplicate_tools_by_name", "duplicate_tools_by_schema"),
    "think": ("think_tags",),
    "empty": ("non_empty_content",),
}


class Limits(msgspec.Struct, frozen=True):
    """Sizes beyond which a row is no dialogue but an accident (or an attack)."""

    messages: int = 2_000
    """Messages of a row."""
    text: int = 1_000_000
    """Characters of one message's content."""
    depth: int = 512
    """Nesting of JSON in a tool response: what every reader down the line can still parse."""
    odd_depth: int = 100
    """Nesting that is flagged."""


class Profile(msgspec.Struct, frozen=True):
    """The rules that are on, and what they allow."""

    rules: frozenset[str] = frozenset(RULES)
    """Names from `RULES`."""
    thinking: bool = False
    """Whether every assistant message must think: right for reasoning data, wrong for most logs."""
    plain_text: bool = True
    """Whether a tool may answer in plain text."""
    greeting: bool = True
    """Whether assistant messages may stand before the first user message."""
    tools: bool = False
    """Whether a row must offer tools even where it calls none."""
    blank: bool = True
    """Whether tool responses and system messages may be empty."""
    limits: Limits = Limits()
    """Absurd sizes."""


PROFILES = {
    "default": Profile(),
    "published": Profile(thinking=True, plain_text=False, greeting=False, tools=True, blank=False),
}


def make_profile(name: str = "default", rules: Iterable[str] | None = None, without: Iterable[str] = ()) -> Profile:
    """A profile with only some rules on.

    Args:
        name: "default" or "published".
        rules: the rules (short or finer names) to keep; None keeps those of the profile.
        without: rules to switch off.

    Raises:
        ConfigError: an unknown profile or rule.
    """
    if name not in PROFILES:
        raise ConfigError(f"no profile '{name}'", fix=f"use {' or '.join(PROFILES)}")
    base = PROFILES[name]
    chosen = base.rules if rules is None else _named(rules)
    return replace(base, rules=chosen - _named(without))


def _named(names: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        if name not in GROUPS and name not in RULES:
            raise ConfigError(f"no rule '{name}'", fix=f"rules: {', '.join(GROUPS)}; finer: {', '.join(RULES)}")
        found.update(GROUPS.get(name, (name,)))
    return frozenset(found)
