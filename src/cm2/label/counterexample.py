"""Counterexample: a reference trajectory with the one thing changed that a check is about.

A check is worth its reward only if it says no where the duty was not done. So for every leaf of a check that holds on
the reference there are changed copies of the turn on which that leaf must fail: the call left out, its key argument or
the fact in a response or reply changed, the forbidden call made, the order reversed. Changes are deterministic and
touch nothing else. Conditions that no single change can break (a negated reply, a pattern that must not be called)
yield no counterexample; lint then says which tests applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any as Json

import msgspec
from msgspec.structs import replace

from cm2 import check as forms
from cm2.check import Check, Matcher
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse
from cm2.judge.checks import State, decide, fact_values, regex, states
from cm2.judge.statement import statement
from cm2.judge.values import argument, parsed, scalar_text, walk
from cm2.label.edited import edit_calls, edit_responses, with_steps
from cm2.label.scramble import scramble, unsaid


class Counterexample(msgspec.Struct):
    """`check` (a leaf of an item's check) must not hold at the end of turn `turn` of the changed dialogue."""

    change: str
    check: Check
    dialogue: Dialogue
    turn: int
    provenance: bool = False
    """Whether the change takes away the place that a `came_from` value came from."""

    @property
    def caught(self) -> bool:
        """Whether the check says no, as it must."""
        return not decide(self.check, self.dialogue, self.turn, len(self.dialogue.turns[self.turn].steps) - 1).met


def counterexamples(check: Check, dialogue: Dialogue, turn: int) -> Iterator[Counterexample]:
    """Every counterexample of every leaf of `check`; `check` holds at the end of `turn` of the reference `dialogue`."""
    match check:
        case forms.All():
            for one in check.checks:
                yield from counterexamples(one, dialogue, turn)
        case forms.Any():
            for one in check.checks:
                if decide(one, dialogue, turn, len(dialogue.turns[turn].steps) - 1).met:
                    yield from counterexamples(one, dialogue, turn)
        case forms.Called():
            yield from _called(check, dialogue, turn)
        case forms.NotCalled():
            yield from _not_called(check, check.tools, check.arguments, dialogue, turn)
        case forms.Not(check=forms.Called() as forbidden):
            tools = [forbidden.tool] * max(forbidden.at_least, 1)
            yield from _not_called(check, tools, forbidden.arguments, dialogue, turn)
        case forms.Response():
            yield from _response(check, dialogue, turn)
        case forms.Reply():
            yield from _reply(check, dialogue, turn)
        case forms.Before():
            steps = dialogue.turns[turn].steps
            acts, end = (steps[:-1], steps[-1:]) if steps and not steps[-1].calls else (steps, [])
            reversed_ = with_steps(dialogue, turn, [*reversed(acts), *end])
            if decide(check.then, dialogue, turn, len(steps) - 1).met and len(acts) > 1:
                yield Counterexample("the order of the steps is reversed", check, reversed_, turn)
            if decide(check.first, dialogue, turn, len(steps) - 1).met:
                yield from counterexamples(check.first, dialogue, turn)


def _called(check: forms.Called, dialogue: Dialogue, turn: int) -> Iterator[Counterexample]:
    if check.at_least > 0:
        without = edit_calls(dialogue, turn, check.tool, lambda call, response: [])
        yield Counterexample(f"the call of {check.tool} is left out", check, without, turn)
        yield from _arguments(check, check.tool, check.arguments, dialogue, turn)
    if check.answered:
        failed = edit_calls(dialogue, turn, check.tool, lambda call, response: [(call, _error(response))])
        yield Counterexample(f"{check.tool} answers with an error", check, failed, turn)
    if check.at_most is not None:
        times = check.at_most + 1
        many = edit_calls(dialogue, turn, check.tool, lambda call, response: [(call, response)] * times)
        if check.at_least == 0 and not any(
            call.name == check.tool for step in many.turns[turn].steps for call in step.calls
        ):
            yield from _not_called(check, [check.tool] * times, check.arguments, dialogue, turn)
        else:
            yield Counterexample(f"the call of {check.tool} is made {times} times", check, many, turn)


def _arguments(
    check: Check, tool: str, wanted: dict[str, Matcher], dialogue: Dialogue, turn: int
) -> Iterator[Counterexample]:
    for key, matcher in wanted.items():
        edit = _argument_edit(key, matcher, dialogue, tool)
        yield Counterexample(f"argument {key} is changed", check, edit_calls(dialogue, turn, tool, edit), turn)
        if isinstance(matcher, forms.CameFrom):
            elsewhere = edit_responses(dialogue, range(turn + 1), matcher.tool, scramble)
            change = f"the responses that argument {key} came from are changed"
            yield Counterexample(change, check, elsewhere, turn, provenance=True)


def _argument_edit(key: str, matcher: Matcher, dialogue: Dialogue, name: str) -> Callable[..., Json]:
    tool = dialogue.tool(name)

    def edit(call: ToolCall, response: ToolResponse | None) -> list[tuple[ToolCall, ToolResponse | None]]:
        if not call.valid:
            return [(call, response)]
        value, own = argument(call.arguments, key, tool.parameters if tool else None)
        if key.startswith("length("):
            changed = _lengthen(call.arguments)
        elif key in call.arguments or own is not None or key.isidentifier():
            changed = {**call.arguments, key: _against(matcher, value)}
        else:
            changed = _map(call.arguments, lambda leaf: _against(matcher, leaf))
        return [(replace(call, arguments=changed), response)]

    return edit


def _against(matcher: Matcher, value: Json) -> Json:
    """A value of the same kind that the matcher must refuse."""
    match matcher:
        case forms.Anything():
            return None
        case forms.Pattern():
            return "#"
        case forms.Number():
            return matcher.value + 2 * matcher.tolerance + 7013
        case _:
            return scramble(value)


def _not_called(
    check: Check, tools: list[str], arguments: dict[str, Matcher], dialogue: Dialogue, turn: int
) -> Iterator[Counterexample]:
    values = {key: _satisfying(matcher, dialogue, turn) for key, matcher in arguments.items()}
    if any(value is None or not key.isidentifier() for key, value in values.items()):
        return
    steps = dialogue.turns[turn].steps
    names = tools or [tool.name for tool in dialogue.tools[:1]] or ["tool"]
    extra = [
        Step(
            calls=[ToolCall(name, values, id=f"extra{i}")],
            responses=[ToolResponse('{"success": true}', f"extra{i}", name)],
        )
        for i, name in enumerate(names)
    ]
    if not isinstance(check, forms.NotCalled):
        yield Counterexample(f"{names[0]} is called", check, with_steps(dialogue, turn, [*extra, *steps]), turn)
        return
    for name, step in zip(names, extra, strict=True):
        yield Counterexample(
            f"{name} is called", check, with_steps(dialogue, turn, [*steps[:-1], step, *steps[-1:]]), turn
        )


def _satisfying(matcher: Matcher, dialogue: Dialogue, turn: int) -> Json:
    match matcher:
        case forms.Equals() | forms.Contains() | forms.Number():
            return matcher.value
        case forms.OneOf():
            return matcher.values[0] if matcher.values else None
        case forms.CameFrom():
            for _, _, response in State(dialogue, turn, 0).earlier(0, matcher.tool):
                return next(walk(parsed(response.content), keys=False), None)
            return None
        case forms.Anything():
            return "anything"
        case _:
            return None


def _response(check: forms.Response, dialogue: Dialogue, turn: int) -> Iterator[Counterexample]:
    tool, matcher = check.tool, check.match
    if isinstance(matcher, forms.Anything):
        edit = (
            (lambda call, response: [(call, None)])
            if check.allow_error
            else lambda call, response: [(call, _error(response))]
        )
        what = "gives no answer" if check.allow_error else "answers with an error"
        yield Counterexample(f"{tool} {what}", check, edit_calls(dialogue, turn, tool, edit), turn)
    elif check.path is not None and "length(" in check.path:
        longer = edit_responses(dialogue, range(turn, turn + 1), tool, _lengthen)
        yield Counterexample(f"{tool} returns lists of other lengths", check, longer, turn)
    else:
        changed = edit_responses(
            dialogue, range(turn, turn + 1), tool, lambda value: _map(value, lambda leaf: _against(matcher, leaf))
        )
        yield Counterexample(f"{tool} returns other values", check, changed, turn)
        if isinstance(matcher, forms.CameFrom):
            earlier = edit_responses(dialogue, range(turn + 1), matcher.tool, scramble, but=tool)
            yield Counterexample("the responses that it came from are changed", check, earlier, turn, provenance=True)
    yield from _arguments(check, tool, check.arguments, dialogue, turn)


def _reply(check: forms.Reply, dialogue: Dialogue, turn: int) -> Iterator[Counterexample]:
    reply = dialogue.turns[turn].reply or ""
    said = statement(reply)
    state = State(dialogue, turn, len(dialogue.turns[turn].steps) - 1)

    # Each part is tried alone, so that a weak part cannot hide behind a strong one.
    def saying(text: str, part: forms.Reply, change: str) -> Counterexample:
        steps = dialogue.turns[turn].steps
        changed = with_steps(dialogue, turn, [*steps[:-1], replace(steps[-1], reply=text, wire=None)])
        return Counterexample(change, part, changed, turn)

    for fact in check.states:
        part = forms.Reply(states=[fact])
        values, origin = fact_values(fact, state)
        stated = next((value for value in values if states(said, value, fact.kind)), None)
        yield saying(unsaid(said.text, stated, fact.kind), part, f"the reply states something else than {stated!r}")
        if origin:
            other = edit_responses(dialogue, range(turn + 1), fact.tool, scramble)
            yield Counterexample(f"the tool returned something else than {stated!r}", part, other, turn)
    for fact in check.never:
        part = forms.Reply(never=[fact])
        values, _ = fact_values(fact, state)
        if values:
            yield saying(f"{reply} It is {scalar_text(values[0])}.", part, f"the reply also states {values[0]!r}")
    if check.asks:
        rest = said.text
        for question in said.questions:
            rest = rest.replace(question, "")
        yield saying(rest.strip() or "Okay.", forms.Reply(asks=True), "the question is cut from the reply")
    elif check.asks is False:
        yield saying(f"{reply} Which one do you want?", forms.Reply(asks=False), "the reply also asks a question")
    if check.pattern is not None:
        rest, part = _cut(said.text, check.pattern), forms.Reply(pattern=check.pattern)
        yield saying(rest, part, f"what matches {check.pattern!r} is cut from the reply")


def _cut(text: str, pattern: str) -> str:
    for _ in range(20):
        match = regex(pattern).search(text)
        if match is None or match.start() == match.end():
            break
        text = text[: match.start()] + text[match.end() :]
    return text if text.strip() else "Okay."


def _map(value: Json, change: Callable[[Json], Json]) -> Json:
    if isinstance(value, list) and value:
        return [_map(each, change) for each in value]
    if isinstance(value, dict) and value:
        return {key: _map(each, change) for key, each in value.items()}
    return change(value)


def _lengthen(value: Json) -> Json:
    if isinstance(value, list):
        return [*(_lengthen(each) for each in value), "changed"]
    return {key: _lengthen(each) for key, each in value.items()} if isinstance(value, dict) else value


def _error(response: ToolResponse | None) -> ToolResponse | None:
    return response and replace(response, content='{"error": "changed"}')
