"""Examples: what a tool's recorded calls and answers show about it.

An answer is a *listing* where it is rows of objects with at most counts and flags around them (the answer of a search);
else it is one *object*, or text. An argument is *echoed* where the answer repeats its value.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.dialogue import Dialogue
from cm2.judge.text import fold
from cm2.judge.values import is_error, is_number, scalar_text, walk


class Example(msgspec.Struct):
    """A recorded call with its answer, as a JSON value (or text) and as it was written."""

    tool: str
    arguments: dict[str, Any]
    value: Any
    content: str
    error: bool

    @property
    def empty(self) -> bool:
        """Whether the answer says that nothing was found: no rows, null, a count of 0, and no word besides."""
        return not self.error and is_empty(self.value)

    def echoes(self, argument: str) -> bool:
        """Whether the answer repeats this argument's value."""
        value = self.arguments.get(argument)
        if isinstance(value, (dict, list)) or value is None or value == "":
            return False
        text = fold(scalar_text(value))
        return any(text in fold(scalar_text(leaf)) for leaf in walk(self.value, keys=False)) if text else False


def examples_of(dialogue: Dialogue) -> dict[str, list[Example]]:
    """The well-formed calls of a dialogue that were answered, by tool, in order."""
    found: dict[str, list[Example]] = {}
    for _, _, _, call, response in dialogue.calls():
        if response is not None and call.valid:
            error = is_error(response)
            example = Example(call.name, call.arguments, response.value, response.content, error)
            found.setdefault(call.name, []).append(example)
    return found


def is_empty(value: Any) -> bool:
    """Whether an answer holds no rows and no text: `[]`, `{"results": []}`, `{"item": null, "total": 0}`."""
    if isinstance(value, dict):
        inside = [item for item in value.values() if not isinstance(item, bool)]
        return bool(inside) and all(item == 0 if is_number(item) else is_empty(item) for item in inside)
    return value is None or value == []


def is_listing(value: Any) -> bool:
    """Whether an answer is rows of objects, with at most counts, flags and nulls around them."""
    if isinstance(value, list):
        return all(isinstance(row, dict) for row in value)
    if not isinstance(value, dict):
        return False
    parts = list(value.values())
    lists = [part for part in parts if isinstance(part, list)]
    rest = [part for part in parts if not isinstance(part, list)]
    return (
        bool(lists)
        and all(isinstance(row, dict) for part in lists for row in part)
        and all(part is None or isinstance(part, (bool, int, float)) for part in rest)
    )


def about_the_same(listings: list[Example], arguments: dict[str, Any]) -> list[Example]:
    """The listings whose rows may fit a call: what their rows do not show (a search by city whose rows name none) must
    have been asked for alike. Only words are looked at: numbers and dates mostly limit a search, and limits overlap."""
    fields = {name for example in listings for row in _rows(example.value) for name in row}
    words = {
        name: fold(value)
        for name, value in arguments.items()
        if isinstance(value, str) and name not in fields and not _is_query(name) and not any(map(str.isdigit, value))
    }

    def alike(example: Example) -> bool:
        asked = example.arguments
        return all(fold(scalar_text(asked[name])) == value for name, value in words.items() if asked.get(name))

    return [example for example in listings if alike(example)]


def emptied(value: Any) -> Any:
    """A listing without its rows."""
    if isinstance(value, list):
        return []
    return {key: [] if isinstance(part, list) else 0 if is_number(part) else part for key, part in value.items()}


def filtered(value: Any, others: list[Any], arguments: dict[str, Any]) -> Any:
    """A listing that holds the rows, of this and the other listings of the tool, that fit a call's arguments.

    An argument named as a field of the rows must agree with that field; of a free text that no field is named after, at
    least one word must stand in the row. Other arguments leave the rows as they are. Counts follow.
    """
    if isinstance(value, list):
        rows = value + [row for other in others if isinstance(other, list) for row in other]
        return _fitting(rows, arguments)
    result: dict[str, Any] = {}
    change = 0
    for key, part in value.items():
        if isinstance(part, list):
            rows = part + [row for other in others if isinstance(other, dict) for row in other.get(key) or []]
            result[key] = _fitting(rows, arguments)
            change += len(result[key]) - len(part)
        else:
            result[key] = part
    for key, part in result.items():
        if isinstance(part, int) and not isinstance(part, bool):
            result[key] = max(0, part + change)
    return result


def _rows(value: Any) -> list[dict[str, Any]]:
    lists = [value] if isinstance(value, list) else [part for part in value.values() if isinstance(part, list)]
    return [row for part in lists for row in part if isinstance(row, dict)]


def _fitting(rows: list[Any], arguments: dict[str, Any]) -> list[Any]:
    unique = list({msgspec.json.encode(row, order="sorted"): row for row in rows if isinstance(row, dict)}.values())
    fields = {name for row in unique for name in row}
    queries = [
        value for name, value in arguments.items() if name not in fields and isinstance(value, str) and _is_query(name)
    ]
    return [row for row in unique if _fits(row, arguments) and all(_mentions(row, query) for query in queries)]


def _is_query(name: str) -> bool:
    return (
        any(word in name.lower() for word in ("query", "search", "keyword", "term", "text", "question")) or name == "q"
    )


def _fits(row: dict[str, Any], arguments: dict[str, Any]) -> bool:
    for name, wanted in arguments.items():
        if name not in row or wanted is None or isinstance(wanted, dict):
            continue
        have, want = _words(row[name]), _words(wanted)
        if want and not want & have:
            return False
        if isinstance(wanted, str) and not want <= have:
            return False
    return True


def _mentions(row: dict[str, Any], query: str) -> bool:
    words = {word for word in fold(query).split() if word not in ("or", "and", "the", "a", "of", "with", "for")}
    have = {word for leaf in walk(row, keys=False) for word in fold(scalar_text(leaf)).split()}
    return not words or any(word in have or word.rstrip("s") in have for word in words)


def _words(value: Any) -> set[str]:
    return {word for leaf in walk(value, keys=False) for word in fold(scalar_text(leaf)).split()}
