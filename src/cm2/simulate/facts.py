"""Facts: what an answer says, about which thing.

The leaves of an answer are filed under their owner (the nearest object's id, else the id that the call names, else the
call itself) and the path from there. So the same fact is the same wherever it stands: in a search, in the details, in
whatever order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cm2.dialogue import ToolCall
from cm2.judge.values import equal, scalar_text
from cm2.simulate.mint import is_id_name
from cm2.simulate.replay import call_key

Place = tuple[str, str]
Facts = dict[Place, Any]


def facts_of(call: ToolCall, value: Any) -> Facts:
    """The leaves of an answer to a call, by owner and path; null is one."""
    return dict(_leaves(value, _subject(call), ()))


def told_by(call: ToolCall, value: Any) -> Facts:
    """What a successful write says beside its answer: its arguments hold of what it made, or of what it names."""
    made = _own(value) if isinstance(value, dict) else ""
    owner = made or _subject(call)
    arguments = call.arguments if isinstance(call.arguments, dict) else {}
    return {(owner, name): given for name, given in arguments.items() if not isinstance(given, (dict, list))}


def owners(facts: Facts) -> set[str]:
    """The things that an answer speaks of."""
    return {owner for owner, _ in facts}


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The value with every text that has another name by that name."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def new_names(true: Any, told: Any, is_new: Callable[[str], bool], names: dict[str, str]) -> None:
    """Note what two answers to one write call the same new thing: an id that the truth hands out and nobody knew."""
    if isinstance(true, dict) and isinstance(told, dict):
        for key in true.keys() & told.keys():
            new_names(true[key], told[key], is_new, names)
    elif isinstance(true, list) and isinstance(told, list):
        for one, other in zip(true, told, strict=False):
            new_names(one, other, is_new, names)
    elif isinstance(true, str) and isinstance(told, str) and true != told and _is_code(true) and is_new(true):
        names[true] = told


def same(one: Any, other: Any) -> bool:
    """Whether two leaves say the same; spelling of text counts."""
    return equal(one, other)


def _leaves(value: Any, owner: str, path: tuple[str, ...]) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, dict):
        own = _own(value)
        owner, path = (own, ()) if own else (owner, path)
        for key, item in value.items():
            yield from _leaves(item, owner, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, owner, (*path, str(index)))
    else:
        yield (owner, ".".join(path)), value


def _own(value: dict[str, Any]) -> str:
    """The id of an object, "" where it has none."""
    for key, item in value.items():
        if _identifies(key) and isinstance(item, (str, int)) and not isinstance(item, bool):
            return scalar_text(item)
    return ""


def _subject(call: ToolCall) -> str:
    arguments = call.arguments if isinstance(call.arguments, dict) else {}
    return _own(arguments) or call_key(call)


def _identifies(name: str) -> bool:
    return is_id_name(name) or name == "code"


def _is_code(text: str) -> bool:
    return any(char.isdigit() for char in text) and " " not in text and len(text) <= 40
