"""Deciding what a reply says.

In a turn it is the reply that ended the turn which counts. Over a whole dialogue every condition may be met by a reply
of its own: each fact must stand in some final reply, some final reply must ask or match; what must never be said may
stand in nothing that the user ever saw.
"""

from __future__ import annotations

from typing import Any as Json

from cm2 import check as forms
from cm2.check import Fact
from cm2.judge import moments
from cm2.judge.scope import Decision, State, Whole
from cm2.judge.statement import Statement, number_of, statement
from cm2.judge.text import clean
from cm2.judge.values import is_number, parsed, regex, scalar_text, search
from cm2.verdict import Pointer

SNIPPET = 200
CONTENT, REPLY = "tool.content", "assistant.content.user_visible_reply"


def decide_reply(check: forms.Reply, state: State) -> Decision:
    """Whether the replies of the state say what they must."""
    if isinstance(state, Whole):
        return _over_all(check, state)
    text = state.reply
    if text is None:
        return Decision(False, "the turn has no final reply yet")
    said = statement(text)
    here = [at_reply(state, state.upto)]
    for fact in check.states:
        values, origin = fact_values(fact, state)
        if not any(states(said, value, fact.kind) for value in values):
            return Decision(False, f"the reply does not state {shown(values)}", here + origin)
        here += origin
    for fact in check.never:
        values, origin = fact_values(fact, state)
        wrong = next((value for value in values if states(said, value, fact.kind)), None)
        if wrong is not None:
            return Decision(False, f"the reply states {shown([wrong])}", here + origin)
    if check.asks is not None and bool(said.questions) is not check.asks:
        return Decision(
            False, "the reply asks nothing" if check.asks else f"the reply asks {said.questions[0]!r}", here
        )
    if check.pattern is not None and not regex(check.pattern).search(said.text):
        return Decision(False, f"the reply does not match {check.pattern!r}", here)
    return Decision(True, "the reply says what it must", here)


def _over_all(check: forms.Reply, state: Whole) -> Decision:
    finals = state.final_replies
    if not finals:
        return Decision(False, "the dialogue has no final reply")
    said = {at: statement(state.flat[at].reply or "") for at in finals}
    found: list[Pointer] = []
    for fact in check.states:
        tried: list[Json] = []
        for at in finals:
            values, origin = fact_values(fact, state.past(at))
            if any(states(said[at], value, fact.kind) for value in values):
                found += [at_reply(state, at), *origin]
                break
            tried = values or tried
        else:
            return Decision(False, f"no reply states {shown(tried)}", [at_reply(state, finals[-1])])
    for at, step in enumerate(state.steps if check.never else ()):
        if not (step.reply and clean(step.reply).strip()):
            continue
        for fact in check.never:
            values, origin = fact_values(fact, state.past(at - 1 if step.calls else at))
            wrong = next((value for value in values if states(statement(step.reply), value, fact.kind)), None)
            if wrong is not None:
                return Decision(False, f"a reply states {shown([wrong])}", [at_reply(state, at), *origin])
    asking = [at for at in finals if said[at].questions] if check.asks is not None else []
    if check.asks and not asking:
        return Decision(False, "no reply asks anything", [at_reply(state, finals[-1])])
    if check.asks is False and asking:
        return Decision(False, f"a reply asks {said[asking[0]].questions[0]!r}", [at_reply(state, asking[0])])
    found += [at_reply(state, at) for at in asking[:1]]
    if check.pattern is not None:
        matching = next((at for at in finals if regex(check.pattern).search(said[at].text)), None)
        if matching is None:
            return Decision(False, f"no reply matches {check.pattern!r}", [at_reply(state, finals[-1])])
        found.append(at_reply(state, matching))
    if check.never and not state.settled:
        return Decision(False, "the dialogue is not over: it may still be said")
    return Decision(True, "the replies say what they must", found or [at_reply(state, finals[-1])])


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


def at_reply(state: State, step: int) -> Pointer:
    """Where the reply of a step of the state stands."""
    return Pointer(*state.place(step), REPLY, (state.steps[step].reply or "")[:SNIPPET])


def shown(values: list[Json]) -> str:
    """Values in a reason, cut to a line."""
    text = " or ".join(repr(value) for value in values[:3]) or "any accepted form (none is known)"
    return text if len(text) <= 120 else text[:117] + "…"
