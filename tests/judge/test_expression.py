"""Expressions: what they read, what they may call, when they are settled, and what happens where they cannot be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_builders import call, say, talk

from cm2 import check as forms
from cm2.check import Expression
from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.errors import DataError
from cm2.judge import ChecksJudge, decide
from cm2.judge.expression import LONGEST, Unevaluable, compiled
from cm2.judge.record import record
from cm2.judge.scope import state_of
from cm2.judge.witness import conjuncts, loop_depth, witness
from cm2.verdict import WHOLE

BOOKING = {"id": "ABC123", "price": 1200.5, "day": "2024-05-20", "seats": ["12A", "12B"], "note": None}


def dialogue() -> Dialogue:
    """A booking is read, its cancellation asked for, confirmed and made; a lookup fails in between."""
    made = talk(
        [call("get_booking", BOOKING, id="ABC123"), say("It costs $1,200.50. Shall I cancel it?")],
        [call("get_rule", "Error: no such rule", rule="refund"), call("cancel_booking", {"ok": True}, id="ABC123")],
        [say("It is cancelled.")],
        tools=[Tool("get_booking"), Tool("get_rule"), Tool("cancel_booking")],
    )
    for turn, text in zip(made.turns, ("Cancel ABC123.", "Yes, please.", "Thanks."), strict=True):
        turn.user = text
    made.system = "Be kind."
    made.opening = [Step(reply="Welcome!")]
    return made


def holds(cel: str, turn: int = WHOLE, upto: int = WHOLE, on: Dialogue | None = None) -> bool:
    return decide(Expression(cel), on or dialogue(), turn, upto).met


def test_the_record_has_what_happened_and_nothing_else() -> None:
    found = record(state_of(dialogue(), WHOLE, WHOLE))
    assert [(c["index"], c["turn"], c["step"], c["tool"], c["ok"], c["writes"]) for c in found["calls"]] == [
        (0, 0, 0, "get_booking", True, False),
        (1, 1, 0, "get_rule", False, False),
        (2, 1, 1, "cancel_booking", True, True),
    ]
    read, failed, wrote = found["calls"]
    assert read["args"] == {"id": "ABC123"} and read["result"] == BOOKING and read["text"] == json.dumps(BOOKING)
    assert (read["user"], read["said"], read["error"]) == ("Cancel ABC123.", "Welcome!", "")
    assert failed["error"] == "Error: no such rule" and failed["result"] == "Error: no such rule"
    assert (wrote["user"], wrote["said"]) == ("Yes, please.", "It costs $1,200.50. Shall I cancel it?")
    assert found["writes"] == [wrote]
    assert found["users"][1] == {"turn": 1, "text": "Yes, please."}
    assert found["replies"] == [
        {"turn": 0, "step": 1, "text": "It costs $1,200.50. Shall I cancel it?", "final": True},
        {"turn": 2, "step": 0, "text": "It is cancelled.", "final": True},
    ]
    assert (found["reply"], found["turn"], found["system"]) == ("It is cancelled.", -1, "Be kind.")
    assert found["tools"] == ["get_booking", "get_rule", "cancel_booking"]


def test_a_turn_sees_itself_so_far_and_what_came_before_but_nothing_later() -> None:
    first = record(state_of(dialogue(), 0, 0))
    assert [c["tool"] for c in first["calls"]] == ["get_booking"] and first["reply"] == "" and first["replies"] == []
    assert len(first["users"]) == 1
    second = record(state_of(dialogue(), 1, 0))
    assert [c["tool"] for c in second["calls"]] == ["get_booking", "get_rule"] and second["writes"] == []
    assert second["reply"] == ""  # that of the turn before is not its own
    assert record(state_of(dialogue(), 2, 0))["reply"] == "It is cancelled."


def test_malformed_and_unanswered_calls_are_there_and_not_ok() -> None:
    broken = ToolCall("pay", None, raw="{", error="not JSON")
    step = Step(calls=[broken, ToolCall("pay", {"sum": 1})], responses=[])
    found = record(state_of(Dialogue("d", [Turn("u", [step])]), WHOLE, WHOLE))
    assert [(c["ok"], c["args"], c["error"], c["result"], c["text"]) for c in found["calls"]] == [
        (False, {}, "not JSON", None, ""),
        (False, {"sum": 1}, "", None, ""),
    ]
    assert found["writes"] == []


@pytest.mark.parametrize(
    ("cel", "expected"),
    [
        ("calls.size() == 3 && writes.size() == 1", True),
        ("calls.all(c, c.ok)", False),
        ("calls.exists(c, c.tool == 'cancel_booking' && c.args.id == calls[0].result.id)", True),
        ("calls[0].result.price > 1200", True),
        ("num('$1,200') == 1200 && num(5) == 5.0", True),
        ("mentions(replies[0].text, calls[0].result.price)", True),
        ("mentions(replies[0].text, 1200)", False),
        ("mentions('on May 20th', '2024-05-20') && !mentions('on May 21st', '2024-05-20')", True),
        ("mentions('seats 12A and 12B', calls[0].result.seats) && !mentions('seat 12A', calls[0].result.seats)", True),
        ("mentions('anything', calls[0].result.note) || mentions('anything', [])", False),
        ("day(calls[0].result.day) == timestamp('2024-05-20T00:00:00Z')", True),
        ("moment('2024-05-20T12:30:00') - day('May 20, 2024') == duration('750m')", True),
        ("minutes_between('2024-05-20T12:00:00', '2024-05-20T13:30:00') == 90", True),
        ("minutes_between(day('2024-05-20'), '2024-05-19T00:00:00') == -1440", True),
        ("get(calls[0], 'result.seats[1]', '') == '12B' && get(calls[0], 'result.nix.nax', 'none') == 'none'", True),
        ("get(calls[0].result, 'note', 7) == 7", True),
        ("unique([1, 2, 1, '1']).size() == 3", False),  # a number and its text are the same value
        ("unique([1, 2, 1]) == [1, 2]", True),
        ("sum(['$5', 2.5]) == 7.5 && max([1, 5]) == 5 && min(['3', 4]) == 3", True),
        ("flat([[1], [2, 3]]).size() == 3", True),
        ("same('Ann  LEE', 'ann lee') && same('5', 5) && !same('5', 6)", True),
        ("lower('ÄB') == 'äb' && words('Ann, Lee!') == ['ann', 'lee']", True),
        ("text({'a': [1]}) == '{\"a\":[1]}' && text(5.0) == '5'", True),
        ("asks(replies[0].text) && !asks(replies[1].text)", True),
        ("holds(calls[0].result, {'id': 'ABC123'}) && !holds(calls[0].result, {'id': 'X'})", True),
        ("confirms(writes[0].user)", True),
        ("figures('It is $5.50 for ABC123, on 2024-05-20, 3 left') == ['$5.50', 'abc123', '3']", True),
        ("unsupported('$1,200.50 for abc123 and 3 seats', [calls[0].result]).size() == 0", True),
        ("unsupported('$1,300 for XYZ999', [calls[0].text]) == ['$1,300', 'xyz999']", True),
        ("calls[0].nix == 1 || true", True),
        ("has(calls[0].args.nix) && calls[0].args.nix == 1", False),
        ("replies.exists(r, r.text.matches('(?i)CANCELLED'))", True),
        ("'it\\'s && (|| ? )' == reply || // a comment && (\n true", True),
    ],
)
def test_what_expressions_say_of_a_dialogue(cel: str, expected: bool) -> None:
    assert holds(cel) is expected


@pytest.mark.parametrize(
    ("cel", "says"),
    [
        ("calls.exists(c, ", "broken"),
        ("undefined > 1", "undeclared reference to 'undefined', at line 1, column 1"),
        ("foo(1)", "undeclared reference to 'foo'"),
        ("size(calls) > 'a'", "no matching overload"),
        ("calls.size()", "gives int, not true or false"),
        ("calls.map(c, c.tool)", "not true or false"),
        ("''", "not true or false"),
        ("", "broken"),
        ("true \ud800", "broken"),
        ("calls.all(a, calls.all(b, calls.all(c, calls.all(d, true))))", "4 loops inside each other, at most 3"),
        ("true && " * 1000 + "true", f"at most {LONGEST}"),
        ("(" * 200 + "true" + ")" * 200, "recursion limit"),
        ("confirms(5)", "no matching overload"),
    ],
)
def test_a_broken_expression_says_what_is_wrong(cel: str, says: str) -> None:
    with pytest.raises(DataError, match=__import__("re").escape(says)) as raised:
        decide(Expression(cel), dialogue(), WHOLE, WHOLE)
    assert not isinstance(raised.value, Unevaluable)


@pytest.mark.parametrize(
    "cel",
    [
        "calls[0].nix == 1",
        "calls[9].ok",
        "num('abc') > 1",
        "day('soon') < day('2024-05-01')",
        "calls[0].result.price < 'a'",
        "calls[0].text.matches('(')",
        "calls[0].result.note.more == 1",
        "max([]) > 1",
        "1 / (calls.size() - 3) == 1",
        "calls[0].result.price",
    ],
)
def test_an_expression_that_fails_on_a_dialogue_is_unscored_and_never_a_fail(cel: str) -> None:
    item = Item("a", "assistant.tool_calls", "q?", "p", 1.0, check=Expression(cel))
    (verdict,) = ChecksJudge().judge(dialogue(), WHOLE, Checklist(WHOLE, [item]))
    assert verdict.met is None and verdict.applies and verdict.owner == "data"
    assert verdict.reason.startswith("unscored: ")


def test_reasons_tell_a_broken_check_from_one_that_fails_here() -> None:
    def kind(cel: str) -> str:
        item = Item("a", "assistant.tool_calls", "q?", "p", 1.0, check=Expression(cel))
        (verdict,) = ChecksJudge().judge(dialogue(), WHOLE, Checklist(WHOLE, [item]))
        return verdict.why_unscored

    assert kind("calls.nix(") == "the check is broken"
    assert kind("calls[0].nix == 1") == "the check fails on this dialogue"


def test_in_a_turn_it_counts_only_with_the_final_reply() -> None:
    made = talk([call("get_booking", BOOKING, id="ABC123"), say("Done.")], [call("get_booking", BOOKING, id="ABC123")])
    assert [holds("true", 0, step, made) for step in (-1, 0, 1)] == [False, False, True]
    assert not holds("true", 1, 0, made)  # broken off
    assert holds("calls.filter(c, c.turn == turn).size() == 1", 0, 1, made)


def test_inside_other_forms_it_is_settled_as_they_are() -> None:
    yes, no = Expression("true"), Expression("false")
    made = dialogue()
    assert decide(forms.All([yes, forms.Called("get_booking")]), made, WHOLE, WHOLE).met
    assert decide(forms.Any([no, yes]), made, WHOLE, WHOLE).met
    assert decide(forms.Not(no), made, WHOLE, WHOLE).met and not decide(forms.Not(yes), made, WHOLE, WHOLE).met


def test_a_dialogue_in_which_nothing_was_done_earns_nothing() -> None:
    assert not holds("true", on=Dialogue("d", [Turn("hi", [])]))
    assert not holds("true", on=Dialogue("d", []))


def test_evidence_points_at_what_a_loop_turned_on() -> None:
    failed = decide(Expression("calls.all(c, c.ok)"), dialogue(), WHOLE, WHOLE)
    assert [(p.turn, p.step, p.part) for p in failed.evidence] == [(1, 0, "assistant.tool_calls")]
    found = decide(Expression("true && replies.exists(r, r.text.contains('cancelled'))"), dialogue(), WHOLE, WHOLE)
    assert found.met and found.evidence == []  # of a conjunction every part bears it
    one = decide(Expression("replies.exists(r, r.text.contains('cancelled'))"), dialogue(), WHOLE, WHOLE)
    assert [(p.turn, p.step, p.snippet) for p in one.evidence] == [(2, 0, "It is cancelled.")]
    part = decide(Expression("calls.size() == 3 && !calls.exists(c, c.writes)"), dialogue(), WHOLE, WHOLE)
    assert [(p.turn, p.step) for p in part.evidence] == [(1, 1)]
    assert part.reason == "not true: !calls.exists(c, c.writes)"


def test_unicode_and_what_json_cannot_hold_are_read_all_the_same() -> None:
    odd = talk(
        [call("get", '{"name": "Zoë \\ud83d\\ude00", "big": 123456789012345678901234567890}'), say("né \ud800 🙂")]
    )
    assert holds("calls[0].result.big > 1000.0 && reply.startsWith('né') && reply.endsWith('🙂')", on=odd)
    assert holds("mentions(text(calls[0].result), 'Zoë')", on=odd)


def test_what_a_tool_answered_can_nest_deeply() -> None:
    deep = talk([call("get", "[" * 300 + "1" + "]" * 300), say("ok")])
    assert holds("calls[0].result.size() == 1", on=deep)


def test_loops_over_a_huge_dialogue_end_unscored_and_not_late() -> None:
    many = talk([*(call("get", {"n": n}, n=n) for n in range(300)), say("done")])
    assert holds("calls.all(c, c.ok)", on=many)
    with pytest.raises(Unevaluable, match="loop too often"):
        holds("calls.all(a, calls.all(b, a.index >= 0 && b.index >= 0))", on=many)


def test_functions_never_leak_an_error_of_python_as_a_verdict() -> None:
    with pytest.raises(Unevaluable):
        holds("get(calls[0], '][', 1) == 1")


def test_compiling_again_gives_the_same_program() -> None:
    assert compiled("calls.size() > 0") is compiled("calls.size() > 0")


@pytest.mark.parametrize(
    ("cel", "depth"),
    [
        ("true", 0),
        ("calls.all(a, true) && calls.all(b, true)", 1),
        ("calls.all(a, calls . exists ( b, true))", 2),
        ("'.all(.all(' == reply", 0),
        ("calls.filter(a, true).all(b, true)", 1),
        ("calls.all(a, f(calls.map(b, b)))", 2),
        ('"\\".all(" == reply // .all(', 0),
    ],
)
def test_loops_are_counted_where_they_stand(cel: str, depth: int) -> None:
    assert loop_depth(cel) == depth


def test_how_expressions_are_taken_apart() -> None:
    assert [part.strip() for part in conjuncts("a && (b && c) && d('&&')")] == ["a", "(b && c)", "d('&&')"]
    assert conjuncts("a && b || c") == ["a && b || c"]
    assert witness("calls.all(c, c.ok)", False) == "calls.filter(c, !( c.ok))"
    assert witness("calls.all(c, c.ok)", True) is None
    assert witness("!(calls.exists(c, c.ok))", False) == "calls.filter(c, ( c.ok))"
    assert witness("a.b(x).exists(c, c.ok)", True) == "a.b(x).filter(c, ( c.ok))"
    assert witness("a && calls.all(c, c.ok)", False) is None
    assert witness("f(calls.all(c, c.ok))", False) is None


@given(st.text(max_size=60))
def test_any_text_is_a_clear_error_or_an_expression(cel: str) -> None:
    try:
        decide(Expression(cel), dialogue(), WHOLE, WHOLE)
    except DataError as error:
        assert str(error)


@given(st.lists(st.sampled_from(["yes", "get", "x", "5", "\ud800", "é", "'", '"', "\\", "\n"]), max_size=8))
def test_what_users_and_tools_say_never_breaks_an_expression(parts: list[str]) -> None:
    text = "".join(parts)
    made = Dialogue("d", [Turn(text, [Step(calls=[ToolCall("t", {"a": text})], responses=[ToolResponse(text)])])])
    assert holds("calls.all(c, c.args.a == c.user)", on=made)
    assert isinstance(
        holds("mentions(users[0].text, 5) || confirms(users[0].text) || words(calls[0].text) == []", on=made), bool
    )


@given(st.sampled_from(["a+", "(?i)É", "^x|y$", r"\bcan't\b", "[^a]", ""]), st.text("aéÉxy can't\n🙂", max_size=12))
def test_patterns_are_found_as_the_language_says(pattern: str, text: str) -> None:
    from cm2.judge.expression import environment, facts, with_cached_patterns

    made = Dialogue("d", [Turn(text, [Step(reply=pattern)])])
    cel = "users[0].text.matches(reply)"
    theirs = environment().compile(cel).eval(facts(state_of(made, WHOLE, WHOLE))).plain_value()
    assert with_cached_patterns(cel) == "users[0].text.re_find(reply)"
    if made.turns[0].steps[0].reply:
        assert holds(cel, on=made) is theirs


def test_only_calls_of_matches_are_rewritten() -> None:
    from cm2.judge.expression import with_cached_patterns

    assert with_cached_patterns("a.matches ('.matches(') && matches(b, c) // matches(") == (
        "a.re_find ('.matches(') && re_find(b, c) // matches("
    )
    assert with_cached_patterns("c.args.matches == 1 && rematches(x)") == "c.args.matches == 1 && rematches(x)"
