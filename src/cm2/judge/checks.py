"""Deciding a check: does the item hold in the state after a step, and where does that rest?

A state is a turn so far or a whole dialogue that is over (`cm2.judge.scope`). A decision is a pure function of check
and state: nothing is remembered between calls (parsing is cached by text, see `cm2.judge.values`), so a growing
rollout, a changed copy and siblings of a group never see each other's answers.

Three rules keep a check honest:

- *What must not happen is settled when the turn is over.* `not_called`, `not`, an upper bound on calls, what a reply
  must never state and expressions may hold trivially at the start; they count only in a state that holds the turn's
  final reply, or in a dialogue that is over. An agent that says nothing earns nothing.
- *Only what really happened counts.* A malformed call is not a call that was made (but breaks "no call at all"); an
  error is no answer; a response of the same step is not "earlier"; a value that only an error repeated came from
  nowhere.
- *Values, not text.* Numbers, dates and times are compared as such; 5 does not stand in 15.
"""

from __future__ import annotations

from typing import Any as Json

import msgspec

from cm2 import check as forms
from cm2.check import Check, Matcher
from cm2.checklist import call_text
from cm2.dialogue import Dialogue, ToolCall
from cm2.judge.expression import decide_expression
from cm2.judge.reply import at_reply, decide_reply, shown
from cm2.judge.reply import fact_values as fact_values
from cm2.judge.reply import states as states
from cm2.judge.scope import Decision as Decision
from cm2.judge.scope import State as State
from cm2.judge.scope import final_reply, state_of
from cm2.judge.statement import number_of
from cm2.judge.text import clean
from cm2.judge.values import argument, contains, equal, is_error, is_number, leaves, parsed, search
from cm2.judge.values import regex as regex
from cm2.verdict import WHOLE, Pointer

SNIPPET = 200
CALLS, CONTENT = "assistant.tool_calls", "tool.content"


def decide(check: Check, dialogue: Dialogue, turn: int, upto: int) -> Decision:
    """Whether `check` holds in the state after step `upto` of turn `turn` (both 0-based; -1 is before the first step),
    or in the whole dialogue where the turn is `WHOLE` (-1).

    Raises:
        DataError: the check itself is broken (a regular expression, JMESPath or expression that does not parse), or an
            expression fails on this state.
        IndexError: the dialogue has no such turn or step.
    """
    return decide_in(check, state_of(dialogue, turn, upto))


def decide_in(check: Check, state: State) -> Decision:
    """Whether `check` holds in a state; of several checks in one state, what they need of it is made once."""
    decision: Decision = _DECIDERS[type(check)](check, state)
    return decision


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
    if (check.at_most is not None or check.at_least < 1) and not state.settled:
        return Decision(False, f"{_open(state)}: {check.tool} may still be called", found)
    return Decision(True, f"{check.tool} was called with matching arguments", found)


def _not_called(check: forms.NotCalled, state: State) -> Decision:
    for s, step in enumerate(state.steps):
        for call in step.calls:
            if check.tools and call.name not in check.tools:
                continue
            if not check.arguments or not _mismatch(check.arguments, call, s, state):
                return Decision(False, f"{call.name} was called", [_at_call(state, s, call)])
    what = ", ".join(check.tools) or "any tool"
    if not state.settled:
        return Decision(False, f"{_open(state)}: {what} may still be called")
    return Decision(True, f"no such call of {what}", _end(state))


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
                pointer = Pointer(*state.place(s), CONTENT, response.content[:SNIPPET])
                return Decision(True, f"{check.tool} returned it", [pointer])
            why = f"{check.tool} returned something else{f' at {check.path}' if check.path else ''}"
    return Decision(False, why)


def _before(check: forms.Before, state: State) -> Decision:
    for upto in range(state.upto + 1):
        past = state.past(upto)
        then, first = decide_in(check.then, past), decide_in(check.first, past)
        if then.met:
            return Decision(False, "it happened before what had to come first, or with it", then.evidence)
        if first.met:
            return Decision(True, "what had to come first did", first.evidence)
    return Decision(False, "what has to come first has not happened")


def _all(check: forms.All, state: State) -> Decision:
    evidence: list[Pointer] = []
    for one in check.checks:
        decision = decide_in(one, state)
        if not decision.met:
            return decision
        evidence += decision.evidence
    return Decision(bool(check.checks), "all hold" if check.checks else "there is nothing to hold", _unique(evidence))


def _any(check: forms.Any, state: State) -> Decision:
    reasons = []
    for one in check.checks:
        decision = decide_in(one, state)
        if decision.met:
            return decision
        reasons.append(decision.reason)
    return Decision(False, "; ".join(reasons) or "there is nothing to hold")


def _not(check: forms.Not, state: State) -> Decision:
    decision = decide_in(check.check, state)
    if decision.met:
        return Decision(False, f"it holds: {decision.reason}", decision.evidence)
    if not state.settled:
        return Decision(False, f"{_open(state)}: it may still come to hold")
    return Decision(True, f"it does not hold: {decision.reason}", _end(state))


_DECIDERS: dict[type, Json] = {
    forms.Called: _called,
    forms.NotCalled: _not_called,
    forms.Response: _response,
    forms.Reply: decide_reply,
    forms.Before: _before,
    forms.All: _all,
    forms.Any: _any,
    forms.Not: _not,
    forms.Expression: decide_expression,
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
            return f"argument {key} is {shown([value])}"
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


def _at_call(state: State, step: int, call: ToolCall) -> Pointer:
    text = call_text(call.name, call.raw if call.raw is not None else call.arguments)
    return Pointer(*state.place(step), CALLS, text[:SNIPPET])


def _end(state: State) -> list[Pointer]:
    """The reply that shows that it is over, where there is one."""
    return [at_reply(state, state.upto)] if final_reply(state.steps) is not None else []


def _open(state: State) -> str:
    return "nothing was done" if state.turn == WHOLE and state.over else "the turn is not over"


def _unique(pointers: list[Pointer]) -> list[Pointer]:
    found: list[Pointer] = []
    for pointer in pointers:
        if pointer not in found:
            found.append(pointer)
    return found
