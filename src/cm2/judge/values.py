"""JSON values as a judge compares them: by value and type, never by their text.

1 equals 1.0; "1" is not 1; true is not 1; an object is equal whatever the order of its keys. Null and absent are the
same (JMESPath cannot tell them apart). Where the tool's schema says more, the comparison follows it: `format: date`,
`time` and `date-time` compare moments, `uniqueItems` compares sets, and an absent argument has its declared default.

Parsing is a pure function of the text, so it is cached by text: nothing has to be invalidated when a dialogue grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jmespath
import msgspec
import re2

from cm2.dialogue import ToolResponse
from cm2.errors import DataError
from cm2.judge import moments
from cm2.judge.text import fold, holds

ERROR_KEYS = ("error", "errors", "exception")
RESULT_KEYS = ("result", "results", "data", "output")
# Longer responses are parsed anew each time, so that the caches stay small.
CACHED_CHARS = 32768
ERROR_STATUS = frozenset({"error", "failed", "failure"})


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(left: Any, right: Any, folded: bool = False, schema: Any = None) -> bool:
    """Whether two JSON values are the same; `folded` ignores case, spacing and punctuation of text, at any depth."""
    if isinstance(left, str) and isinstance(right, str):
        if left == right or (folded and fold(left) == fold(right) != ""):
            return True
        return _same_moment(left, right, schema)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if is_number(left) and is_number(right):
        return left == right
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return False
        items = schema.get("items") if isinstance(schema, dict) else None
        if isinstance(schema, dict) and schema.get("uniqueItems") is True:
            return all(any(equal(a, b, folded, items) for b in right) for a in left)
        return all(equal(a, b, folded, items) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            equal(value, right[key], folded, member(schema, key)) for key, value in left.items()
        )
    return left is None and right is None


def _same_moment(left: str, right: str, schema: Any) -> bool:
    kind = schema.get("format") if isinstance(schema, dict) else None
    if kind not in ("date", "time", "date-time"):
        return False
    dates = moments.date_of(left), moments.date_of(right)
    times = moments.time_of(left), moments.time_of(right)
    same_date = dates[0] is not None and dates[0] == dates[1]
    same_time = times[0] is not None and times[0] == times[1]
    return same_date if kind == "date" else same_time if kind == "time" else same_date and same_time


def contains(value: Any, part: Any, folded: bool = True) -> bool:
    """Whether text holds this text (as whole words where folded), a list this value, an object these members."""
    if isinstance(value, str):
        if not isinstance(part, str):
            return is_number(part) and holds(fold(value), fold(scalar_text(part)))
        return holds(fold(value), fold(part)) if folded else bool(part) and part in value
    if isinstance(value, list):
        wanted = part if isinstance(part, list) else [part]
        return bool(wanted) and all(any(_member(each, one, folded) for each in value) for one in wanted)
    if isinstance(value, dict) and isinstance(part, dict):
        return bool(part) and all(
            key in value and (equal(value[key], one, folded) or _nested(value[key], one, folded))
            for key, one in part.items()
        )
    return value is not None and equal(value, part, folded)


def _member(value: Any, part: Any, folded: bool) -> bool:
    return equal(value, part, folded) or _nested(value, part, folded)


def _nested(value: Any, part: Any, folded: bool) -> bool:
    return isinstance(value, (dict, list)) and isinstance(part, type(value)) and contains(value, part, folded)


def scalar_text(value: Any) -> str:
    """A scalar as text: 5.0 as "5", true as "true", text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return msgspec.json.encode(value).decode()


def member(schema: Any, name: str) -> Any:
    """The schema of one property, or None where the schema does not say."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties.get(name) if isinstance(properties, dict) else None


def argument(arguments: dict[str, Any], key: str, schema: Any = None) -> tuple[Any, Any]:
    """An argument's value and schema; `key` is its name or a JMESPath. Absent: the schema's default, else None."""
    own = member(schema, key)
    if key in arguments:
        return arguments[key], own
    if own is not None or key.isidentifier():
        return (own.get("default") if isinstance(own, dict) else None), own
    return search(key, arguments), None


@lru_cache(maxsize=4096)
def jmespath_of(path: str) -> Any:
    """The compiled JMESPath; DataError where it does not parse."""
    try:
        return jmespath.compile(path)
    except jmespath.exceptions.JMESPathError as error:
        raise DataError(
            f"{path!r} is no JMESPath: {str(error).splitlines()[0]}", fix="correct the check's path"
        ) from error


def search(path: str, value: Any) -> Any:
    """The value at a JMESPath (None where there is none).

    Raises:
        DataError: the path does not parse, or calls a function on a value it does not take.
    """
    compiled = jmespath_of(path)
    try:
        return compiled.search(value)
    except jmespath.exceptions.JMESPathTypeError:
        return None
    except jmespath.exceptions.JMESPathError as error:
        raise DataError(f"the JMESPath {path!r} fails: {error}", fix="correct the check's path") from error


def parsed(content: str) -> Any:
    """A tool response's content as a JSON value, or the text itself. Shared: callers must not change it."""
    return _parsed(content) if len(content) <= CACHED_CHARS else ToolResponse(content).value


@lru_cache(maxsize=2048)
def _parsed(content: str) -> Any:
    return ToolResponse(content).value


def is_error(response: ToolResponse) -> bool:
    """Whether a tool answered with an error.

    The environment's own errors say so (`origin`). Otherwise the answer must itself be one: a JSON object whose top
    level carries an error and no result (`error: 0.02` is a measurement, not a failure), or one line of plain text that
    opens with "Error:". A result that merely quotes the word, or a nested field of that name, is a result.
    """
    return response.origin == "error" or _error_content(response.content)


@lru_cache(maxsize=8192)
def _error_content(content: str) -> bool:
    value = parsed(content)
    if isinstance(value, str):
        return value.lstrip().lower().startswith("error:") and "\n" not in value.strip()
    if not isinstance(value, dict):
        return False
    status = value.get("status")
    if isinstance(status, str) and status.lower() in ERROR_STATUS:
        return True
    if value.get("success") is False and not any(value.get(key) for key in RESULT_KEYS):
        return True
    failed = any(value.get(key) and not isinstance(value[key], float) for key in ERROR_KEYS)
    return failed and not any(value.get(key) for key in RESULT_KEYS)


class Leaves:
    """The scalars of one tool response, indexed so that "did this value stand there" is a look-up."""

    def __init__(self, value: Any, keys: bool):
        self.exact: set[str] = set()
        self.texts: list[str] = []
        for leaf in walk(value, keys):
            text = scalar_text(leaf)
            self.exact.add(text)
            if isinstance(leaf, str) and (" " in leaf or len(leaf) > 24):
                self.texts.append(fold(leaf))

    def hold(self, value: Any) -> bool:
        """Whether the value stood there: a scalar as a leaf or as whole words of a longer text; of a list or object,
        every leaf. A number and its text are the same here: where it came from is what counts."""
        if isinstance(value, (list, dict)):
            leaves = list(walk(value, keys=False))
            return bool(leaves) and all(self.hold(leaf) for leaf in leaves)
        if value is None or value == "":
            return False
        text = scalar_text(value)
        if text in self.exact:
            return True
        folded = fold(text)
        return len(folded) > 2 and any(holds(each, folded) for each in self.texts)


def walk(value: Any, keys: bool) -> Iterator[Any]:
    """Every scalar of a JSON value but null; with `keys` also object keys that look like ids (they hold a digit)."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if keys:
                stack.extend(key for key in one if any(char.isdigit() for char in key))
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
        elif one is not None:
            yield one


@lru_cache(maxsize=2048)
def leaves(content: str, path: str | None = None) -> Leaves:
    """The indexed scalars of a response's content, at the JMESPath where given."""
    value = parsed(content)
    return Leaves(value, keys=True) if path is None else Leaves(search(path, value), keys=False)


@lru_cache(maxsize=4096)
def regex(pattern: str) -> Any:
    """The compiled RE2 expression; DataError where it does not parse."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise DataError(f"{pattern!r} is no RE2 expression: {why}", fix="correct the check's pattern") from error


def clear_caches() -> None:
    """Forget everything parsed so far (for measurements from a cold start)."""
    caches: tuple[Callable[..., Any], ...] = (_parsed, _error_content, leaves, jmespath_of)
    for cache in caches:
        cache.cache_clear()  # type: ignore[attr-defined]
