"""Forbidden: the writes that a turn of the reference leaves undone, as checks."""

from __future__ import annotations

from cm2.check import Check, NotCalled, OneOf
from cm2.label.phrases import label, listed, shown
from cm2.label.reading import Deed, Reading
from cm2.writes import changes_state, mode, words

MOST = 6
_PEOPLE = frozenset("human humans agent agents operator representative person".split())  # noqa: SIM905


def forbidden(reading: Reading, turn: int, refused: bool = False) -> list[Check]:
    """What may not be called in a turn that changed nothing: the writes of later turns, which would come too early;
    where there are none, the writes that belong to the same things as the turn's look-ups.

    Where the request was `refused`, or nothing was looked up, any write would be wrong.
    """
    later = list(dict.fromkeys(deed.source.tool for deed in reading.writes_after(turn)))
    kindred = _kindred(reading, turn)
    every = [
        tool.name for tool in reading.dialogue.tools if changes_state(tool, tool.name) and not _hands_over(tool.name)
    ]
    return not_called(reading, list(dict.fromkeys([*later, *kindred, *every])) if refused else later or kindred)


def not_called(reading: Reading, names: list[str]) -> list[Check]:
    """The checks that none of the tools was called to change something."""
    plain: list[str] = []
    found: list[Check] = []
    for name in names[:MOST]:
        choice = mode(reading.dialogue.tool(name))
        if choice is None:
            plain.append(name)
        else:
            found.append(NotCalled([name], {choice.argument: OneOf(choice.doing)}))
    return [NotCalled(plain), *found] if plain else found


def in_words(checks: list[Check]) -> str:
    """The tools of such checks, in words: "`book` or `pay`"."""
    return listed(
        (f"`{name}`{_doing(check)}" for check in checks if isinstance(check, NotCalled) for name in check.tools), "or"
    )


def _doing(check: NotCalled) -> str:
    """The mode that is forbidden, where only that is."""
    modes = [(label(key), matcher.values) for key, matcher in check.arguments.items() if isinstance(matcher, OneOf)]
    return "".join(f" with {name} {listed(map(shown, values), 'or')}" for name, values in modes)


def _kindred(reading: Reading, turn: int) -> list[str]:
    deeds: list[Deed] = [deed for deed in reading.deeds if deed.source.turn == turn]
    subject = {word.rstrip("s") for deed in deeds for word in words(deed.source.tool)}
    found = []
    for tool in reading.dialogue.tools:
        own = {word.rstrip("s") for word in words(tool.name)}
        if changes_state(tool, tool.name) and not _hands_over(tool.name) and (not deeds or own & subject):
            found.append(tool.name)
    return found


def _hands_over(name: str) -> bool:
    """Whether a tool hands the conversation to a person, which is no change and often right."""
    return bool(_PEOPLE & set(words(name)))
