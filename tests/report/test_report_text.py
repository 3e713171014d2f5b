"""Text, choice and charts: the small functions under a report."""

from __future__ import annotations

import math

import pytest
from fabricated import checklists, verdict
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from cm2.checklist import Checklist, Item
from cm2.credit import score
from cm2.dialogue import Dialogue, Step, Turn
from cm2.report import text as module
from cm2.report.cases import share, spread
from cm2.report.outcome import outcomes, reward, score_of
from cm2.report.page import chance, duration, number, signed
from cm2.report.small_chart import running_mean, tick
from cm2.report.source import Interval, interval
from cm2.report.svg import COLOURS, inline, settings
from cm2.report.text import Piece, cut, scrub, visible
from cm2.rollout.trace import Rollout
from cm2.verdict import Verdict


@given(st.text(st.characters(codec=None, categories=None)))
def test_visible_text_can_always_be_written_and_holds_nothing_invisible(text):
    shown = visible(text)
    shown.encode()
    assert all(char.isprintable() or char in "\n\t\u200c\u200d\u00a0\u3000" or char.isspace() for char in shown)
    assert "\x00" not in shown and "\u202e" not in shown


@pytest.mark.parametrize(
    "text",
    ["héllo 日本 🙂 👩‍👧", "a\n\tb", "max_tokens=4000", "order_key: 12", "monkey=banana", "the key is under the mat"],
)
def test_ordinary_text_stays_as_it_is(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token sk-abc123DEF456", "token [hidden]"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [hidden]"),
        ('"client_secret": "s3cr3t99"', '"client_secret": "[hidden]"'),
        ("AKIAABCDEFGHIJKLMNOP", "[hidden]"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl", "[hidden]"),
    ],
)
def test_credentials_are_hidden_and_their_names_stay(text, shown):
    assert scrub(text) == shown


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=5), st.integers(0, 40))
def test_cutting_keeps_the_text_and_marks_exactly_the_snippets(text, snippets, longest):
    pieces, left_out = cut(text, [(str(n), snippet) for n, snippet in enumerate(snippets)], longest)
    assert "".join(piece.text for piece in pieces) == text[:longest]
    assert left_out == max(0, len(text) - longest)
    for n, snippet in enumerate(snippets):
        marked = "".join(piece.text for piece in pieces if str(n) in piece.marks)
        start = text.find(snippet)
        assert marked == (text[start : start + len(snippet)][: max(0, longest - start)] if start >= 0 else "")


def test_overlapping_evidence_shares_a_piece():
    pieces, _ = cut("abcdef", [("x", "abcd"), ("y", "cdef")], 100)
    assert pieces == [Piece("ab", ("x",)), Piece("cd", ("x", "y")), Piece("ef", ("y",))]


def test_places_are_shared_evenly_and_none_is_wasted():
    assert share([96, 64, 200], 24) == [8, 8, 8]
    assert share([2, 64], 10) == [2, 8]
    assert share([2, 1], 10) == [2, 1]
    assert share([], 5) == []


def test_a_spread_choice_holds_both_ends():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([1, 2, 3], 1) == [1]


def came(*verdicts, steps=3):
    rollout = Rollout(
        "t",
        Dialogue("t", [Turn("u", [Step(reply="r") for _ in range(steps)])]),
        checklists=checklists(),
        reference_turns=2,
    )
    rollout.verdicts = list(verdicts)
    return [(item.state, item.step) for item in outcomes(rollout, rollout.checklists[0])]


def test_an_early_yes_counts_at_the_step_before_which_its_dependency_held():
    yes = [verdict(0, s, item, True) for s in range(3) for item in ("C0", "C1")]
    assert came(*yes, *[verdict(0, s, "C2", False) for s in range(3)]) == [("met", 0), ("met", 1), ("unmet", None)]


def test_a_yes_stays_a_yes_when_the_judge_wavers():
    said = [verdict(0, s, "C0", s == 1) for s in range(3)]
    assert came(*said)[0] == ("met", 1)


def test_what_nobody_decided_is_unscored_and_what_hangs_on_it_too():
    said = [verdict(0, s, "C0", None) for s in range(3)] + [verdict(0, s, "C1", True) for s in range(3)]
    assert came(*said)[:2] == [("unscored", None), ("unscored", None)]


def test_verdicts_that_do_not_fit_the_turn_settle_nothing():
    assert {state for state, _ in came(verdict(0, 9, "C0", True))} == {"unscored"}


def test_a_chart_has_classes_for_colours_and_no_style():
    with settings():
        figure = Figure(figsize=(2, 1))
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        axes.plot([0, 1], [0, 1], "o-", color=COLOURS["run1"])
        axes.text(0, 0, "<b>$x$</b>")
        drawn = inline(figure, 'a "label"')
    assert 'class="stroke-run1"' in drawn and "&lt;b&gt;$x$&lt;/b&gt;" in drawn
    assert "style" not in drawn and "#0102" not in drawn and "<metadata" not in drawn


def test_a_running_mean_passes_over_gaps():
    means = running_mean([1.0, math.nan, 3.0])
    assert means == [2.0, 2.0, 2.0]
    assert all(map(math.isnan, running_mean([math.nan])))


def test_numbers_read_well():
    assert [number(v) for v in (0.54132, 3, 1234.5, 2e-5, None, 0.0)] == [
        "0.541",
        "3",
        "1,234.5",
        "2.0e−5",
        "–",
        "0.000",
    ]
    assert [tick(v) for v in (0.25, 12500, 2e-5, 0.0, 3e6)] == ["0.25", "12.5k", "2e-5", "0", "3M"]
    assert [signed(0.1), signed(-0.1), signed(None)] == ["+0.100", "−0.100", "–"]
    assert [chance(0.0004), chance(0.0442), chance(None)] == ["< 0.001", "0.044", "–"]
    assert [duration(4.21), duration(200), duration(7500)] == ["4.2 s", "3.3 min", "2 h 05 min"]


def test_intervals_are_read_leniently():
    assert interval({"mean": 0.5, "low": 0.4, "high": 0.6}) == Interval(0.5, 0.4, 0.6)
    assert interval({"mean": 0.5, "low": None}) == Interval(0.5)
    assert interval(0.5) == Interval(0.5)
    assert interval(True) is None and interval("x") is None and interval({"mean": math.nan}) is None


PARTS = st.sampled_from(
    [
        *("sk-abc123DEF", "ghp_" + "a1" * 12, "hf_" + "b2" * 10, "xoxb-123456789012", "AKIAABCDEFGHIJKLMNOP"),
        *("Bearer ", "bearer\t", "abcdef123", "api_key=", "Api-Key: ", "ſecret=", "\u212aey=abcd", "PASSWORD = "),
        *("passwd:", "auth_token'", "key=", "https://me:pw@host/", "-----BEGIN RSA PRIVATE KEY-----", "x", " ", "\n"),
        *("é", "s3cr3t99", '"', "client", "eyJhbGciOi.eyJzd.c2"),
    ]
)


@given(st.lists(PARTS, max_size=8).map("".join))
def test_what_the_hints_spare_holds_no_credential(text):
    """The hints are only there for speed: the patterns alone give the same."""
    plain = text
    for pattern in module._SECRETS:
        plain = pattern.sub(module.HIDDEN, plain)
    for pattern in module._AFTER:
        plain = pattern.sub(rf"\1{module.HIDDEN}", plain)
    assert scrub(text) == plain


def test_a_score_made_again_is_the_one_that_the_run_recorded_behind_a_graded_gate_and_read_strictly():
    """Two turns of one item each; the first misses its strict item, so the second counts half: (0 + 0.5) / 2."""
    strict = Item("C0", "tool.content", "?", "yes", 1.0, [], [], True, [])
    lists = [Checklist(0, [strict]), Checklist(1, [Item("C0", "tool.content", "?", "yes", 1.0, [], [], False, [])])]
    turns = [Turn("a", [Step(reply="x")]), Turn("b", [Step(reply="y")])]
    verdicts = [Verdict("d", 0, 0, "C0", False), Verdict("d", 1, 0, "C0", True)]
    paid = score(lists, verdicts, [1, 1], 2, "gated", 0.5)
    rollout = Rollout("d", Dialogue("d", turns), checklists=lists, reference_turns=2, verdicts=verdicts)
    assert score_of(rollout).reward == 0.5  # the method's own: nothing is recorded
    rollout.score = paid.as_json()
    assert rollout.score["discount"] == 0.5 and paid.reward == 0.25
    assert score_of(rollout).reward == reward(rollout) == 0.25
    for broken in ("half", -1, None, True):
        rollout.score = paid.as_json() | {"discount": broken}
        assert score_of(rollout).reward == 0.5


def test_items_are_shown_as_the_run_read_them():
    """An early yes: read gated it waits for what it depends on, read strictly it is satisfied and never pays."""
    first = Item("C0", "tool.content", "?", "yes", 0.5, [], [], False, [])
    late = Item("C1", "tool.content", "?", "yes", 0.5, [], [], False, ["C0"])
    lists = [Checklist(0, [first, late])]
    turn = Turn("a", [Step(reply="x"), Step(reply="y")])
    verdicts = [
        Verdict("d", 0, step, id, met) for id, marks in (("C0", [True, True]), ("C1", [True, False]))
        for step, met in enumerate(marks)
    ]  # fmt: skip
    rollout = Rollout("d", Dialogue("d", [turn]), checklists=lists, reference_turns=1, verdicts=verdicts)
    assert [one.state for one in outcomes(rollout, lists[0])] == ["met", "unmet"]
    rollout.score = score(lists, verdicts, [2], 1, "strict").as_json()
    assert [one.state for one in outcomes(rollout, lists[0])] == ["met", "met"]
    assert score_of(rollout).reward == reward(rollout) == 0.5
