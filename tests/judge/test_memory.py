"""What was seen before costs nothing, and what is being asked is not asked twice."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from judge_askers import Scripted, asked, entry
from judge_builders import call, say, talk
from test_llm_judge import FIRSTS, FOUR, REPLY, RUN, THINKING, item, think

from cm2.checklist import Checklist
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.llm import ProviderError, flow


def no(request):
    return [entry(one["id"], None) for one in asked(request)]


def sibling(*more_turns, reply="A1 is booked for you."):
    return talk([call("search", {"id": "A1"}, q="inn"), call("book", {"ok": True}, id="A1"), say(reply)], *more_turns)


def test_siblings_whose_views_are_equal_cost_nothing():
    asker = Scripted(FIRSTS, cost=1.0)
    judge = LLMJudge(asker)
    first = judge.judge(sibling([say("x")]), 0, FOUR)
    again = judge.judge(sibling([say("another second turn")]), 0, FOUR)  # they part later
    assert len(asker.requests) == 1 and judge.counts.remembered == 4
    assert [v.met for v in again] == [v.met for v in first] and [v.evidence for v in again] == [
        v.evidence for v in first
    ]
    assert sum(v.cost for v in first) == pytest.approx(1.0) and sum(v.cost for v in again) == 0


def test_siblings_that_look_different_are_asked_about():
    asker = Scripted(no)
    judge = LLMJudge(asker)
    for run in (sibling(), sibling(reply="A1 is booked, madam."), sibling()):
        judge.judge(run, 0, FOUR)
    assert len(asker.requests) == 2


def test_what_an_item_cannot_see_does_not_matter_to_it():
    checklist = Checklist(0, [item("C0"), item("C1", THINKING)])
    asker = Scripted(no)
    judge = LLMJudge(asker)
    for thought in ("one", "two"):
        judge.judge(talk([think(call("f", {"x": 1}), thought), say("ok")]), 0, checklist)
    assert sorted(one["id"] for request in asker.requests for one in asked(request)) == ["C0", "C1", "C1"]


def test_the_items_text_counts_and_not_its_id():
    asker = Scripted(no)
    judge = LLMJudge(asker)
    judge.judge(RUN, 0, Checklist(0, [item("C0", question="Same?"), item("C1", question="Other?")]))
    same = [msgspec.structs.replace(item("C0", question="Same?"), id="C7")]
    verdicts = judge.judge(RUN, 0, Checklist(0, same, variant=1))
    assert len(asker.requests) == 1 and {(v.item, v.variant) for v in verdicts} == {("C7", 1)}
    changed = msgspec.structs.replace(same[0], pass_condition="something else")
    judge.judge(RUN, 0, Checklist(0, [changed]))
    assert len(asker.requests) == 2


def test_schedules_and_votes_do_not_answer_for_each_other():
    asker = Scripted(no)
    one = LLMJudge(asker, sample=0)
    one.judge(RUN, 0, FOUR)
    other = LLMJudge(asker, sample=1)
    other.memory = one.memory
    other.judge(RUN, 0, FOUR)
    assert [request.sample for request in asker.requests] == [0, 1]


def test_a_failure_is_not_remembered():
    class Once(Scripted):
        async def ask(self, request, check=None):
            if not self.requests:
                self.requests.append(request)
                raise ProviderError("503")
            return await super().ask(request, check)

    judge = LLMJudge(Once(no))
    assert {v.met for v in judge.judge(RUN, 0, FOUR)} == {None}
    assert {v.met for v in judge.judge(RUN, 0, FOUR)} == {False}


def test_the_oldest_verdicts_are_forgotten_first():
    judge = LLMJudge(Scripted(no))
    judge.memory.limit = 8
    runs = [sibling(reply=f"Reply {n}.") for n in range(3)]
    for run in (*runs, runs[2], runs[0]):
        judge.judge(run, 0, FOUR)
    assert len(judge.asker.requests) == 4  # three runs, and the first again
    assert len(judge.memory._kept) == 8


class Gated(Scripted):
    """Answers when it is let."""

    def __init__(self, *answers, **more):
        super().__init__(*answers, **more)
        self.open = asyncio.Event()

    async def ask(self, request, check=None):
        self.requests.append(request)
        await self.open.wait()
        self.requests.pop()
        return await super().ask(request, check)


async def until(what) -> None:
    for _ in range(2000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def test_equal_questions_under_way_are_one_call():
    async def together():
        asker = Gated(FIRSTS, cost=1.0)
        judge = LLMJudge(asker)
        jobs = [asyncio.create_task(judge.judge_async(sibling(), 0, FOUR)) for _ in range(48)]
        await until(lambda: judge.counts.remembered == 47 * 4)
        asker.open.set()
        return await asyncio.gather(*jobs), asker, judge

    found, asker, _ = flow.wait(together())
    assert len(asker.requests) == 1
    assert all([v.met for v in verdicts] == [v.met for v in found[0]] for verdicts in found)
    assert sum(v.cost for verdicts in found for v in verdicts) == pytest.approx(1.0)  # paid once


def test_a_call_goes_on_while_anybody_waits_and_ends_when_nobody_does():
    async def scene():
        asker = Gated(FIRSTS)
        judge = LLMJudge(asker)
        first, second = (asyncio.create_task(judge.judge_async(sibling(), 0, FOUR)) for _ in range(2))
        await until(lambda: judge.counts.remembered == 4)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        asker.open.set()
        kept = await second
        asker.open.clear()
        lone = asyncio.create_task(judge.judge_async(sibling(reply="Booked: A1 is booked."), 0, FOUR))
        await until(lambda: len(asker.requests) == 2)
        lone.cancel()
        await asyncio.gather(lone, return_exceptions=True)
        await asyncio.sleep(0.01)
        asker.open.set()
        after = await judge.judge_async(
            sibling(reply="Booked: A1 is booked."), 0, FOUR
        )  # nobody hangs on the dead call
        return kept, after, asker

    kept, after, asker = flow.wait(scene())
    assert {v.met for v in kept} == {True, False} and {v.met for v in after} == {True, False}
    assert len(asker.requests) == 3


def test_a_shared_failure_is_everybodys_and_a_fatal_one_is_raised_for_all():
    for error, outcome in ((ProviderError("503", status=503), None), (ProviderError("key", status=401), "raise")):

        async def scene(error=error):
            asker = Gated(error)
            judge = LLMJudge(asker)
            jobs = [asyncio.create_task(judge.judge_async(sibling(), 0, FOUR)) for _ in range(3)]
            await until(lambda: judge.counts.remembered == 8)
            asker.open.set()
            return await asyncio.gather(*jobs, return_exceptions=True), asker

        found, asker = flow.wait(scene())
        assert len(asker.requests) == 1
        for one in found:
            assert isinstance(one, ProviderError) if outcome else {v.met for v in one} == {None}


def test_the_judge_can_be_awaited_from_any_loop_and_thread():
    asker = Scripted(FIRSTS)
    judge = LLMJudge(asker)

    async def own_loop():
        return await judge.judge_async(RUN, 0, FOUR)

    here = asyncio.run(own_loop())
    there = flow.wait(own_loop())
    waited = judge.judge(RUN, 0, FOUR)
    assert [v.met for v in here] == [v.met for v in there] == [v.met for v in waited] and len(asker.requests) == 1


def test_waiting_on_the_doors_own_loop_is_refused_and_does_not_hang():
    judge = LLMJudge(Scripted(FIRSTS))

    async def wrong():
        return judge.judge(RUN, 0, FOUR)

    with pytest.raises(RuntimeError, match="await judge_async"):
        flow.submit(wrong()).result(timeout=10)


def test_published_and_ours_remember_too():
    asker = Scripted(lambda request: [entry(one["id"], False) for one in asked(request)])
    judge = LLMJudge(asker, Judging(kind="llm", schedule="published"))
    checklist = Checklist(0, [item("C0"), item("C3", REPLY)])
    judge.judge(sibling(), 0, checklist)
    before = len(asker.requests)
    judge.judge(sibling(reply="Another reply."), 0, checklist)
    assert before == 6 and len(asker.requests) == 8  # the two steps before the reply looked the same
