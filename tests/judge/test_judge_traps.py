"""The traps of published judges, each with the consequence that it must not have."""

from __future__ import annotations

from itertools import permutations, product

import msgspec
import pytest
from judge_askers import Scripted, asked, entry, ids, user
from judge_builders import call, say, talk
from test_llm_judge import CALLS, CONTENT, FIRSTS, FOUR, REPLY, RUN, THINKING, item, judge, met, think

from cm2.checklist import Checklist
from cm2.credit import Credit, advantages, score
from cm2.dialogue import Step, ToolCall, ToolResponse
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.llm import ProviderError


def scored(verdicts, checklist=FOUR, run=RUN):
    return score([checklist], verdicts, [len(run.turns[0].steps)], 1)


def test_a_failed_judge_is_no_reward_of_zero_and_leaves_the_groups_mean():
    """Trap: judge failure becomes reward 0 and stays in the group mean; innocent rollouts are pushed down."""
    good, _, _ = judge(FIRSTS)
    bad, _, _ = judge([entry(f"C{n}", None) for n in range(4)])
    lost, _, _ = judge(ProviderError("503"))
    group = [scored(good), scored(bad), scored(lost)]
    assert group[2].reward is None
    valid = [not any(v.failed for v in verdicts) for verdicts in (good, bad, lost)]
    given = advantages(group, valid, Credit())
    assert valid == [True, True, False] and list(given.trained) == [True, True, False]
    pair = advantages(group[:2], [True, True], Credit())
    assert given.steps[:2] == pair.steps and set(pair.steps[0].values()) != {0.0}


def test_a_turn_that_ended_early_is_judged_on_what_is_there():
    """Trap: turns that end by a parse error or a limit are judged on the user's message alone: credit is lost."""
    broken = talk(
        [call("search", {"id": "A1"}, q="inn"), Step(calls=[ToolCall("book", None, "c0", '{"id": ', "not JSON")])]
    )
    verdicts, asker, _ = judge([entry("C0", 0, "search"), entry("C1", 0, "A1"), entry("C2", None)], dialogue=broken)
    text = user(asker.requests[0])
    assert 'search({"q":"inn"})' in text and '{"id": ' in text and "malformed" in text and "broke off" in text
    assert scored(verdicts, run=broken).reward == pytest.approx(0.5)


def test_no_item_pays_without_what_it_depends_on():
    """Trap: rewards ignore dependencies; items pay without their prerequisite."""
    checklist = Checklist(0, [item("C0", CONTENT), item("C1", CALLS, depends=["C0"])])
    for schedule in ("turn", "step", "item", "published"):

        def answer(request):
            if request.where.step is None:
                return [entry("C0", None), entry("C1", 0, "search")]
            return [entry(one["id"], one["id"] == "C1", "search") for one in asked(request)]

        verdicts, _, _ = judge(answer, checklist=checklist, schedule=schedule)
        found = scored(verdicts, checklist)
        assert found.reward == 0 and found.ledgers[0, 0].outcome == {"C0": False, "C1": False}


@pytest.mark.parametrize("schedule", ["turn", "step"])
def test_the_order_of_the_items_changes_nothing(schedule):
    """Trap: same-step dependencies depend on item order; reward and baseline disagree."""
    firsts = {"C0": 0, "C1": 0, "C2": 1, "C3": 2}
    quotes = {"C0": "search", "C1": "A1", "C2": "book", "C3": "booked"}
    items = [item("C0"), item("C1", CONTENT), item("C2", depends=["C1"]), item("C3", REPLY, depends=["C1"])]

    def answer(request):
        step = request.where.step
        if step is None:
            return [entry(id, firsts[id], quotes[id]) for id in ids(request)]
        return [entry(id, step >= firsts[id], quotes[id] if step >= firsts[id] else "") for id in ids(request)]

    seen = set()
    for order in permutations(items):
        checklist = Checklist(0, list(order))
        verdicts, _, _ = judge(answer, checklist=checklist, schedule=schedule)
        said = tuple(sorted((v.step, v.item, v.met) for v in verdicts))
        seen.add((said, tuple(scored(verdicts, checklist).ledgers[0, 0].step_rewards.tolist())))
    assert len(seen) == 1


def test_a_tool_result_that_quotes_an_error_is_shown_as_what_it_is():
    """Trap: a tool result that merely quotes the error key ends the rollout; here the judge simply reads it."""
    run = talk([call("read", {"log": '"error": "disk full"'}), say("The log says the disk is full.")])
    verdicts, asker, _ = judge(
        [entry("C1", 0, "disk full")], dialogue=run, checklist=Checklist(0, [item("C1", CONTENT)])
    )
    assert "disk full" in user(asker.requests[0]) and met(verdicts)["C1"] == [True, True]


def test_an_agents_wrong_call_is_shown_to_the_judge_and_is_nobody_elses_failure():
    """Trap: invalid arguments made by the agent count as infrastructure failure and are excluded instead of judged."""
    step = Step(
        calls=[ToolCall("book", {"id": 7}, "c0")],
        responses=[ToolResponse('{"error": "id must be text"}', "c0", "book", "error")],
    )
    run = talk([step, say("Sorry, that did not work.")])
    verdicts, asker, _ = judge([entry("C0", None)], dialogue=run, checklist=Checklist(0, [item("C0")]))
    assert 'book({"id":7})' in user(asker.requests[0]) and "id must be text" in user(asker.requests[0])
    assert {(v.met, v.owner) for v in verdicts} == {(False, "")}


def test_a_reply_without_thinking_is_a_reply():
    """Trap: messages without <think> are shown as thinking, with reply "None"; non-thinking models never pass."""
    run = talk([say("It is A1.")])
    verdicts, asker, _ = judge([entry("C3", 0, "It is A1")], dialogue=run, checklist=Checklist(0, [item("C3", REPLY)]))
    text = user(asker.requests[0])
    assert "step 0 reply]\n| It is A1." in text and "thinking" not in text.split("items>>>")[0] and "None" not in text
    assert met(verdicts) == {"C3": [True]}


def test_a_call_without_content_reads_and_has_no_reply():
    """Trap: `content: null` beside tool calls, the normal OpenAI form, crashes."""
    run = talk([call("search", {"id": 1}), Step(reply=None)])
    _, asker, made = judge(
        [entry("C0", 0, "search")], dialogue=run, checklist=Checklist(0, [item("C0"), item("C3", REPLY)])
    )
    assert "None" not in user(asker.requests[0]) and made.counts.skipped == 1
    assert "says and calls nothing" in user(asker.requests[0])


def test_a_judge_that_wavers_pays_once():
    """Trap (method, section 3): verdicts latch; what held is not asked again and cannot pay twice."""
    asker = Scripted(lambda r: [entry(one["id"], r.where.step != 1, "search") for one in asked(r)])
    checklist = Checklist(0, [item("C0")])
    verdicts = LLMJudge(asker, Judging(kind="llm", schedule="step")).judge(RUN, 0, checklist)
    assert len(asker.requests) == 1 and scored(verdicts, checklist).ledgers[0, 0].step_rewards.tolist() == [1.0, 0, 0]


def test_asking_once_a_turn_has_no_ratchet():
    """A judge that is wrong in one of four answers is wrong in a quarter of the turns when asked once, in 37 of 64
    when asked after each of three steps: here it is, over everything that may come of it."""
    wrong = {"turn": 0, "step": 0}
    checklist = Checklist(0, [item("C0")])
    for schedule in wrong:
        for number, slips in enumerate(product(range(4), repeat=3)):
            run = talk([call("search", {"id": number}, q=f"{number} {s}") for s in range(3)])

            def answer(request, slips=slips):
                step = request.where.step
                if step is None:
                    return [entry("C0", 0 if slips[0] == 0 else None, "search")]
                return [entry("C0", slips[step] == 0, "search")]

            verdicts, _, _ = judge(answer, dialogue=run, checklist=checklist, schedule=schedule)
            wrong[schedule] += any(v.met for v in verdicts)
    assert wrong == {"turn": 16, "step": 37}


def test_evidence_is_verified():
    """Trap: evidence is never verified; false labels and false verdicts stand."""
    invented = [*FIRSTS[:3], entry("C3", 2, "Your booking number is 12345")]
    verdicts, _, _ = judge(invented, invented)
    assert [v.met for v in verdicts if v.item == "C3"] == [None] * 3


def test_the_whole_trace_is_judged_and_not_the_last_message():
    run = talk([say("Which inn?")], [call("search", {"id": "A1"}), call("book", {"ok": 1}), say("Done.")])
    _, asker, _ = judge([], dialogue=run, checklist=msgspec.structs.replace(FOUR, turn=1), turn=1)
    text = user(asker.requests[0])
    assert all(words in text for words in ("Which inn?", "search(", "book(", "Done.", '{"ok": 1}'))


def test_a_thinking_item_of_a_model_that_does_not_think_costs_nothing():
    run = talk([say("Fine.")])
    verdicts, asker, _ = judge([], dialogue=run, checklist=Checklist(0, [item("C0", THINKING)]))
    assert asker.requests == [] and met(verdicts) == {"C0": [False]}
    thought = talk([think(say("Fine."), "be polite")])
    _, asker, _ = judge([entry("C0", 0, "be polite")], dialogue=thought, checklist=Checklist(0, [item("C0", THINKING)]))
    assert len(asker.requests) == 1


def test_a_call_of_a_tool_that_is_not_offered_is_judged():
    """A tool that is not offered, a call without an answer: both are the agent's, both are shown."""
    run = talk([Step(calls=[ToolCall("fly", {"to": "Rome"}, "c0")]), say("Gone.")])
    _, asker, _ = judge([entry("C0", 0, "fly(")], dialogue=run, checklist=Checklist(0, [item("C0", CALLS)]))
    assert 'fly({"to":"Rome"})' in user(asker.requests[0])
