"""Hints: what a service's answer never says and a helpful language model likes to add.

A simulator that says "try find_bookings first" teaches the agent what it should find out; one that apologises or writes
Markdown teaches it a world that does not exist. An answer is refused when it holds

- advice to whoever called (you should, try, use, call, make sure …), in an error too;
- the name of another tool;
- Markdown (code fences, headings, bold), or words of a chat (as an AI, the assistant, the user asked);
- a word that shows the stage (simulated, placeholder, as an example).

Only where a service speaks (an error, an answer in plain text, fields like `message` or `note`) is it read so: a film
may be called "I'm Not There", a mail may say please. Other tools' names are looked for everywhere.

What the recorded answers of the same tool, or any recorded error, do themselves is the service's own style and allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from cm2.judge.values import walk

_KINDS: dict[str, re.Pattern[str]] = {
    "gives advice": re.compile(
        r"(?i)\b(?:you (?:should|could|can|may|might|must|need|have to|want to)|please\b|try\b|consider \w+ing"
        r"|make sure|be sure|ensure (?:that|you)|instead,|next,? (?:call|use|step)"
        r"|(?:hint|tip|suggestion|instructions?)\s*:"
        r"|(?:call|use|invoke|run) (?:the |this )?[\w ]{0,30}(?:tool|function|endpoint|api)\b|do not forget"
        r"|remember to)"
    ),
    "holds Markdown": re.compile(r"```|\*\*\S|^#{1,6} \S|^\s*[-*] \S.*\n\s*[-*] \S", re.M),
    "talks like a chat": re.compile(
        r"(?i)\bas an ai\b|\blanguage model\b|\bI(?:'m| am| cannot| can't| will| have)\b|\bsure[,!] "
        r"|\bthe (?:assistant|agent|user|caller) (?:should|must|asked|wants|can|may|needs)\b"
        r"|\bhere (?:is|are) the\b|\bsystem prompt\b"
    ),
    "shows that it is made up": re.compile(
        r"(?i)\b(?:simulat(?:ed|ion|or|ing)|placeholder|lorem ipsum|mock(?:ed)? (?:data|response)|dummy|hypothetical"
        r"|for illustration|made[- ]up|fictional|according to the (?:examples?|recorded))\b"
    ),
}
_SPEAKING_KEYS = frozenset(
    """message msg note notes detail details error errors exception reason info information warning warnings help
    remark remarks status_message error_message comment""".split()  # noqa: SIM905
)
_ADVISING_KEYS = frozenset(("hint", "hints", "tip", "tips", "suggestion", "suggestions", "advice", "explanation"))
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_.\-][A-Za-z0-9]+)+|[A-Za-z]+[A-Z][A-Za-z0-9]*")


class Hints:
    """What one tool's answers may not hold.

    Args:
        tool: its name.
        tools: the names of all tools.
        recorded: answers whose habits are the service's own.
    """

    def __init__(self, tool: str, tools: Iterable[str], recorded: Iterable[str]):
        self.tool, self._tools, self._recorded = tool, tools, list(recorded)

    def found(self, answer: Any, error: bool = False) -> str:
        """What is wrong with an answer (a JSON value), as a sentence to its author; "" where nothing is."""
        for text in [answer] if isinstance(answer, str) else walk(answer, keys=False) if error else _spoken(answer):
            for what, pattern in _KINDS.items():
                hit = pattern.search(text) if isinstance(text, str) else None
                if hit is not None and not self._usual(what):
                    return _told(what, hit[0])
        for text in walk(answer, keys=False):
            for name in _IDENTIFIER.findall(text) if isinstance(text, str) else ():
                if name != self.tool and name in self._names and not any(name in one for one in self._recorded):
                    return _told("names another tool", name)
        for key in _keys(answer):
            if key.lower() in _ADVISING_KEYS and not any(f'"{key}"' in one for one in self._recorded):
                return _told("gives advice", key)
        return ""

    def _usual(self, what: str) -> bool:
        return any(_KINDS[what].search(one) for one in self._recorded)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._tools)


def _told(what: str, quote: str) -> str:
    return (
        f"The answer {what} ({quote.strip()[:60]!r}). The service answers with data only: no advice, no hints, no "
        "explanations, no names of tools. Leave that out."
    )


def _spoken(value: Any) -> Iterable[Any]:
    """The scalars in fields where a service speaks."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, keys=False) if key.lower() in _SPEAKING_KEYS else _spoken(item)
    elif isinstance(value, list):
        for item in value:
            yield from _spoken(item)


def _keys(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)
