"""One question: which answers count, what is asked again, and what becomes unscored."""

from __future__ import annotations

import pytest
from judge_askers import Scripted, asked, entry, ids
from test_llm_judge import FIRSTS, FOUR, REPLY, RUN, item, judge, met

from cm2.checklist import Checklist
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.llm import BudgetReached, ModelError, ProviderError


def last(verdicts) -> dict[str, bool | None]:
    return {verdict.item: verdict.met for verdict in verdicts}


def of(verdicts, id):
    return next(v for v in verdicts if v.item == id)


def test_only_missing_items_are_asked_again_and_only_once():
    verdicts, asker, made = judge(FIRSTS[:2], [entry("C2", 1, "book")])
    assert [ids(request) for request in asker.requests] == [["C0", "C1", "C2", "C3"], ["C2", "C3"]]
    assert last(verdicts) == {"C0": True, "C1": True, "C2": True, "C3": None}
    assert of(verdicts, "C3").reason == "unscored: no verdict was given" and of(verdicts, "C3").owner == "judge"
    assert made.counts.calls == 2 and made.counts.again == 1
    assert all("entry for this item" in one["problem"] for one in asked(asker.requests[1]))


def test_a_valid_decision_is_never_asked_again_a_no_least_of_all():
    _, asker, _ = judge([entry(f"C{n}", None) for n in range(4)])
    assert len(asker.requests) == 1
    _, asker, _ = judge([entry("C0", None), entry("C1", None), entry("C2", None)], [entry("C3", None)])
    assert ids(asker.requests[1]) == ["C3"]


def test_an_item_that_is_named_twice_is_asked_again_whatever_was_said():
    twice = [*FIRSTS[:3], entry("C3", None), entry("C3", 2, "A1 is booked")]
    verdicts, asker, _ = judge(twice, [entry("C3", None)])
    assert ids(asker.requests[1]) == ["C3"] and last(verdicts)["C3"] is False
    verdicts, asker, _ = judge(twice, twice)
    assert of(verdicts, "C3").met is None and "more than one" in of(verdicts, "C3").reason


def test_the_second_answer_is_never_mended_with_the_first():
    # The first said yes without a quote that stands; the second says nothing of it: no earlier mention counts.
    first = [*FIRSTS[:3], entry("C3", 2, "never said")]
    verdicts, _, _ = judge(first, [])
    assert last(verdicts)["C3"] is None


def test_items_that_were_not_asked_about_are_passed_over():
    verdicts, asker, _ = judge([*FIRSTS, entry("C9", 0, "search"), entry("", None)])
    assert len(asker.requests) == 1 and last(verdicts) == {"C0": True, "C1": True, "C2": False, "C3": True}


@pytest.mark.parametrize("step", [-1, 3, 99])
def test_a_step_that_the_turn_does_not_have_is_asked_again(step):
    verdicts, asker, _ = judge([*FIRSTS[:3], entry("C3", step, "A1 is booked")], [entry("C3", 2, "A1 is booked")])
    assert ids(asker.requests[1]) == ["C3"] and "does not have" in asked(asker.requests[1])[0]["problem"]
    assert last(verdicts)["C3"] is True


def test_a_whole_number_written_as_a_float_is_one():
    verdicts, asker, _ = judge([*FIRSTS[:3], {**entry("C3", 2, "A1 is booked"), "first_step": 2.0}])
    assert len(asker.requests) == 1 and met(verdicts)["C3"] == [False, False, True]


def test_a_value_that_is_not_allowed_is_asked_again():
    for wrong in (True, "2", 1.5):
        bad = {**entry("C3", 2, "A1 is booked"), "first_step": wrong}
        verdicts, asker, _ = judge([*FIRSTS[:3], bad], [entry("C3", None)])
        assert len(asker.requests) == 2 and last(verdicts)["C3"] is False, wrong


def test_a_yes_whose_quote_does_not_stand_is_void_and_asked_again_with_the_reason():
    first = [*FIRSTS[:3], entry("C3", 2, "B7 is booked")]
    verdicts, asker, _ = judge(first, [entry("C3", 2, "A1 is booked")])
    assert ids(asker.requests[1]) == ["C3"] and "quote does not stand" in asked(asker.requests[1])[0]["problem"]
    assert last(verdicts)["C3"] is True
    verdicts, _, _ = judge(first, first)
    assert of(verdicts, "C3").met is None and of(verdicts, "C3").reason.endswith("quote does not stand where it must")


def test_a_no_needs_no_quote():
    _, asker, _ = judge([*FIRSTS[:3], entry("C3", None, "nonsense that stands nowhere")])
    assert len(asker.requests) == 1


@pytest.mark.parametrize(
    ("id", "step", "quote", "stands"),
    [
        ("C0", 0, "search", True),
        ("C0", 1, "book", True),
        ("C0", 0, "book", False),  # only later: evidence from the future
        ("C0", 2, "A1 is booked", False),  # a reply that claims a call is no evidence of one
        ("C1", 1, "ok", True),
        ("C1", 1, "book(", False),  # a call is no answer of a tool
        ("C3", 2, "booked for you", True),
        ("C3", 2, "user 0", False),  # what a user says is no evidence of what the agent did
        ("C3", 2, "search", False),
    ],
)
def test_the_quote_must_stand_in_the_part_that_the_item_looks_at_and_not_later(id, step, quote, stands):
    checklist = Checklist(0, [one for one in FOUR.items if one.id == id])
    verdicts, asker, _ = judge([entry(id, step, quote)], [entry(id, None)], checklist=checklist)
    assert len(asker.requests) == (1 if stands else 2)
    assert met(verdicts)[id] == ([s >= step for s in range(3)] if stands else [False] * 3)


def test_the_second_chance_shares_the_prefix_of_the_first():
    _, asker, _ = judge(FIRSTS[:2], FIRSTS[2:])
    first, second = asker.requests
    assert first.messages[0] == second.messages[0]
    at = first.messages[1]["content"].index("one JSON object a line:")
    assert first.messages[1]["content"][:at] == second.messages[1]["content"][:at]
    assert "script" not in str(second.messages)  # nothing of the model's answer is repeated to it


# ---------------------------------------------------------------- failures


def test_a_provider_that_fails_leaves_items_unscored_and_is_named():
    verdicts, asker, made = judge(ProviderError("503 for ever", status=503))
    assert {(v.met, v.owner, v.failed) for v in verdicts} == {(None, "provider", True)} and len(verdicts) == 12
    assert all(v.reason == "unscored: the provider gave no answer: 503 for ever" for v in verdicts)
    assert len(asker.requests) == 1 and made.counts.calls == 1


def test_a_model_that_never_answers_validly_leaves_items_unscored_and_what_it_cost_is_told():
    verdicts, asker, made = judge(ModelError("prose only", cost=0.12))
    assert {(v.met, v.owner) for v in verdicts} == {(None, "judge")} and len(asker.requests) == 1
    assert sum(v.cost for v in verdicts) == pytest.approx(0.12) == made.counts.cost


def test_a_second_chance_that_fails_costs_only_what_was_asked_again():
    verdicts, _, _ = judge(FIRSTS[:2], ProviderError("timeout"))
    assert last(verdicts) == {"C0": True, "C1": True, "C2": None, "C3": None}
    assert of(verdicts, "C2").owner == "provider"


def test_what_the_second_chance_costs_is_paid_by_what_needed_it():
    verdicts, _, _ = judge(FIRSTS[:3], [entry("C3", None)], cost=0.12)
    by_item = {id: sum(v.cost for v in verdicts if v.item == id) for id in ("C0", "C3")}
    assert by_item == {"C0": pytest.approx(0.03), "C3": pytest.approx(0.15)}


@pytest.mark.parametrize("error", [ProviderError("bad key", status=401), BudgetReached("no money left")])
def test_what_would_fail_every_further_call_stops_the_judge(error):
    with pytest.raises(type(error)):
        judge(error)


def test_a_failed_step_is_unscored_and_the_next_one_is_asked():
    def answer(request):
        if request.where.step == 1:
            return ProviderError("503")
        return [entry(one["id"], False) for one in asked(request)]

    class Failing(Scripted):
        async def ask(self, request, check=None):
            if request.where.step == 1:
                self.requests.append(request)
                raise ProviderError("503")
            return await super().ask(request, check)

    asker = Failing(answer)
    verdicts = LLMJudge(asker, Judging(kind="llm", schedule="step")).judge(RUN, 0, Checklist(0, [item("C0")]))
    assert met(verdicts) == {"C0": [False, None, False]} and len(asker.requests) == 3


def test_a_request_says_where_it_comes_from():
    _, asker, _ = judge(FIRSTS)
    request = asker.requests[0]
    assert (request.role, request.affinity, request.stage) == ("judge", "d", "judge: turn")
    assert (request.where.dialogue, request.where.turn) == ("d", 0)


def test_the_plan_of_a_dry_run_is_a_valid_answer_that_leads_to_most_calls():
    for schedule, calls in (("turn", 1), ("step", 3)):
        plan = lambda request: request.planned["verdicts"]  # noqa: E731
        checklist = Checklist(0, [item("C0"), item("C1", REPLY), item("C2", depends=["C0"])])
        verdicts, asker, made = judge(plan, checklist=checklist, schedule=schedule)
        assert len(asker.requests) == calls and made.counts.again == 0 and None not in last(verdicts).values()
    # step: C0 holds at once so that C2 is asked about from then on; nothing else ever holds
    assert [ids(request) for request in asker.requests] == [["C0"], ["C2"], ["C1", "C2"]]
