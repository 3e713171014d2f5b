"""Paths: where a value stands in a tool's response, as a JMESPath that finds its like in another response.

A reference's path would be too narrow (`hotels[2].id`) or too wide (`hotels[*].id`): which record is meant follows from
what the user asked for. So a list index becomes, in this order of preference:

1. nothing to choose: the list has one record,
2. the record whose members the user named (`hotels[?name=='Ritz'].id`; a true flag counts as named by its name),
3. the records within a limit that the user set (`hotels[?price<=`120`].id` for "under $120"),
4. the extreme that the user asked for (`min_by(hotels, &price).id` for "the cheapest"),
5. any record (`hotels[*].id`): the choice was the assistant's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cm2.judge.values import equal, is_number, search
from cm2.writes import words

Key = str | int
Named = Callable[[Any, str], bool]
"""Whether the user named a value that stands under a key."""

_PROJECTION = re.compile(r"\[\*\]|\[\?|(?:^|\.)\*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOWEST = re.compile(
    r"\b(cheapest|lowest|least|earliest|soonest|nearest|closest|shortest|smallest|fewest|quickest|fastest|minimum|oldest)\b"
)
_HIGHEST = re.compile(
    r"\b((?:most )?expensive|best|highest|top|largest|biggest|most|longest|latest|newest|maximum|greatest|strongest)\b"
)
_LIMIT = re.compile(
    r"\b(?:(?P<most>under|below|(?:less|cheaper|fewer|lower) than|(?:at|no) most|no more than|up to|within|not over)"
    r"|(?P<least>over|above|(?:more|higher|greater) than|at least|no less than))"
    r" (?:about )?(?P<money>[$€£])?(?P<number>\d+(?:\.\d+)?)(?![\d:])"
)
_MONEY = frozenset("price cost fare rate fee amount total budget rent".split())  # noqa: SIM905
_MEASURES = {
    "cheapest": "price cost fare rate fee amount total",
    "expensive": "price cost fare rate fee amount total",
    "earliest": "time date departure start day hour slot year created",
    "soonest": "time date departure start day hour slot year created",
    "latest": "time date departure start day hour slot year created",
    "newest": "date created year time",
    "oldest": "date created year time",
    "nearest": "distance miles km minutes away",
    "closest": "distance miles km minutes away",
    "shortest": "duration minutes hours length time distance",
    "longest": "duration minutes hours length time distance",
    "quickest": "duration minutes hours time days eta",
    "fastest": "duration minutes hours time days eta speed",
    "best": "rating stars score review",
    "top": "rating stars score review",
}


class Leaf(msgspec.Struct, frozen=True):
    """A scalar in a tool response: the keys that lead to it, and its value."""

    keys: tuple[Key, ...]
    value: Any

    @property
    def name(self) -> str:
        """The nearest object key above the value ("" where there is none)."""
        return next((key for key in reversed(self.keys) if isinstance(key, str)), "")


def scalars(value: Any, keys: tuple[Key, ...] = ()) -> Iterator[Leaf]:
    """Every scalar but null of a JSON value with its keys, in order."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from scalars(one, (*keys, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from scalars(one, (*keys, index))
    elif value is not None:
        yield Leaf(keys, value)


def is_map_key(key: str) -> bool:
    """Whether an object key is data (an id) rather than a field's name."""
    return len(key) > 2 and (key[0].isdigit() or sum(char.isdigit() for char in key) >= 3)


def field(key: str) -> str:
    """A key as a JMESPath identifier, `*` where the key itself is data."""
    if is_map_key(key):
        return "*"
    return key if _IDENTIFIER.fullmatch(key) else msgspec.json.encode(key).decode()


def join(left: str, right: str) -> str:
    """Two JMESPath parts in a row."""
    return f"{left}.{right}" if left else right


def literal(value: Any) -> str:
    """A value as a JMESPath literal."""
    text = msgspec.json.encode(value).decode()
    return "`" + text.replace("`", "\\`") + "`"


def wide(keys: tuple[Key, ...]) -> str:
    """The path with any record of any list."""
    path = ""
    for key in keys:
        path = (
            path + "[*]" if isinstance(key, int) and path else "[*]" if isinstance(key, int) else join(path, field(key))
        )
    return _flat(path)


def exact(keys: tuple[Key, ...]) -> str:
    """The path with the list indexes as they are."""
    path = ""
    for key in keys:
        path = f"{path}[{key}]" if isinstance(key, int) else join(path, field(key))
    return _flat(path)


def chosen(root: Any, keys: tuple[Key, ...], named: Named, wish: str) -> tuple[str, bool]:
    """The path to a value by what the user asked for, and whether it picks that record alone.

    Args:
        root: the whole response.
        keys: where the value stands in it.
        named: whether the user named a member's value.
        wish: the user's words, lower case (for "the cheapest").
    """
    path, value, sure = "", root, True
    for at, key in enumerate(keys):
        if isinstance(key, str):
            path, value = join(path, field(key)), value[key]
            continue
        records, record = value, value[key]
        value = record
        if len(records) == 1:
            path += "[*]"
            continue
        if not isinstance(record, dict):
            path, sure = path + "[*]", False
            continue
        conditions, left = _conditions(records, record, named, skip=_next_name(keys, at))
        if len(left) > 1:
            limits, left = _limits(left, record, wish)
            conditions += limits
        filter_ = "[?" + " && ".join(conditions) + "]" if conditions else "[*]"
        if len(left) > 1:
            extreme = _extreme(left, record, wish)
            if extreme is not None:
                function, by = extreme
                listed = path + (filter_ if conditions else "") or "@"
                path = f"{function}({listed}, &{field(by)})"
                continue
            sure = False
        path += filter_
    return _flat(path), sure


def _next_name(keys: tuple[Key, ...], at: int) -> str:
    following = keys[at + 1] if at + 1 < len(keys) else ""
    return following if isinstance(following, str) else ""


def _conditions(records: list[Any], record: dict[str, Any], named: Named, skip: str) -> tuple[list[str], list[Any]]:
    """The members of the record that the user named, as far as each narrows the choice; and the records left."""
    left = [each for each in records if isinstance(each, dict)]
    found: list[str] = []
    for name, value in record.items():
        if len(left) == 1:
            break
        if name == skip or is_map_key(name) or isinstance(value, (dict, list)) or value in (None, ""):
            continue
        if not named(value, name):
            continue
        fewer = [each for each in left if equal(each.get(name), value)]
        if len(fewer) < len(left):
            found.append(f"{field(name)}=={literal(value)}")
            left = fewer
    return found, left


def _limits(records: list[Any], record: dict[str, Any], wish: str) -> tuple[list[str], list[Any]]:
    """The limits that the user set on a member, as far as each narrows the choice; and the records left."""
    found: list[str] = []
    for match in _LIMIT.finditer(wish):
        limit, at_most = float(match["number"]), match["most"] is not None
        for name in _measures_first(record, wish, _MONEY if match["money"] else frozenset()):
            values = [_number(each.get(name)) for each in records]
            own = _number(record[name])
            if own is None or any(value is None for value in values):
                continue
            fits = [value <= limit if at_most else value >= limit for value in values]  # type: ignore[operator]
            if not fits[values.index(own)] or all(fits):
                continue
            member = field(name) if is_number(record[name]) else f"to_number({field(name)})"
            number = int(limit) if limit.is_integer() else limit
            found.append(f"{member}{'<=' if at_most else '>='}{literal(number)}")
            records = [each for each, fit in zip(records, fits, strict=True) if fit]
            break
    return found, records


def _number(value: Any) -> float | None:
    """A number, or a text that JMESPath's `to_number` reads as one."""
    if is_number(value):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMERAL.fullmatch(value) else None


_NUMERAL = re.compile(r"-?\d{1,9}(?:\.\d{1,6})?")


def _measures_first(record: dict[str, Any], wish: str, hints: frozenset[str]) -> list[str]:
    """A record's members: those that the wish (or the hints) speak of, then the others."""
    said = set(words(wish)) | hints

    def spoken(name: str) -> bool:
        return bool(said & {form for word in words(name) for form in (word, f"{word}s", word.rstrip("s"))})

    return sorted(record, key=lambda name: not spoken(name))


def _extreme(records: list[Any], record: dict[str, Any], wish: str) -> tuple[str, str] | None:
    """(min_by or max_by, member) where the user asked for an extreme and the record alone has it."""
    for function, pattern, pick in (("min_by", _LOWEST, min), ("max_by", _HIGHEST, max)):
        for match in pattern.finditer(wish):
            word = match[1].removeprefix("most ")
            hints = _MEASURES.get(word, "").split()
            # "The smallest" without a measure is rather about the thing than about its price.
            for name in sorted(
                _measures_first(record, wish, frozenset()), key=lambda name: bool(_MONEY & {*words(name)})
            ):
                value = record[name]
                values = [each.get(name) for each in records]
                if not (all(map(is_number, values)) or all(isinstance(each, str) for each in values)):
                    continue
                if isinstance(value, str) and not any(char.isdigit() for char in value):
                    continue
                if hints and not set(hints) & set(words(name)):
                    continue
                if not hints and not is_number(value):
                    continue
                if pick(values) == value and values.count(value) == 1:
                    return function, name
    return None


def _flat(path: str) -> str:
    """A path through several lists gives lists of lists; flatten them."""
    return path + " | []" * (len(_PROJECTION.findall(path)) - 1)


def finds(path: str, root: Any, value: Any) -> bool:
    """Whether the path leads to the value in that response."""
    found = search(path, root)
    return any(equal(each, value) for each in found) if isinstance(found, list) else equal(found, value)
