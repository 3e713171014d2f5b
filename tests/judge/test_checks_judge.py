"""ChecksJudge: one verdict an item and step; unscored is never a no."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from judge_builders import call, say, talk

from cm2.check import Called, Fact, NotCalled, Reply
from cm2.checklist import Checklist, Item
from cm2.judge import ChecksJudge

RUN = talk([call("search", {"id": "A1"}, q="x"), call("book", {"ok": True}, id="A1"), say("Booked A1.")], [say("Bye.")])


def item(id: str, check, **more) -> Item:
    return Item(id, "assistant.tool_calls", "Was it done?", "It was done.", 0.25, check=check, **more)


ITEMS = [
    item("C0", Called("search")),
    item("C1", Called("book")),
    item("C2", Reply(states=[Fact(["A1"])])),
    item("C3", NotCalled(["pay"])),
]


def test_one_verdict_an_item_and_step():
    verdicts = ChecksJudge().judge(RUN, 0, Checklist(0, ITEMS))
    assert [(v.step, v.item) for v in verdicts] == [(s, f"C{i}") for s in range(3) for i in range(4)]
    met = {(v.item, v.step) for v in verdicts if v.met}
    assert met == {("C0", 0), ("C0", 1), ("C0", 2), ("C1", 1), ("C1", 2), ("C2", 2), ("C3", 2)}
    assert all(v.dialogue == "d" and v.judge == "checks" and v.cost == 0 and v.reason for v in verdicts)
    assert all(v.evidence for v in verdicts if v.met)


def test_judging_only_the_new_steps_gives_the_same_verdicts():
    whole = ChecksJudge().judge(RUN, 0, Checklist(0, ITEMS))
    assert ChecksJudge().judge(RUN, 0, Checklist(0, ITEMS), since=2) == [v for v in whole if v.step == 2]


def test_an_item_without_a_check_or_with_a_broken_one_is_unscored():
    checklist = Checklist(0, [item("C0", None), item("C1", Reply(pattern="(")), item("C2", Called("search"))])
    verdicts = ChecksJudge().judge(RUN, 0, checklist)
    assert {v.item: v.met for v in verdicts if v.step == 2} == {"C0": None, "C1": None, "C2": True}
    assert all("unscored" in v.reason for v in verdicts if v.met is None)


def test_a_turn_that_the_run_never_reached_has_no_verdicts():
    assert ChecksJudge().judge(RUN, 2, Checklist(2, ITEMS)) == []
    assert ChecksJudge().judge(talk([]), 0, Checklist(0, ITEMS)) == []


def test_a_turn_that_ended_early_keeps_what_it_earned():
    cut = talk([call("search", {"id": "A1"}, q="x")])
    assert {v.item: v.met for v in ChecksJudge().judge(cut, 0, Checklist(0, ITEMS))} == {
        "C0": True,
        "C1": False,
        "C2": False,
        "C3": False,
    }


@given(st.permutations(ITEMS))
def test_permuting_the_items_permutes_the_verdicts(items):
    def by_key(verdicts):
        return {(v.item, v.step): (v.met, v.reason) for v in verdicts}

    judge = ChecksJudge()
    assert by_key(judge.judge(RUN, 0, Checklist(0, items))) == by_key(judge.judge(RUN, 0, Checklist(0, ITEMS)))
