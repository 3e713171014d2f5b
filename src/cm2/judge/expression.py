"""Expression: a check that is a condition in the Common Expression Language, true or false of a state.

What it reads is `cm2.judge.record`, and what it may call beside the language's own functions is
`cm2.judge.functions`; docs/policy.md shows both with examples. It is settled like `not`: only in a state with the
turn's final reply, or in a dialogue that is over; as the occasion of a duty, in the turn's last state. Earlier turns
stand in the record of a turn too: compare `c.turn` with `turn` where only this one is meant.

Two things can go wrong, and neither is ever a fail: an expression that is broken in itself (syntax, an unknown name,
types that never fit), which lint finds; and one that fails on a dialogue (a key that is absent, "abc" < 1). An error in
one branch of `&&` and `||` does not matter where the other decides.

Bounded: 4,000 characters, 3 loops inside each other, 10,000 passes through loops altogether, 32 levels of nesting,
regular expressions of linear time.
"""

from __future__ import annotations

import itertools
import re
from functools import cache, lru_cache
from typing import Any

from cm2 import check as forms
from cm2.checklist import call_text
from cm2.errors import DataError
from cm2.judge import functions
from cm2.judge.record import record, storable
from cm2.judge.scope import Decision, State
from cm2.judge.values import regex
from cm2.judge.witness import blanked, conjuncts, loop_depth, witness
from cm2.verdict import Pointer

LONGEST = 4000
DEEPEST = 3
SNIPPET = 200
SHOWN = 5
MATCHES = "re_find"
_FIX = "correct the expression; docs/policy.md lists what it can read and call"
_WHERE = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


class Unevaluable(DataError):
    """The expression is well-formed and fails on this state."""


def decide_expression(check: forms.Expression, state: State) -> Decision:
    """Whether the expression is true of the state.

    Raises:
        DataError: it is broken; `Unevaluable`: it fails on this state.
    """
    program = compiled(check.cel)
    if not state.settled:
        return Decision(False, "the turn is not over: it may still change")
    met = _evaluate(program, check.cel, state)
    if not isinstance(met, bool):
        message = f"the expression gives {type(met).__name__}, not true or false"
        raise DataError(message, fix="compare it with something")
    part = check.cel.strip()
    if not met:
        for one in conjuncts(check.cel):
            if one.strip() != part and _try(one, state) is False:
                part = one.strip()
                break
    told = part if len(part) <= SNIPPET else part[: SNIPPET - 1] + "…"
    reason = f"true: {told}" if met else f"not true: {told}"
    return Decision(met, " ".join(reason.split()), _evidence(part, met, state))


def _evidence(part: str, met: bool, state: State) -> list[Pointer]:
    """The calls and messages that a loop at the root of the expression turned on."""
    shows = witness(part, met)
    found = _try(shows, state) if shows else None
    pointers = []
    for one in found[:SHOWN] if isinstance(found, list) else []:
        if isinstance(one, dict) and {"turn", "step"} <= one.keys():
            if "tool" in one:
                text, focus = call_text(str(one["tool"]), one.get("args")), "assistant.tool_calls"
            else:
                text, focus = str(one.get("text", "")), "assistant.content.user_visible_reply"
            pointers.append(Pointer(int(one["turn"]), int(one["step"]), focus, text[:SNIPPET]))
    return pointers


def _try(cel: str, state: State) -> Any:
    try:
        return _evaluate(compiled(cel, any_type=True), cel, state)
    except DataError:
        return None


def _evaluate(program: Any, cel: str, state: State) -> Any:
    try:
        value = _run(program, facts(state))
    except _Unholdable:
        value = _run(program, _activation(storable(record(state))))
    return value


class _Unholdable(Exception):
    """The record has a text or number that the language cannot hold."""


def _run(program: Any, activation: Any) -> Any:
    try:
        value = program.eval(activation)
        kind = value.type().name()
        if kind != "*error*" and kind.lower() != "error":
            return value.plain_value()
        message = str(value.plain_value())
    except (RuntimeError, UnicodeError) as error:
        message = str(error)
    except RecursionError as error:
        message = f"too deeply nested: {error}"
    if "basic_string" in message or "out of range for" in message or "surrogates" in message:
        raise _Unholdable(message)
    raise Unevaluable(f"the expression fails: {_plain(message)}", fix="guard it with has(…), or use get(…, default)")


def facts(state: State) -> Any:
    """The record as the runtime reads it, made once for all expressions about the state."""
    if "facts" not in state.kept:
        state.kept["facts"] = _activation(record(state))
    return state.kept["facts"]


def _activation(values: dict[str, Any]) -> Any:
    return environment().Activation(values)


def compiled(cel: str, any_type: bool = False) -> Any:
    """The program of an expression.

    Args:
        cel: the expression.
        any_type: it need not be a condition.

    Raises:
        DataError: it does not parse, names what there is not, compares what never compares, or is too large.
    """
    program, kind = _compiled(cel)
    if not any_type and kind not in ("BOOL", "DYN"):
        raise DataError(f"the expression gives {kind.lower()}, not true or false", fix="compare it with something")
    return program


@lru_cache(maxsize=4096)
def _compiled(cel: str) -> tuple[Any, str]:
    if len(cel) > LONGEST:
        raise DataError(f"the expression has {len(cel)} characters, at most {LONGEST} are read", fix="split the duty")
    if loop_depth(cel) > DEEPEST:
        message = f"the expression has {loop_depth(cel)} loops inside each other, at most {DEEPEST} are run"
        raise DataError(message, fix="split the duty")
    try:
        program = environment().compile(with_cached_patterns(cel))
    except (RuntimeError, TypeError, UnicodeError) as error:
        raise DataError(f"the expression is broken: {_located(str(error), cel)}", fix=_FIX) from error
    return program, program.return_type().name().upper()


def _located(message: str, cel: str) -> str:
    found = _WHERE.search(message)
    if found is None:
        return _plain(message)
    line, column = int(found[1]), int(found[2])
    told = found[3].replace(" (in container '')", "")
    if line < 1:
        return told
    near = "".join(cel.split("\n")[line - 1 : line])[max(0, column - 12) : column + 12].strip()
    return f"{told}, at line {line}, column {column}, near {near!r}"


def _plain(message: str) -> str:
    told = re.sub(r"^(?:UNKNOWN|INVALID_ARGUMENT|NOT_FOUND|INTERNAL|CANCELLED): ", "", message.strip())
    told = re.sub(r"\s*\[[A-Z_]+\]$", "", told).replace("Iteration budget exceeded", "it would loop too often")
    return " ".join(told.split())[:300]


@cache
def environment() -> Any:
    """The language with the record's variables and the functions; made once."""
    cel = _cel()
    of = cel.Type
    rows = of.List(of.Map(of.STRING, of.DYN))
    variables = {
        "calls": rows,
        "writes": rows,
        "users": rows,
        "replies": rows,
        "reply": of.STRING,
        "tools": of.List(of.STRING),
        "system": of.STRING,
        "turn": of.INT,
    }
    made = [_declared(name) for name in functions.FUNCTIONS]
    texts = {"return_type": of.BOOL, "parameters": [of.STRING, of.STRING], "impl": _found}
    kinds = [cel.Overload(f"{MATCHES}_{member}", is_member=member, **texts) for member in (False, True)]
    return cel.NewEnv(variables=variables, functions=[*made, cel.FunctionDecl(MATCHES, kinds)])


def with_cached_patterns(cel: str) -> str:
    """The expression with our `matches`: the one of the runtime compiles the pattern anew for every text, up to a
    millisecond each. The name is as long as the other, so that places in messages stay true."""
    made = cel
    for found in re.finditer(r"\bmatches(?=\s*\()", blanked(cel)):
        made = made[: found.start()] + MATCHES + made[found.end() :]
    return made


def _found(text: str, pattern: str) -> bool:
    return regex(pattern).search(text) is not None


def _declared(name: str) -> Any:
    """A function in every combination of types that it takes: the runtime chooses by type, and knows no "any"."""
    cel = _cel()
    of = cel.Type
    types = {kind: getattr(of, kind.upper()) for kind in (*functions.ANY, "timestamp", "dyn")}
    implementation, result, parameters = functions.FUNCTIONS[name]
    result_type = of.List(of.DYN) if result == "list" else types[result]
    overloads = [
        cel.Overload(
            f"{name}_{'_'.join(kinds)}",
            return_type=result_type,
            parameters=[types[kind] for kind in kinds],
            is_member=False,
            impl=implementation,
        )
        for kinds in itertools.product(*parameters)
    ]
    return cel.FunctionDecl(name, overloads)


def _cel() -> Any:
    from cel_expr_python import cel  # not above: most commands need no expressions

    return cel
