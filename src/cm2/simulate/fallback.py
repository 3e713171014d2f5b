"""Fallback: answers to calls that nobody recorded, without a language model.

The fallback knows the reference's recorded calls and answers, and makes up no more than it must:

1. a call that differs from a recorded one only in spelling (case, spacing, punctuation, "2" for 2) gets its answer;
2. an argument that refers to something (an id) which neither a person nor this world ever named is not found;
3. a search gets the recorded rows that fit its arguments, possibly none; rows that do not show what was asked for (a
   city) are those of a recorded search for the same;
4. a write, or a look-up whose recorded answer repeats the arguments that differ, gets an answer with the shape of the
   nearest recorded one: echoed arguments follow the call; ids are handed out once and then minted; numbers and choices
   of a look-up are drawn, so that a wrong call does not learn the right call's answer;
5. where nothing fits it says so, in the style of the recorded errors or empty answers.

Whatever is drawn is seeded by the call and the writes before it: the same call, the same answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from cm2.dialogue import Dialogue, ToolCall, ToolResponse
from cm2.judge.text import fold
from cm2.judge.values import is_error, is_number, scalar_text, walk
from cm2.simulate.examples import Example, about_the_same, emptied, examples_of, filtered, is_listing
from cm2.simulate.mint import Mint, is_id_name
from cm2.simulate.replay import Context, Recordings, call_key
from cm2.writes import mode

_ALNUM = re.compile(r"[^0-9a-z]+")
_MESSAGE_KEYS = ("error", "message", "exception", "detail", "details", "reason", "msg")


class Fallback:
    """See the module. One a world; it keeps no state of its own.

    Args:
        dialogue: the reference whose recorded answers are the examples.
        seed: varies what is made up.
        is_write: whether a call changes the world.
    """

    executable = False

    def __init__(self, dialogue: Dialogue, seed: int = 0, is_write: Callable[[ToolCall], bool] = lambda call: False):
        self.dialogue, self.seed, self.is_write = dialogue, seed, is_write
        self.mint = Mint(seed)

    def session(self) -> Fallback:
        """The same fallback: it has no state."""
        return self

    def respond(self, call: ToolCall, context: Context) -> str:
        """The answer to a well-formed call of a known tool."""
        near = self._near.find(_folded_key(call), context.state)
        if near is not None:
            return near
        unknown = self._unknown(call.arguments)
        if unknown is not None:
            return self.not_found(call, *unknown)
        good = [example for example in self.examples.get(call.name, []) if not example.error and not example.empty]
        writes = self.is_write(call) or mode(context.tool) is not None
        if not writes and any(is_listing(example.value) for example in good):
            listings = [example for example in good if is_listing(example.value)]
            near_by = [example.value for example in about_the_same(listings, call.arguments)]
            if not near_by:
                return _text(emptied(listings[0].value))
            return _text(filtered(near_by[0], near_by[1:], call.arguments))
        fitting = good if writes else [example for example in good if _fits(example, call.arguments)]
        if not fitting:
            return self.not_found(call)
        rng = random.Random(f"{self.seed}\n{context.state.hash}\n{call_key(call)}")
        nearest = max(fitting, key=lambda example: _agreement(example, call.arguments))
        fill = _Fill(nearest, call.arguments, good, rng, self.mint, self._issued(context) if writes else None)
        return _text(fill.value(nearest.value))

    def not_found(self, call: ToolCall, name: str = "", value: Any = None) -> str:
        """An honest "nothing there", as this tool's recorded errors or empty answers say it, else as any tool's do."""
        own = self.examples.get(call.name, [])
        told = f"{name} {scalar_text(value)} not found" if name else f"nothing found for {call.name}"
        for example in own:
            if example.empty:
                return example.content
        if not any(example.error for example in self._all):
            for example in own:
                if is_listing(example.value):
                    return _text(emptied(example.value))
        return self.error(call, told)

    def error(self, call: ToolCall, told: str) -> str:
        """An error that says this, in the form of this tool's recorded errors, else of any tool's."""
        own = self.examples.get(call.name, [])
        for example in [*(e for e in own if e.error), *(e for e in self._all if e.error)]:
            if isinstance(example.value, str):
                return f"Error: {told}"
            if isinstance(example.value, dict):
                return _text(_reworded(example.value, told))
        return _text({"error": told})

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """The recorded calls and answers, by tool."""
        return examples_of(self.dialogue)

    @cached_property
    def _all(self) -> list[Example]:
        return [example for examples in self.examples.values() for example in examples]

    @cached_property
    def _near(self) -> Recordings:
        def changed(call: ToolCall, response: ToolResponse) -> bool:
            return call.valid and self.is_write(call) and not is_error(response)

        return Recordings(self.dialogue, changed, _folded_key)

    @cached_property
    def _known(self) -> str:
        """Everything that people, tools and the reference's own calls ever named, letters and digits only."""
        texts = [self.dialogue.system or "", *(turn.user for turn in self.dialogue.turns)]
        for example in self._all:
            texts += [example.content, *(scalar_text(leaf) for leaf in walk(example.arguments, keys=False))]
        return " ".join(_squash(text) for text in texts)

    def _unknown(self, arguments: Any, name: str = "") -> tuple[str, Any] | None:
        """The first argument that refers to something which nobody ever named, as (name, value)."""
        if isinstance(arguments, dict):
            found = (self._unknown(value, key) for key, value in arguments.items())
            return next((one for one in found if one is not None), None)
        if isinstance(arguments, list):
            found = (self._unknown(value, name) for value in arguments)
            return next((one for one in found if one is not None), None)
        if not is_id_name(name) or arguments is None or isinstance(arguments, bool):
            return None
        text = _squash(scalar_text(arguments))
        return None if not text or text in self._known or self.mint.made(arguments) else (name, arguments)

    def _issued(self, context: Context) -> set[str]:
        """Ids that this session's writes have been given so far."""
        issued: set[str] = set()
        for _, content in context.writes:
            issued |= {scalar_text(leaf) for leaf in walk(ToolResponse(content).value, keys=False)}
        return issued


class _Fill:
    """Fills the shape of one recorded answer for another call. `issued` is None for a look-up."""

    def __init__(
        self,
        example: Example,
        arguments: dict[str, Any],
        others: list[Example],
        rng: random.Random,
        mint: Mint,
        issued: set[str] | None,
    ):
        self.example, self.arguments, self.rng, self.mint, self.issued = example, arguments, rng, mint, issued
        self.seen: dict[tuple[str, ...], list[Any]] = {}
        for other in others:
            _collect(other.value, (), self.seen)
        self.echo = {
            scalar_text(old): arguments[name]
            for name, old in example.arguments.items()
            if name in arguments and not isinstance(old, (dict, list, bool)) and old not in (None, "")
        }

    def value(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The value with everything that depends on the call filled in."""
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, path) for item in value]
        if value is None or isinstance(value, bool):
            return value
        name = path[-1] if path else ""
        asked = self.arguments.get(name)
        if type(asked) is type(value) and self.example.arguments.get(name, value) == value:
            return asked
        if scalar_text(value) in self.echo and type(self.echo[scalar_text(value)]) is type(value):
            return self.echo[scalar_text(value)]
        if is_id_name(name) and isinstance(value, (str, int)):
            fresh = self.issued is not None and scalar_text(value) not in self.issued
            return value if fresh else self.mint.make(value, self.rng)
        if isinstance(value, str):
            return self._text(value, path)
        return value if self.issued is not None else self._number(value, path)

    def _text(self, value: str, path: tuple[str, ...]) -> str:
        told = value
        for old, new in self.echo.items():
            if len(old) > 2 and not isinstance(new, (dict, list)):
                told = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, new=new: scalar_text(new), told)  # type: ignore[misc]
        if told != value or not path:
            return told
        choices = [one for one in self.seen.get(path, []) if isinstance(one, str)]
        return self.rng.choice(choices) if self.issued is None and choices else value

    def _number(self, value: float, path: tuple[str, ...]) -> float:
        seen = [one for one in self.seen.get(path, []) if is_number(one)]
        low, high = min(seen, default=value), max(seen, default=value)
        spread = max(high - low, abs(value) * 0.3, 1)
        drawn = self.rng.uniform(max(low - spread / 2, 0 if low >= 0 else low - spread), high + spread / 2)
        if isinstance(value, int):
            return round(drawn)
        return round(drawn, max(len(str(value).partition(".")[2]), 1))


def _fits(example: Example, arguments: dict[str, Any]) -> bool:
    """Whether a look-up's recorded answer can be turned into this call's: each name that differs is echoed there."""
    for name, value in arguments.items():
        old = example.arguments.get(name)
        if old is None or isinstance(value, (dict, list, bool)) or fold(scalar_text(old)) == fold(scalar_text(value)):
            continue
        identifies = isinstance(value, str) or is_id_name(name) or re.search(r"(?i)(num|number|no|code)$", name)
        if identifies and not example.echoes(name):
            return False
    return True


def _agreement(example: Example, arguments: dict[str, Any]) -> tuple[int, int]:
    same = sum(1 for name, value in example.arguments.items() if name in arguments and arguments[name] == value)
    return same, -len(example.arguments.keys() ^ arguments.keys())


def _collect(value: Any, path: tuple[str, ...], into: dict[tuple[str, ...], list[Any]]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(item, (*path, key), into)
    elif isinstance(value, list):
        for item in value:
            _collect(item, path, into)
    elif value is not None:
        into.setdefault(path, []).append(value)


def _folded_key(call: ToolCall) -> str:
    return f"{call.name} {msgspec.json.encode(_folded(call.arguments), order='sorted').decode()}"


def _folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _folded(item) for key, item in value.items() if item not in (None, "", [], {})}
    if isinstance(value, list):
        return [_folded(item) for item in value]
    return value if value is None or isinstance(value, bool) else fold(scalar_text(value)) or scalar_text(value)


def _reworded(error: dict[str, Any], told: str) -> dict[str, Any]:
    """An error of the same shape with another message."""
    for key in _MESSAGE_KEYS:
        if isinstance(error.get(key), str):
            return error | {key: told}
        if isinstance(error.get(key), dict):
            return error | {key: _reworded(error[key], told)}
    return {"error": told}


def _squash(text: str) -> str:
    return _ALNUM.sub("", text.casefold())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
