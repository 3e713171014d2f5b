"""Faithful: whether a shorter text may take the place of a thinking section.

Two questions, both answered by code. What the step goes on to do must still stand there: the tools that it calls, the
values that it passes, the numbers that its reply states, as far as the section named them. And nothing may have come
in: no number, id, tool, quotation or name that stood neither in the section nor in what the agent had seen and does in
this step. What tools answer later is not among that, or the agent would know the future.

It errs on the side of the original: a faithful text that is refused costs some tokens, an unfaithful one that passes
teaches a wrong reason. What it cannot see is a changed meaning made of known words ("cheaper" for "dearer").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cm2.curate.saying import (
    Saying,
    capitals,
    figures,
    fold,
    holds,
    identifiers,
    is_opener,
    leaves,
    number,
    numbers,
    quotations,
    tokens,
)
from cm2.dialogue import Dialogue, Step

FAULTS = {
    "empty": "nothing is left",
    "markup": "tags, markers or control tokens came in",
    "not_shorter": "it is not shorter",
    "lost_tool": "a tool that is called next is no longer named",
    "lost_value": "a value that the call or reply needs is gone",
    "lost_number": "a number that the call or reply needs is gone",
    "new_tool": "a tool is named that was not",
    "new_number": "a number came in",
    "new_id": "an id or identifier came in",
    "new_quote": "a quotation came in",
    "new_name": "a name came in",
    "evidence": "a checklist quotes what is gone",
    "place": "the messages that it was read from cannot hold it",
}
"""Why a section stays as it was."""
_MARKUP = ("<think", "</think", "<tool_call", "</tool_call", "<|", "|>", "<<<", ">>>", "\n| ")


class Known:
    """What the agent has seen and said so far; it grows with the dialogue."""

    def __init__(self, dialogue: Dialogue):
        self.said = Saying()
        self.called: set[str] = set()
        """Tools that were called."""
        self.offered = {tool.name for tool in dialogue.tools if tool.name}
        for tool in dialogue.tools:
            self.said.add(tool.description)
            for leaf in leaves(tool.parameters, keys=True):
                self.said.add(str(leaf))
        self.said.add(dialogue.system or "")

    def user(self, text: str) -> None:
        """The user said something."""
        self.said.add(text)

    def act(self, step: Step) -> None:
        """The agent did something: called, replied, thought."""
        self.said.add(step.reply or "")
        for call in step.calls:
            self.called.add(call.name)
            for leaf in leaves(call.arguments, keys=True):
                self.said.add(str(leaf))
            self.said.add(call.raw or "")

    def think(self, text: str) -> None:
        """A thinking section that is over."""
        self.said.add(text)
        self.called |= {name for name in self.offered if holds(text, name)}

    def answer(self, step: Step) -> None:
        """Tools answered."""
        for response in step.responses:
            self.said.add(response.content)
            if "\\" in response.content:  # escapes hide what a reader of the JSON sees
                for leaf in leaves(response.value, keys=True):
                    self.said.add(str(leaf))


def fault(original: str, text: str, step: Step, known: Known, count: Callable[[str], int] = len) -> str:
    """Why the text may not take the original's place, one of `FAULTS`; "" where it may.

    Args:
        original: the section as it was.
        text: the shorter one.
        step: the step that it stands in.
        known: what was seen before the step, and what the step does (`act`).
        count: the length of a text, when characters do not tell.
    """
    if not text.strip():
        return "empty"
    if any(mark in text and mark not in original for mark in _MARKUP) or text.startswith("| "):
        return "markup"
    if len(text) >= len(original) or count(text) >= count(original):
        return "not_shorter"
    return _lost(original, text, step) or _new(original, text, known)


def _lost(original: str, text: str, step: Step) -> str:
    """What the step needs, and the section said, and the text does not."""
    stood, stand = figures(original), figures(text)

    def gone(value: Any) -> str:
        figure = number(value)
        if figure is not None:
            return "lost_number" if figure in stood and figure not in stand else ""
        return "lost_value" if isinstance(value, str) and holds(original, value) and not holds(text, value) else ""

    if any(holds(original, call.name) and not holds(text, call.name) for call in step.calls):
        return "lost_tool"
    needed = [leaf for call in step.calls for leaf in leaves(call.arguments)]
    needed += [token for token in tokens(step.reply or "") if any(map(str.isdigit, token))]
    return next(filter(None, map(gone, needed)), "")


def _new(original: str, text: str, known: Known) -> str:
    """What the text says and neither the section nor anything before it, or in the step, said."""
    here = Saying()
    here.add(original)
    both = (here, known.said)
    strange = known.offered - known.called
    if any(_names(text, name) and not holds(original, name) for name in strange):
        return "new_tool"
    if numbers(text) - here.figures - known.said.figures:
        return "new_number"
    if any(id not in known.offered and not any(said.has_identifier(id) for said in both) for id in identifiers(text)):
        return "new_id"
    tools = set(map(fold, known.offered))
    if any(fold(quoted) not in tools and not any(said.has(quoted) for said in both) for quoted in quotations(text)):
        return "new_quote"
    for word, opens in capitals(text):
        familiar = opens and (is_opener(word) or any(said.has_stem(word) for said in both))
        if not familiar and not any(said.has_name(word) for said in both):
            return "new_name"
    return ""


def _names(text: str, tool: str) -> bool:
    """Whether a text names a tool. A name that is an ordinary word is meant only where it is marked as a name."""
    if not tool.isalpha() or not tool.islower():
        return holds(text, tool)
    word = re.escape(tool)
    return (
        re.search(rf"[`\"'“]{word}[`\"'”]|\b{word}\(|\b{word} (?:tool|function|api)\b", text, re.IGNORECASE) is not None
    )
