"""Deciding a check: does the item hold in the state after a step, and where does that rest?

The state after step `upto` of a turn (x_{s+1} of the method, section 3) is everything said in earlier turns plus steps
0 … upto of this turn, with their tool responses. A decision is a pure function of check and state: nothing is
remembered between calls (parsing is cached by text, see `cm2.judge.values`), so a growing rollout, a changed copy
and siblings of a group never see each other's answers.

Three rules keep a check honest:

- *What must not happen is settled when the turn is over.* `not_called`, `not`, an upper bound on calls and what a reply
  must never state hold trivially at the start; they count only in a state that holds the turn's final reply. An agent
  that says nothing earns nothing.
- *Only what really happened counts.* A malformed call is not a call that was made (but breaks "no call at all"); an
  error is no answer; a response of the same step is not "earlier"; a value that only an error repeated came from
  nowhere.
- *Values, not text.* Numbers, dates and times are compared as such; 5 does not stand in 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any as Json

import msgspec
import re2

from cm2 import check as forms
from cm2.check import Check, Fact, Matcher
from cm2.checklist import call_text
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse
from cm2.errors import DataError
from cm2.judge import moments
from cm2.judge.statement import Statement, number_of, statement
from cm2.judge.text import clean
from cm2.judge.values import argument, contains, equal, is_error, is_number, leaves, parsed, scalar_text, search
from cm2.verdict import Pointer

SNIPPET = 200
CALLS, CONTENT, REPLY = "assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply"


class Decision(msgspec.Struct):
    """Whether a check holds, why in one sentence, and the places in the judged trajectory that it rests on."""

    met: bool
    reason: str
    evidence: list[Pointer] = []


class State(msgspec.Struct, frozen=True):
    """The transcript up to and with step `upto` of `turn`."""

    dialogue: Dialogue
    turn: int
    upto: int

    @property
    def steps(self) -> list[Step]:
        """The steps of this turn that have happened."""
        return self.dialogue.turns[self.turn].steps[: self.upto + 1]

    @property
    def reply(self) -> str | None:
        """The visible reply that ended the turn, or None while the agent still acts or where it said nothing."""
        steps = self.steps
        if not steps or steps[-1].calls or not steps[-1].reply:
            return None
        return steps[-1].reply if clean(steps[-1].reply).strip() else None

    def earlier(self, step: int, tool: str | None) -> Iterator[tuple[int, int, ToolResponse]]:
        """Responses, errors left out, from before step `step` of this turn: (turn, step, response), latest first."""
        for t in range(self.turn, -1, -1):
            steps = self.dialogue.turns[t].steps
            for s in range(min(step, len(steps)) - 1 if t == self.turn else len(steps) - 1, -1, -1):
                for i in range(len(steps[s].calls) - 1, -1, -1):
                    response = steps[s].response_to(i)
                    if response is None or (tool is not None and steps[s].calls[i].name != tool):
                        continue
                    if not is_error(response):
                        yield t, s, response


def decide(check: Check, dialogue: Dialogue, turn: int, upto: int) -> Decision:
    """Whether `check` holds in the state after step `upto` of turn `turn` (both 0-based; -1 is before the first step).

    Raises:
        DataError: the check itself is broken (a regular expression or JMESPath that does not parse).
        IndexError: the dialogue has no such turn or step.
    """
    if not 0 <= turn < len(dialogue.turns) or not -1 <= upto < len(dialogue.turns[turn].steps):
        raise IndexError(f"dialogue {dialogue.id} has no step {upto} in turn {turn}")
    return _decide(check, State(dialogue, turn, upto))


def _decide(check: Check, state: State) -> Decision:
    return _DECIDERS[type(check)](check, state)


def _called(check: forms.Called, state: State) -> Decision:
    found: list[Pointer] = []
    near = ""
    for s, step in enumerate(state.steps):
        for i, call in enumerate(step.calls):
            if call.name != check.tool:
                continue
            miss = _mismatch(check.arguments, call, s, state)
            if not miss and check.answered:
                response = step.response_to(i)
                miss = "no response" if response is None else "the response is an error" if is_error(response) else ""
            if miss:
                near = miss
            else:
                found.append(_at_call(state, s, call))
    count = len(found)
    if check.at_most is not None and count > check.at_most:
        return Decision(False, f"{check.tool} was called {count} times, at most {check.at_most} allowed", found)
    if count < check.at_least:
        why = f" ({near})" if near else ""
        return Decision(False, f"{count} of {check.at_least} matching calls of {check.tool}{why}", found)
    if (check.at_most is not None or check.at_least < 1) and state.reply is None:
        return Decision(False, f"the turn is not over: {check.tool} may still be called", found)
    return Decision(True, f"{check.tool} was called with matching arguments", found)


def _not_called(check: forms.NotCalled, state: State) -> Decision:
    for s, step in enumerate(state.steps):
        for call in step.calls:
            if check.tools and call.name not in check.tools:
                continue
            if not check.arguments or not _mismatch(check.arguments, call, s, state):
                return Decision(False, f"{call.name} was called", [_at_call(state, s, call)])
    what = ", ".join(check.tools) or "any tool"
    if state.reply is None:
        return Decision(False, f"the turn is not over: {what} may still be called")
    return Decision(True, f"no such call of {what}", [_at_reply(state)])


def _response(check: forms.Response, state: State) -> Decision:
    why = f"no response of {check.tool}"
    for s, step in enumerate(state.steps):
        for i, call in enumerate(step.calls):
            if call.name != check.tool or (check.arguments and _mismatch(check.arguments, call, s, state)):
                continue
            response = step.response_to(i)
            if response is None or (not check.allow_error and is_error(response)):
                why = f"{check.tool} answered with {'nothing' if response is None else 'an error'}"
                continue
            value = parsed(response.content)
            if check.path is not None:
                value = search(check.path, value)
            if matches(check.match, value, state, s):
                pointer = Pointer(state.turn, s, CONTENT, response.content[:SNIPPET])
                return Decision(True, f"{check.tool} returned it", [pointer])
            why = f"{check.tool} returned something else{f' at {check.path}' if check.path else ''}"
    return Decision(False, why)


def _reply(check: forms.Reply, state: State) -> Decision:
    text = state.reply
    if text is None:
        return Decision(False, "the turn has no final reply yet")
    said = statement(text)
    here = [_at_reply(state)]
    for fact in check.states:
        values, origin = fact_values(fact, state)
        if not any(states(said, value, fact.kind) for value in values):
            return Decision(False, f"the reply does not state {_shown(values)}", here + origin)
        here += origin
    for fact in check.never:
        values, origin = fact_values(fact, state)
        wrong = next((value for value in values if states(said, value, fact.kind)), None)
        if wrong is not None:
            return Decision(False, f"the reply states {_shown([wrong])}", here + origin)
    if check.asks is not None and bool(said.questions) is not check.asks:
        return Decision(
            False, "the reply asks nothing" if check.asks else f"the reply asks {said.questions[0]!r}", here
        )
    if check.pattern is not None and not regex(check.pattern).search(said.text):
        return Decision(False, f"the reply does not match {check.pattern!r}", here)
    return Decision(True, "the reply says what it must", here)


def _before(check: forms.Before, state: State) -> Decision:
    for upto in range(state.upto + 1):
        past = State(state.dialogue, state.turn, upto)
        then, first = _decide(check.then, past), _decide(check.first, past)
        if then.met:
            return Decision(False, "it happened before what had to come first, or with it", then.evidence)
        if first.met:
            return Decision(True, "what had to come first did", first.evidence)
    return Decision(False, "what has to come first has not happened")


def _all(check: forms.All, state: State) -> Decision:
    evidence: list[Pointer] = []
    for one in check.checks:
        decision = _decide(one, state)
        if not decision.met:
            return decision
        evidence += decision.evidence
    return Decision(bool(check.checks), "all hold" if check.checks else "there is nothing to hold", _unique(evidence))


def _any(check: forms.Any, state: State) -> Decision:
    reasons = []
    for one in check.checks:
        decision = _decide(one, state)
        if decision.met:
            return decision
        reasons.append(decision.reason)
    return Decision(False, "; ".join(reasons) or "there is nothing to hold")


def _not(check: forms.Not, state: State) -> Decision:
    decision = _decide(check.check, state)
    if decision.met:
        return Decision(False, f"it holds: {decision.reason}", decision.evidence)
    if state.reply is None:
        return Decision(False, "the turn is not over: it may still come to hold")
    return Decision(True, f"it does not hold: {decision.reason}", [_at_reply(state)])


_DECIDERS: dict[type, Json] = {
    forms.Called: _called,
    forms.NotCalled: _not_called,
    forms.Response: _response,
    forms.Reply: _reply,
    forms.Before: _before,
    forms.All: _all,
    forms.Any: _any,
    forms.Not: _not,
}


def _mismatch(wanted: dict[str, Matcher], call: ToolCall, step: int, state: State) -> str:
    """Why a call is not the one wanted ("" where it is). A malformed call is never a call that was made."""
    if not call.valid:
        return "the call is malformed"
    if not wanted:
        return ""
    tool = state.dialogue.tool(call.name)
    schema = tool.parameters if tool else None
    for key, matcher in wanted.items():
        value, own = argument(call.arguments, key, schema)
        if not matches(matcher, value, state, step, own):
            return f"argument {key} is {_shown([value])}"
    return ""


def matches(matcher: Matcher, value: Json, state: State, step: int, schema: Json = None) -> bool:
    """Whether a value (None where absent) satisfies a matcher. `step` is where the value stands: `came_from` looks only
    at responses of earlier steps and turns. `schema` is the value's own JSON Schema, where known."""
    match matcher:
        case forms.Equals():
            return equal(value, matcher.value, matcher.fold, schema)
        case forms.OneOf():
            return any(equal(value, one, matcher.fold, schema) for one in matcher.values)
        case forms.Contains():
            return value is not None and contains(value, matcher.value, matcher.fold)
        case forms.Number():
            number = value if is_number(value) else number_of(value) if isinstance(value, str) else None
            return number is not None and abs(number - matcher.value) <= matcher.tolerance + 1e-9
        case forms.CameFrom():
            return value is not None and any(
                leaves(response.content, matcher.path).hold(value)
                for _, _, response in state.earlier(step, matcher.tool)
            )
        case forms.Pattern():
            if value is None:
                return False
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            return regex(matcher.pattern).search(clean(text)) is not None
        case forms.Anything():
            return value is not None


def fact_values(fact: Fact, state: State) -> tuple[list[Json], list[Pointer]]:
    """The forms of a fact that a reply may state, and where they stand: this rollout's own latest response that has
    the value, else the listed ones."""
    if fact.tool is not None or fact.path is not None:
        for t, s, response in state.earlier(len(state.steps), fact.tool):
            value = parsed(response.content)
            value = search(fact.path, value) if fact.path is not None else value
            if value is not None and value not in ([], ""):
                found = value if isinstance(value, list) else [value]
                return found, [Pointer(t, s, CONTENT, response.content[:SNIPPET])]
    return fact.any_of, []


def states(said: Statement, value: Json, kind: str) -> bool:
    """Whether a reply states a value, normalised by the fact's kind; others are compared as text."""
    if value is None or isinstance(value, (dict, list)):
        return False
    if kind == "number" or is_number(value):
        number = value if is_number(value) else number_of(value) if isinstance(value, str) else None
        if number is not None:
            return said.states_number(float(number))
    text = scalar_text(value)
    if kind == "date":
        day = moments.date_of(text)
        if day is not None:
            return said.states_date(day)
    if kind == "time":
        clock = moments.time_of(text)
        if clock is not None:
            return said.states_time(clock)
    return said.states_text(text)


@lru_cache(maxsize=4096)
def regex(pattern: str) -> Json:
    """The compiled RE2 expression; DataError where it does not parse."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise DataError(f"{pattern!r} is no RE2 expression: {why}", fix="correct the check's pattern") from error


def _at_call(state: State, step: int, call: ToolCall) -> Pointer:
    text = call_text(call.name, call.raw if call.raw is not None else call.arguments)
    return Pointer(state.turn, step, CALLS, text[:SNIPPET])


def _at_reply(state: State) -> Pointer:
    return Pointer(state.turn, state.upto, REPLY, (state.steps[-1].reply or "")[:SNIPPET])


def _unique(pointers: list[Pointer]) -> list[Pointer]:
    found: list[Pointer] = []
    for pointer in pointers:
        if pointer not in found:
            found.append(pointer)
    return found


def _shown(values: list[Json]) -> str:
    text = " or ".join(repr(value) for value in values[:3]) or "any accepted form (none is known)"
    return text if len(text) <= 120 else text[:117] + "…"
