"""A whole dialogue as one long turn that is over: by examples, and against a second, literal implementation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_builders import call, calls, say, talk

from cm2.check import (
    All,
    Anything,
    Before,
    Called,
    CameFrom,
    Check,
    Equals,
    Fact,
    Not,
    NotCalled,
    Reply,
    Response,
)
from cm2.check import Any as AnyOf
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.judge import decide
from cm2.judge.statement import statement
from cm2.verdict import WHOLE


def made() -> Dialogue:
    return talk(
        [call("find", {"id": "A1", "price": 12}, name_="x"), say("It costs $12.")],
        [say("Are you sure?")],
        [
            call("pay", {"ok": True}, id="A1"),
            Step(reply="Wait.", calls=[]),
            call("find", {"price": 15}),
            say("Paid 15."),
        ],
    )


def met(check: Check, dialogue: Dialogue | None = None) -> bool:
    return decide(check, dialogue or made(), WHOLE, WHOLE).met


def test_calls_of_all_turns_count() -> None:
    assert met(Called("find", at_least=2)) and not met(Called("find", at_least=3))
    assert met(Called("find", at_most=2)) and not met(Called("find", at_most=1))
    assert met(NotCalled(["refund"])) and not met(NotCalled(["pay"]))


def test_a_value_came_from_an_earlier_turn() -> None:
    assert met(Called("pay", {"id": CameFrom("find", "id")}))
    assert not met(Called("pay", {"id": CameFrom("pay")}))


def test_an_answer_of_the_same_step_is_not_an_earlier_one() -> None:
    both = calls(("find", {}, {"id": "A1"}), ("pay", {"id": "A1"}, {}))
    assert not met(Called("pay", {"id": CameFrom("find")}), talk([say("Hm.")], [both]))


def test_what_must_not_happen_is_settled_without_a_final_reply_too() -> None:
    broken_off = talk([say("hm")], [call("find", {"a": 1})])
    assert met(NotCalled(["pay"]), broken_off) and met(Not(Called("pay")), broken_off)
    assert met(Called("find", at_most=1), broken_off)


@pytest.mark.parametrize(
    "dialogue", [Dialogue("d"), Dialogue("d", [Turn("hi")]), Dialogue("d", [Turn("a"), Turn("b")])]
)
def test_a_dialogue_without_a_step_earns_nothing(dialogue: Dialogue) -> None:
    for check in (NotCalled(), Not(Called("x")), Called("x", at_least=0), Reply(never=[Fact(["x"])]), All([])):
        assert not met(check, dialogue)


def test_each_fact_may_stand_in_a_reply_of_its_own() -> None:
    assert met(Reply(states=[Fact([12], "number"), Fact([15], "number")]))
    assert not met(Reply(states=[Fact([12], "number"), Fact([16], "number")]))
    assert met(Reply(asks=True)) and not met(Reply(asks=False))
    assert met(Reply(pattern="^Paid")) and not met(Reply(pattern="^Wait"))  # that reply did not end a turn


def test_a_fact_is_read_from_the_latest_response_when_the_reply_was_given() -> None:
    price = Fact(kind="number", tool="find", path="price")
    assert met(Reply(states=[price]))
    early = talk([call("find", {"price": 12}), say("It costs $15.")], [call("find", {"price": 15}), say("Bye.")])
    assert not met(Reply(states=[price]), early)


def test_what_must_never_be_said_may_stand_in_no_reply_at_all() -> None:
    assert not met(Reply(never=[Fact(["wait"])]))  # in the middle of a turn
    assert met(Reply(never=[Fact(["refund"])]))


def test_what_a_tool_returns_only_afterwards_was_not_said() -> None:
    price = Reply(never=[Fact(kind="number", tool="find", path="price")])
    guessed = talk([Step("", "Is it 12?", *_parts(call("find", {"price": 12}))), say("Let me see.")])
    assert met(price, guessed)
    told = talk(
        [call("find", {"price": 12}), Step("", "It is 12.", *_parts(call("find", {"price": 15}))), say("Well.")]
    )
    assert not met(price, told)


def _parts(step: Step) -> tuple[list[ToolCall], list[ToolResponse]]:
    return step.calls, step.responses


def test_before_orders_across_turns() -> None:
    assert met(Before(Called("find"), Called("pay"))) and not met(Before(Called("pay"), Called("find")))
    assert met(Before(Reply(asks=True), Called("pay")))
    assert not met(Before(NotCalled(["refund"]), Called("pay")))  # settled only when it is over
    assert not met(Before(Reply(never=[Fact(["refund"])]), Called("pay")))


def test_pointers_carry_the_true_turn_and_step() -> None:
    decision = decide(
        All([Called("pay"), Response("find", "price", Equals(15)), Reply(pattern="Paid")]), made(), -1, -1
    )
    assert decision.met
    assert [(p.turn, p.step) for p in decision.evidence] == [(2, 0), (2, 2), (2, 3)]
    asked = decide(Reply(asks=False), made(), WHOLE, WHOLE)
    assert [(p.turn, p.step) for p in asked.evidence] == [(1, 0)]


def test_a_turn_of_its_own_is_judged_as_before() -> None:
    assert not decide(Called("find", at_least=2), made(), 2, 3).met
    assert decide(Reply(states=[Fact([15], "number")]), made(), 2, 3).met


# A second implementation, literal and slow: every leaf by its sentence in docs/policy.md.

TOOLS = ("a", "b")
VALUES = (1, 2, 3)


def literal(check: Check, dialogue: Dialogue, upto: int | None = None) -> bool:
    rows = [(t, s, step) for t, turn in enumerate(dialogue.turns) for s, step in enumerate(turn.steps)]
    seen = rows if upto is None else rows[: upto + 1]
    over = bool(rows) and len(seen) == len(rows)
    made = [(i, c, r) for i, (_, _, step) in enumerate(seen) for c, r in pairs(step)]
    match check:
        case Called():
            good = [i for i, c, r in made if fits(check, c, r, i, made)]
            if len(good) < check.at_least or (check.at_most is not None and len(good) > check.at_most):
                return False
            return over or (check.at_most is None and check.at_least > 0)
        case NotCalled():
            return over and not any(c.name in check.tools for _, c, _ in made)
        case Response():
            return any(c.name == check.tool and r is not None and value(r) == check.match.value for _, c, r in made)
        case Reply():
            finals = [
                step.reply
                for t, s, step in seen
                if not step.calls and step.reply and s == len(dialogue.turns[t].steps) - 1
            ]
            said = [step.reply for _, _, step in seen if step.reply]
            if not finals or (check.never and not over):
                return False
            for fact in check.states:
                if not any(statement(text).states_number(fact.any_of[0]) for text in finals):
                    return False
            return not any(statement(text).states_number(fact.any_of[0]) for fact in check.never for text in said)
        case Before():
            for at in range(len(seen)):
                if literal(check.then, dialogue, at):
                    return False
                if literal(check.first, dialogue, at):
                    return True
            return False
        case All():
            return bool(check.checks) and all(literal(one, dialogue, upto) for one in check.checks)
        case AnyOf():
            return any(literal(one, dialogue, upto) for one in check.checks)
        case Not():
            return over and not literal(check.check, dialogue, upto)
    raise AssertionError(check)


def pairs(step: Step) -> Iterator[tuple[ToolCall, ToolResponse | None]]:
    for call_ in step.calls:
        yield call_, next((r for r in step.responses if r.call_id == call_.id), None)


def value(response: ToolResponse) -> Any:
    return int(response.content)


def fits(check: Called, call_: ToolCall, response: ToolResponse | None, at: int, made: list[Any]) -> bool:
    if call_.name != check.tool or (check.answered and response is None):
        return False
    for name, matcher in check.arguments.items():
        given_ = call_.arguments.get(name)
        if isinstance(matcher, Equals) and given_ != matcher.value:
            return False
        if isinstance(matcher, Anything) and given_ is None:
            return False
        if isinstance(matcher, CameFrom):
            earlier = [value(r) for i, c, r in made if i < at and r is not None and matcher.tool in (None, c.name)]
            if given_ not in earlier:
                return False
    return True


tools, values = st.sampled_from(TOOLS), st.sampled_from(VALUES)
matchers = st.one_of(st.builds(Equals, values), st.just(Anything()), st.builds(CameFrom, st.one_of(st.none(), tools)))
facts = st.builds(lambda v: Fact([v], "number"), values)
leaf = st.one_of(
    st.builds(
        Called,
        tools,
        st.dictionaries(st.just("x"), matchers),
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, 2)),
        st.booleans(),
    ),
    st.builds(NotCalled, st.lists(tools, min_size=1, max_size=2)),
    st.builds(lambda tool, v: Response(tool, None, Equals(v)), tools, values),
    st.builds(Reply, st.lists(facts, max_size=2), st.lists(facts, max_size=2)),
)
checks = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds(Before, inner, inner),
        st.builds(All, st.lists(inner, max_size=3)),
        st.builds(AnyOf, st.lists(inner, max_size=3)),
        st.builds(Not, inner),
    ),
    max_leaves=5,
)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    found = Dialogue("d")
    for t in range(draw(st.integers(0, 3))):
        turn = Turn(f"u{t}")
        for s in range(draw(st.integers(0, 3))):
            step = Step(reply=draw(st.one_of(st.none(), st.builds("it is {}".format, values))))
            for k in range(draw(st.integers(0, 2))):
                id = f"{t}{s}{k}"
                step.calls.append(ToolCall(draw(tools), draw(st.dictionaries(st.just("x"), values)), id=id))
                if draw(st.booleans()):
                    step.responses.append(ToolResponse(str(draw(values)), call_id=id))
            turn.steps.append(step)
        found.turns.append(turn)
    return found


@given(checks, dialogues())
def test_it_agrees_with_a_literal_second_implementation(check: Check, dialogue: Dialogue) -> None:
    assert met(check, dialogue) == literal(check, dialogue)


@given(checks, dialogues())
def test_every_pointer_stands_in_the_dialogue(check: Check, dialogue: Dialogue) -> None:
    for pointer in decide(check, dialogue, WHOLE, WHOLE).evidence:
        step = dialogue.turns[pointer.turn].steps[pointer.step]
        text = " ".join(
            [
                step.reply or "",
                *(f"{c.name}({__import__('json').dumps(c.arguments, separators=(',', ':'))})" for c in step.calls),
            ]
            + [r.content for r in step.responses]
        )
        assert pointer.snippet in text


@given(checks, dialogues())
def test_one_turn_is_the_same_whole_or_not_where_it_has_its_reply(check: Check, dialogue: Dialogue) -> None:
    """The two scopes agree on a dialogue of one turn that ended with a reply, but for what was said on the way."""
    if len(dialogue.turns) != 1 or not dialogue.turns[0].steps:
        return
    steps = dialogue.turns[0].steps
    for step in steps[:-1]:
        step.reply = None
    steps[-1].calls, steps[-1].responses, steps[-1].reply = [], [], "it is 2"
    assert met(check, dialogue) == decide(check, dialogue, 0, len(steps) - 1).met
