"""Probe: calls that leave the reference, played in the true world, to hold simulated answers against.

A trial starts from the reference's calls, as an agent would make them that does not quite do what the reference did:

- arguments are changed: another known value of the same name, another number, date or choice, an id with a slip;
- calls that do not need each other change places;
- the agent looks up more than it must: with what it knows, before a write about what the write concerns, after it the
  same again, and now and then the same call twice.

What the true world answers is kept with each call. Whatever answers are compared with it later, the calls are the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Tool, ToolCall
from cm2.judge.values import is_error
from cm2.simulate.evidence import bearing, subjects
from cm2.simulate.instance import instance
from cm2.simulate.replay import call_key
from cm2.simulate.world import Session, World

Kind = Literal["reference", "changed", "extra", "reread", "repeated"]
_CHANGED, _EXTRA, _ABOUT, _REPEATED, _SWAPPED, _SLIP = 0.35, 0.25, 0.7, 0.2, 0.3, 0.35
_REREADS = 2


class Probe(msgspec.Struct):
    """One call and what the true world answered."""

    turn: int
    kind: Kind
    call: ToolCall
    content: str
    error: bool
    wrote: bool
    """Whether it changed the true world."""
    before: int | None = None
    """The same call earlier in the trial: before the last write ("reread") or in the same state ("repeated")."""


class Trial(msgspec.Struct):
    """The calls of one dialogue, in order."""

    task: Task
    probes: list[Probe]


def trial(task: Task, truth: World, seed: int = 0) -> Trial:
    """Calls around a reference, answered by the true world (an executable one).

    Args:
        task: the reference.
        truth: its world.
        seed: other seeds stray elsewhere.
    """
    session = truth.session()
    return Trial(task, _Stroll(task.dialogue, session, random.Random(f"{task.dialogue.id} {seed}")).probes())


class _Stroll:
    def __init__(self, dialogue: Dialogue, session: Session, rng: random.Random):
        self.dialogue, self.session, self.rng = dialogue, session, rng
        self.made: list[Probe] = []
        self.known: dict[str, list[Any]] = {}
        """Values by the name of the field or argument they stood in."""
        effects = session.world.effects
        self.reads = [tool for tool in dialogue.tools if not effects.is_write(ToolCall(tool.name))]

    def probes(self) -> list[Probe]:
        for turn, steps in enumerate(self._calls()):
            for call in steps:
                if self.rng.random() < _CHANGED:
                    self._make(turn, "changed", self._changed(call))
                if self.rng.random() < _EXTRA:
                    self._make(turn, "extra", self._extra())
                if self.session.world.effects.is_write(call) and self.rng.random() < _ABOUT:
                    self._make(turn, "extra", self._extra(call))
                self._make(turn, "reference", call)
        return self.made

    def _calls(self) -> Iterator[list[ToolCall]]:
        """The reference's calls by turn; neighbours that do not need each other may change places."""
        for turn in self.dialogue.turns:
            made = [
                (call, response)
                for step in turn.steps
                for call, response in ((one, step.response_to(i)) for i, one in enumerate(step.calls))
                if call.valid and response is not None
            ]
            for index in range(len(made) - 1):
                (first, told), (second, _) = made[index], made[index + 1]
                needs = bearing(subjects(second.arguments) - subjects(first.arguments), ToolCall(""), told.content)
                if not needs and self.rng.random() < _SWAPPED:
                    made[index], made[index + 1] = made[index + 1], made[index]
            yield [call for call, _ in made]

    def _make(self, turn: int, kind: Kind, call: ToolCall | None) -> None:
        """Make a call in the true world; a write that succeeded is followed by the reads that it bears on."""
        if call is None or len(self.made) >= 200:
            return
        response = self.session.respond(call)
        if response.origin == "error":  # no such tool, or arguments that the schema refuses: nothing to simulate
            return
        wrote = self.session.world.effects.changed(call, response)
        key = call_key(call)
        earlier = next((i for i in reversed(range(len(self.made))) if call_key(self.made[i].call) == key), None)
        same_state = earlier is not None and not any(probe.wrote for probe in self.made[earlier:])
        probe = Probe(turn, kind, call, response.content, is_error(response), wrote)
        if earlier is not None and not wrote:
            probe.kind, probe.before = ("repeated" if same_state else "reread"), earlier
        self.made.append(probe)
        self._learn(call.arguments)
        self._learn(response.value)
        if wrote:
            for read in self._concerned(call, response.content):
                self._make(turn, "reread", read)
        elif not same_state and self.rng.random() < _REPEATED:
            self._make(turn, "repeated", call)

    def _concerned(self, call: ToolCall, content: str) -> list[ToolCall]:
        """The latest reads about what a write is about."""
        about = subjects(call.arguments)
        found: dict[str, ToolCall] = {}
        for probe in reversed(self.made[:-1]):
            if not self.session.world.effects.is_write(probe.call) and bearing(about, probe.call, probe.content):
                found.setdefault(call_key(probe.call), probe.call)
        return list(found.values())[:_REREADS]

    def _changed(self, call: ToolCall) -> ToolCall | None:
        tool = self.dialogue.tool(call.name)
        names = list(call.arguments)
        if tool is None or not names:
            return None
        name = self.rng.choice(names)
        value = self._other(tool, name, call.arguments[name])
        return None if value is None else ToolCall(call.name, call.arguments | {name: value})

    def _other(self, tool: Tool, name: str, value: Any) -> Any:
        """Another value for an argument; None where there is none."""
        schema = (tool.parameters.get("properties") or {}).get(name) or {}
        choices = [one for one in self.known.get(name, []) if one != value and type(one) is type(value)]
        coded = isinstance(value, str) and any(char.isdigit() for char in value) and "format" not in schema
        if coded and self.rng.random() < _SLIP:
            return self._slip(value)
        if choices:
            return self.rng.choice(choices)
        if isinstance(value, int) and not isinstance(value, bool):
            return max(1, value + self.rng.choice((-2, -1, 1, 2, 3)))
        for _ in range(8):
            drawn = instance(schema, self.rng)
            if drawn != value:
                return drawn
        return None

    def _slip(self, text: str) -> str:
        places = [index for index, char in enumerate(text) if char.isdigit()]
        at = self.rng.choice(places)
        return text[:at] + str((int(text[at]) + self.rng.randint(1, 9)) % 10) + text[at + 1 :]

    def _extra(self, about: ToolCall | None = None) -> ToolCall | None:
        """A look-up with what is known; about what a write names, where one is given."""
        known = self.known if about is None else {name: [value] for name, value in about.arguments.items()}
        ready = [tool for tool in self.reads if _required(tool) and all(known.get(name) for name in _required(tool))]
        if not ready:
            return None
        tool = self.rng.choice(ready)
        return ToolCall(tool.name, {name: self.rng.choice(known[name]) for name in _required(tool)})

    def _learn(self, value: Any) -> None:
        for name, leaf in _named(value):
            values = self.known.setdefault(name, [])
            if leaf not in values and len(values) < 50:
                values.append(leaf)


def _required(tool: Tool) -> list[str]:
    found = tool.parameters.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                yield from _named(item)
            elif item is not None:
                yield key, item
    elif isinstance(value, list):
        for item in value:
            yield from _named(item)
