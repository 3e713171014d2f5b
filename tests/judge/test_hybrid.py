"""Checks where an item has one, a model for the rest."""

from __future__ import annotations

import msgspec
from judge_askers import Scripted, asked, entry, ids
from judge_builders import say, talk
from test_llm_judge import CALLS, REPLY, RUN, item, met

from cm2.check import Called, Reply
from cm2.checklist import Checklist
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.llm import ProviderError


def checked(id: str, check, focus=CALLS, **more):
    return msgspec.structs.replace(item(id, focus, **more), check=check)


MIXED = Checklist(0, [item("C0"), checked("C1", Called("book")), item("C2", REPLY), checked("C3", Called("fly"))])


def hybrid(*answers, **settings):
    asker = Scripted(*answers)
    return HybridJudge(LLMJudge(asker, Judging(kind="hybrid", **settings))), asker


def test_only_items_without_a_check_are_asked():
    judge, asker = hybrid([entry("C0", 0, "search"), entry("C2", 2, "booked")])
    verdicts = judge.judge(RUN, 0, MIXED)
    assert ids(asker.requests[0]) == ["C0", "C2"]
    assert met(verdicts) == {
        "C0": [True] * 3, "C1": [False, True, True], "C2": [False, False, True], "C3": [False] * 3
    }  # fmt: skip
    assert [(v.step, v.item) for v in verdicts] == [(s, f"C{c}") for s in range(3) for c in range(4)]
    assert {v.item: v.judge.split("@")[0] for v in verdicts} == {
        "C0": "script judge/turn", "C1": "checks", "C2": "script judge/turn", "C3": "checks"
    }  # fmt: skip


def test_a_checklist_of_checks_asks_nobody():
    judge, asker = hybrid([])
    judge.judge(RUN, 0, Checklist(0, [MIXED.items[1], MIXED.items[3]]))
    assert asker.requests == [] and judge.counts.calls == 0


def test_what_depends_on_a_check_that_never_holds_is_not_asked():
    checklist = Checklist(0, [checked("C0", Called("fly")), item("C1", REPLY, depends=["C0"]), item("C2", REPLY)])
    judge, asker = hybrid([entry("C2", None)])
    verdicts = judge.judge(RUN, 0, checklist)
    assert ids(asker.requests[0]) == ["C2"]
    assert "C0, which it depends on" in next(v.reason for v in verdicts if v.item == "C1")
    # Only satisfied by the last step: too late for anything in this turn.
    late = checked("C0", Reply(pattern="booked"), REPLY)
    judge, asker = hybrid([entry("C2", None)])
    judge.judge(RUN, 0, Checklist(0, [late, *checklist.items[1:]]))
    assert ids(asker.requests[0]) == ["C2"]


def test_step_by_step_a_check_opens_the_way():
    checklist = Checklist(0, [checked("C0", Called("book")), item("C1", CALLS, depends=["C0"])])
    judge, asker = hybrid(lambda r: [entry(one["id"], False) for one in asked(r)], schedule="step")
    judge.judge(RUN, 0, checklist)
    assert [request.where.step for request in asker.requests] == [2]  # booked after step 1, so it can pay from step 2


def test_an_item_whose_check_is_broken_is_left_to_the_model():
    checklist = Checklist(0, [checked("C0", Reply(pattern="("), REPLY)])
    judge, asker = hybrid([entry("C0", 2, "booked")])
    assert met(judge.judge(RUN, 0, checklist)) == {"C0": [False, False, True]} and len(asker.requests) == 1


def test_a_failing_model_does_not_touch_what_checks_say():
    judge, _ = hybrid(ProviderError("503"))
    verdicts = judge.judge(RUN, 0, MIXED)
    assert {v.item: v.met for v in verdicts} == {"C0": None, "C1": True, "C2": None, "C3": False}


def test_since_and_turns_never_reached():
    judge, _ = hybrid([entry("C0", 0, "search"), entry("C2", 2, "booked")])
    assert {v.step for v in judge.judge(RUN, 0, MIXED, since=1)} == {1, 2}
    assert judge.judge(talk([say("x")]), 1, msgspec.structs.replace(MIXED, turn=1)) == []
