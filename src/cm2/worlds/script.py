"""Script: writes a reference dialogue by executing it.

A scenario reads like the dialogue: `user` opens a turn, `call` runs a tool in the real world and hands its answer back,
`reply` ends the turn and notes which facts the user must have been told. The goal is what came out: the reference is
its own proof that the task can be done.
"""

from __future__ import annotations

import random
from typing import Any

from cm2.check import Fact
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, Turn
from cm2.judge.moments import date_of
from cm2.simulate import World
from cm2.worlds.engine import Desk, Engine, Record, Tables
from cm2.worlds.goal import Goal, Told, compare
from cm2.worlds.wording import Voice, expand, fill

_CLOCK_LENGTH = 5


class Script:
    """See the module.

    Args:
        engine: the world to act in.
        tools: what the agent may call.
        rng: draws wordings and choices.
        system: the system prompt, or None.
        thinking: whether the steps carry private thinking.
    """

    def __init__(
        self, engine: Engine, tools: list[Tool], rng: random.Random, system: str | None = None, thinking: bool = True
    ):
        self.rng, self.thinking, self.engine = rng, thinking, engine
        self.person, self.agent = Voice(rng), Voice(rng, "plain")
        self.dialogue = Dialogue("", [], tools, system)
        self.before: Tables = engine.tables()
        self._desk: Desk = engine.session()
        self._session = World(self.dialogue, backend=_Single(self._desk)).session()
        self._told: list[tuple[list[Any], bool, bool]] = []
        self._calls = 0

    @property
    def now(self) -> Tables:
        """The state as it is at this moment of the dialogue, to be read only."""
        return self._desk.tables

    def pick(self, *ways: Any) -> Any:
        """One of several things."""
        return self.rng.choice(ways)

    def user(self, text: str, *records: Record, **values: Any) -> None:
        """The user opens a turn, in their own style; names in the text stand for values or fields of the records."""
        self.dialogue.turns.append(Turn(self.person.say(text, **_merged(records, values))))

    def call(self, tool: str, think: str = "", /, *, fails: bool = False, **arguments: Any) -> Any:
        """The agent calls a tool (in a step of its own); returns the answer.

        Args:
            tool: its name.
            think: what the agent thinks, with choices in braces; the arguments may be named.
            fails: the tool is meant to refuse; otherwise a refusal is a mistake of the scenario.
            arguments: of the call; None is left out.
        """
        given = {key: value for key, value in arguments.items() if value is not None}
        return self._step(think, [(tool, given)], fails)[0]

    def together(self, think: str, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        """The agent makes several calls in one step; returns their answers. None of them is meant to be refused."""
        return self._step(think, list(calls), False)

    def _step(self, think: str, asked: list[tuple[str, dict[str, Any]]], fails: bool) -> list[Any]:
        step, values = Step(calls=[], responses=[]), []
        for tool, arguments in asked:
            self._calls += 1
            call = ToolCall(tool, arguments, f"c{self._calls}")
            response = self._session.respond(call)
            value = response.value
            refused = isinstance(value, dict) and "error" in value
            if refused is not fails:
                raise AssertionError(f"the scenario's call {tool}({arguments}) answered {response.content}")
            response.origin = "recorded"
            step.calls.append(call)
            step.responses.append(response)
            values.append(value)
        if self.thinking:
            step.thinking = fill(expand(self.rng, think), **asked[0][1])
        self._turn.steps.append(step)
        return values

    def reply(
        self,
        text: str,
        tell: str = "",
        think: str = "",
        *records: Record,
        refuses: bool = False,
        asks: bool = False,
        **values: Any,
    ) -> None:
        """The agent's visible reply ends the turn.

        Args:
            text: with choices in braces and `<name>` for values.
            tell: the names of those values that the user must learn from it, separated by spaces.
            think: what the agent thinks, like the text.
            records: their fields may be named.
            refuses: the reply says that it cannot be done.
            asks: the reply asks the user for something.
            values: they may be named too, and go before fields.
        """
        named = _merged(records, values)
        thought = fill(expand(self.rng, think), **named) if self.thinking else None
        self._turn.steps.append(Step(thought, self.agent.say(text, **named)))
        self._told.append(([named[name] for name in tell.split()], refuses, asks))

    def finish(self) -> tuple[Dialogue, Goal]:
        """The dialogue and what it achieved."""
        changes, ids = compare(self.before, self._desk.tables, self._desk.issued)
        told = []
        for values, refuses, asks in self._told:
            codes = [ids.index(value) for value in values if value in self._desk.issued]
            facts = [fact_of(value) for value in values if value not in self._desk.issued]
            told.append(Told(facts, codes, refuses, asks))
        return self.dialogue, Goal(changes, told)

    @property
    def _turn(self) -> Turn:
        return self.dialogue.turns[-1]


class _Single:
    """A backend with one session, which the script looks into."""

    executable = True

    def __init__(self, desk: Desk):
        self._desk = desk

    def session(self) -> Desk:
        return self._desk


def fact_of(value: Any) -> Fact:
    """A value that the user must be told, with the normalisation that fits it."""
    if isinstance(value, (int, float)):
        return Fact([value], "number")
    if len(value) == _CLOCK_LENGTH and value[2] == ":" and value.replace(":", "").isdigit():
        return Fact([value], "time")
    if value[:4].isdigit() and date_of(value) is not None:
        return Fact([value], "date")
    return Fact([value])


def _merged(records: tuple[Record, ...], values: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for record in records:
        merged |= record
    return merged | values
