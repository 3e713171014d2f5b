"""Failures become modes: by place and cause, wordings clustered, memory bounded, the same every time."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_logs import CALLS, CONTENT, REPLY, item, judged, outcome

from cm2.assure import failures as module
from cm2.assure.failures import EXAMPLES, OTHER, Failures, Modes, clusterer
from cm2.assure.failures_place import LONGEST, NOT_REACHED, cause_of, place_of
from cm2.assure.outcomes import Outcome
from cm2.check import Called, NotCalled
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.verdict import Pointer


def modes(outcomes: list[Outcome], seed: int = 0) -> tuple[Modes, Failures]:
    """Each outcome in a dialogue of its own."""
    found = Failures(seed)
    for number, one in enumerate(outcomes):
        found.add(judged([one], f"d{number}", number + 1), one, number)
    return found.modes(), found


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("argument seats is 4", "argument seats is #"),
        ("the reply does not state 'Sakura'", "the reply does not state …"),
        ('the reply does not state "it\'s", nor "b"', "the reply does not state …, nor …"),
        ("paid $1,200.50 on 2025-06-11 for R3X6", "paid # on # for #"),
        ('the response {"a": [1, 2]} came late', "the response … came late"),
        ("mail ann@example.org or see https://example.org/x", "mail … or see …"),
        ("the agent didn't ask", "the agent didn't ask"),
        ("  two\n lines  ", "two lines"),
        ("", "(no reason given)"),
    ],
)
def test_values_are_masked_and_words_are_kept(reason, cause):
    assert cause_of(reason) == cause


@given(st.text())
def test_masking_ends_and_is_stable_in_length(text):
    assert 0 < len(cause_of(text)) <= LONGEST


def test_one_place_and_one_cause_is_one_mode():
    found, _ = modes([outcome("fail", reason=f"argument seats is {n}") for n in range(5)])
    [mode] = found.modes
    assert (mode.cause, mode.count, mode.share, mode.estimated) == ("argument seats is #", 5, 1.0, False)
    assert mode.said == "argument seats is 0"
    assert found.failures == 5


def test_another_duty_tool_or_step_is_another_mode():
    call = [Pointer(0, 0, CALLS, 'pay({"amount":9})')]
    found, _ = modes(
        [
            outcome("fail", item("a")),
            outcome("fail", item("b")),
            outcome("fail", item("a"), evidence=call),
            outcome("fail", item("a"), evidence=[Pointer(0, 1, REPLY, "done")]),
            outcome("fail", item("a", check=Called("refund"))),
        ]
    )
    assert {(mode.duty, mode.tool, mode.step) for mode in found.modes} == {
        ("a", "", "tool call"),
        ("b", "", "tool call"),
        ("a", "pay", "tool call"),
        ("a", "", "reply"),
        ("a", "refund", "tool call"),
    }


def test_the_tool_is_the_checks_own_else_the_one_that_the_evidence_names():
    dialogue = Dialogue("d", [Turn("x", [Step(
        calls=[ToolCall("book", {"seats": 4}, "a"), ToolCall("pay", {}, "b")],
        responses=[ToolResponse("ok", "a"), ToolResponse("no money", "b")],
    )])])  # fmt: skip
    both = item("a", check=NotCalled(["book", "pay"]))
    said = [Pointer(0, 0, CONTENT, "no money")]
    assert place_of(dialogue, outcome("fail", both, evidence=said)).tool == "pay"
    assert place_of(dialogue, outcome("fail", item("a", check=Called("refund")), evidence=said)).tool == "refund"
    assert place_of(dialogue, outcome("fail", both, evidence=[Pointer(7, 7, CONTENT, "x")])).tool == ""


def test_a_turn_that_was_not_reached_is_a_class_of_its_own():
    missing = Outcome("d", "", 0, 3, item("a"), "fail", None)
    [mode] = modes([missing])[0].modes
    assert (mode.step, mode.cause) == (NOT_REACHED, "the run ended before this turn")
    assert mode.sentence == "a failed once: the run ended before this turn"


def test_modes_are_ordered_by_count_times_severity():
    critical, minor = item("c", "critical"), item("m", "minor")
    found, _ = modes([*[outcome("fail", minor)] * 7, *[outcome("fail", critical)] * 2])
    assert [(mode.duty, mode.count, mode.number) for mode in found.modes] == [("c", 2, 0), ("m", 7, 1)]


PARAPHRASES = [
    "The assistant never asked the customer to confirm the booking.",
    "The assistant did not ask the customer to confirm the booking first.",
    "It booked although the customer was never asked to confirm the booking.",
    "The refund amount in the reply is not the amount that the tool returned.",
    "The reply states a refund amount that the tool never returned.",
    "Refund amount in reply differs from the amount which the tool returned.",
]


def test_reasons_of_a_model_in_other_words_are_put_together_and_those_of_checks_are_not():
    pytest.importorskip("sklearn")
    found, _ = modes([outcome("fail", reason=text, judge="llm") for text in PARAPHRASES])
    assert sorted(mode.count for mode in found.modes) == [3, 3]
    assert all(mode.wordings == 3 for mode in found.modes)
    assert "clustering" in found.grouping
    exact, _ = modes([outcome("fail", reason=text) for text in PARAPHRASES])
    assert len(exact.modes) == 6


def test_clustering_does_not_depend_on_the_order():
    pytest.importorskip("sklearn")
    one, two = (
        modes([outcome("fail", reason=text, judge="llm") for text in texts])[0]
        for texts in (PARAPHRASES, PARAPHRASES[::-1])
    )
    assert [(mode.cause, mode.count) for mode in one.modes] == [(mode.cause, mode.count) for mode in two.modes]


def test_wordings_without_words_do_not_break_the_clustering():
    cluster = clusterer()
    if cluster is None:
        pytest.skip("scikit-learn is not installed")
    texts = ["!!!", "???", "a reason", "!"]
    assert sorted(text for group in cluster(texts) for text in group) == sorted(texts)
    assert cluster(["!!!", "???"]) == [["!!!"], ["???"]]
    assert cluster(["one"]) == [["one"]]


def test_without_scikit_learn_wordings_stay_apart_and_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    found, _ = modes([outcome("fail", reason=text, judge="llm") for text in PARAPHRASES])
    assert len(found.modes) == 6
    assert "cm2[classifier]" in found.grouping


def test_more_wordings_than_are_kept_become_a_sample_that_says_so(monkeypatch):
    monkeypatch.setattr(module, "WORDINGS", 20)
    monkeypatch.setattr(module, "SAMPLED", 400)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    names = [f"{a}{b}" for a in "bcdfghjklm" for b in "aeiouy"]  # 60 wordings, one of them in half of the failures
    reasons = [names[n % 60] if n % 2 else "always" for n in range(2000)]
    found, failures = modes([outcome("fail", reason=reason, judge="llm") for reason in reasons])
    first = found.modes[0]
    assert first.cause == "always" and first.estimated
    assert 800 < first.count < 1200  # 1000 are true; the standard error of 400 is 50
    assert abs(sum(mode.count for mode in found.modes) - 2000) < 60
    assert "sampled" in found.grouping
    assert all(len(group.sample) <= 400 and len(group.wordings) <= 20 for group in failures._groups.values())


def test_checks_with_ever_new_words_are_bounded_too(monkeypatch):
    monkeypatch.setattr(module, "WORDINGS", 20)
    monkeypatch.setattr(module, "SAMPLED", 30)
    names = [
        "".join(pair) for pair in zip("abcdefghij" * 10, [c for c in "klmnopqrst" for _ in range(10)], strict=True)
    ]
    found, failures = modes([outcome("fail", reason=name) for name in names])
    assert found.failures == 100 and found.modes[0].estimated
    assert all(len(group.sample) <= 30 for group in failures._groups.values())


def test_places_are_bounded_and_what_is_over_is_counted_together(monkeypatch):
    monkeypatch.setattr(module, "PLACES", 3)
    made = [outcome("fail", item("a", check=Called(f"tool-{name}"))) for name in "abcde"]
    found, failures = modes(made)
    assert {mode.tool: mode.count for mode in found.modes} == {"tool-a": 1, "tool-b": 1, "tool-c": 1, OTHER: 2}
    assert failures.mode_of(judged([made[4]]), made[4]) == next(m.number for m in found.modes if m.tool == OTHER)


def test_examples_are_few_and_of_different_dialogues():
    one = outcome("fail")
    found = Failures()
    for number in range(50):
        dialogue = judged([one, one], f"d{number}", number + 1)
        found.add(dialogue, one, number)
        found.add(dialogue, one, number)
    [mode] = found.modes().modes
    assert mode.count == 100
    assert len({example.dialogue for example in mode.examples}) == EXAMPLES


def test_the_same_seed_gives_the_same_examples_and_a_failure_finds_its_mode():
    made = [outcome("fail", reason=f"argument {'abc'[n % 3]} is {n}") for n in range(60)]
    first, failures = modes(made, seed=1)
    again, _ = modes(made, seed=1)
    other, _ = modes(made, seed=2)
    assert first == again
    assert [mode.examples for mode in first.modes] != [mode.examples for mode in other.modes]
    for one in made:
        number = failures.mode_of(judged([one]), one)
        assert first.modes[number].cause == cause_of(one.reason)
    unseen = outcome("fail", reason="never seen")
    assert failures.mode_of(judged([unseen]), unseen) is None
