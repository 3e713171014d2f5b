"""Which calls change the world, read from what a tool is called and says of itself.

A tool changes state when its name opens with (or holds) a verb of doing rather than of looking. Nouns that look like
such verbs (`order` in `get_order`, `book` in `book_search`) lose against a verb of looking beside them. Some tools do
both, chosen by an argument (`RequestType: Check | Book`): there the call decides, not the tool.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from cm2.dialogue import Tool

_DOING = frozenset(
    """accept activate add adjust allocate allow append apply approve archive assign authorize ban block book buy call
    cancel change charge checkin checkout claim clean cleanup clear close comment commit complete confirm connect cp
    create deactivate decline decrease delete deny deploy deposit disable discard disconnect dispatch donate drop
    edit email enable end erase escalate exchange execute extend file fill finalize finish flag follow forward fund
    give grant hire increase initiate insert install invite issue join kill leave lend like link lock log login
    logout mail make mark merge mkdir modify move mute mv open order park pause pay pick pin place play post power
    press print publish purchase put reactivate rebook record redeem refill refuel refund register reject release
    remove rename renew rent reorder replace reply report request reschedule reserve reset resolve restart restore
    resume return retweet revoke ride rm rmdir rsvp save schedule sell send set share ship sign skip start stop store
    submit subscribe swap switch tag text top touch transfer trigger turn unarchive unfollow uninstall unlock unmute
    unpark unpin unsubscribe update upgrade upload use waive wipe wire withdraw write""".split()  # noqa: SIM905
)
# Verbs of doing that are as often nouns.
_NOUNS = frozenset(
    """book order schedule report request post play return change record transfer mail text log call file place share
    store like link sign ship top ride power print charge exchange claim use end start drop park leave flag comment
    email fund pin press touch""".split()  # noqa: SIM905
)
_LOOKING = frozenset(
    """analyze ask browse calculate check classify compare compute convert count describe detect determine discover
    display estimate evaluate exists explain extract fetch find forecast format generate get has identify info inspect
    is list locate look lookup measure monitor parse plan predict preview query quote rank read recommend retrieve
    scan search see show solve status suggest summarize think track translate validate verify view""".split()  # noqa: SIM905
)
# Names that are a deed as a noun ("AppointmentRegistration"), where no verb says otherwise.
_DEEDS = frozenset("registration booking reservation cancellation payment purchase subscription".split())  # noqa: SIM905
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> list[str]:
    """The lower-case words of an identifier: `Alarm_1_GetAlarms` is alarm, get, alarms."""
    return [word.lower() for word in _WORD.findall(name)]


@lru_cache(maxsize=8192)
def verb_kind(text: str) -> str:
    """ "doing", "looking" or "" for an identifier or the opening words of a description."""
    found = words(text)
    doing = next((i for i, word in enumerate(found) if word in _DOING), None)
    looking = next((i for i, word in enumerate(found) if word in _LOOKING), None)
    if doing is None and looking is None:
        return "doing" if found and found[-1] in _DEEDS else ""
    if doing is None:
        return "looking"
    if looking is None:
        return "doing"
    if found[doing] in _NOUNS:
        return "looking"
    return "doing" if doing < looking else "looking"


class Mode(msgspec.Struct, frozen=True):
    """An argument that chooses between looking and doing: the values of each."""

    argument: str
    doing: list[Any]
    looking: list[Any]


def mode(tool: Tool | None) -> Mode | None:
    """The argument of a tool that chooses between looking and doing, where it has one."""
    properties = tool.parameters.get("properties") if tool is not None else None
    for name, schema in (properties or {}).items() if isinstance(properties, dict) else ():
        values = schema.get("enum") if isinstance(schema, dict) else None
        if not isinstance(values, list) or not 2 <= len(values) <= 6:
            continue
        kinds = [verb_kind(value) if isinstance(value, str) and len(value) < 24 else "" for value in values]
        if "doing" in kinds and "looking" in kinds:
            doing = [value for value, kind in zip(values, kinds, strict=True) if kind == "doing"]
            return Mode(name, doing, [value for value in values if value not in doing])
    return None


def changes_state(tool: Tool | None, name: str, arguments: Any = None) -> bool:
    """Whether a call of the tool changes the world; without `arguments`, whether any call of it can."""
    choice = mode(tool)
    if choice is not None:
        return not isinstance(arguments, dict) or arguments.get(choice.argument) in choice.doing
    kind = verb_kind(name)
    if not kind and tool is not None and tool.description:
        kind = verb_kind(" ".join(tool.description.split()[:2]))
    return kind == "doing"
