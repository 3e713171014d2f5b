"""The majority of several judgements: against a brute-force count, and in words."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from judge_askers import Scripted, asked, entry
from judge_builders import call, say, talk
from test_llm_judge import FOUR, RUN, item, met

from cm2.checklist import Checklist
from cm2.credit.satisfaction import tally
from cm2.errors import ConfigError
from cm2.judge.llm import LLMJudge
from cm2.judge.vote import VoteJudge, combine
from cm2.llm import ModelError, ProviderError
from cm2.verdict import Pointer, Verdict, unscored


def verdict(met: bool | None, number: int = 0, owner: str = "judge") -> Verdict:
    reason = unscored("lost") if met is None else f"reason {number}"
    evidence = [Pointer(0, 0, "assistant.tool_calls", f"quote {number}")] if met else []
    return Verdict("d", 0, 0, "C0", met, 0, reason, evidence, f"m{number}", 0.1, owner=owner if met is None else "")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_it_agrees_with_counting_every_combination(n):
    """A literal second implementation: more than half of those who voted; a tie is no; fewer than quorum, unscored."""
    for votes in product([True, False, None], repeat=n):
        for quorum in range(1, n + 1):
            ballots = [1 if vote else -1 for vote in votes if vote is not None]
            expected = None if len(ballots) < quorum else sum(ballots) > 0
            found = combine([verdict(vote, k) for k, vote in enumerate(votes)], quorum)
            assert found.met is expected, (votes, quorum)
            assert found.votes == list(votes) and found.cost == pytest.approx(0.1 * n)
            assert found.failed is (expected is None)
            assert bool(found.evidence) is (expected is True)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_credit_comes_to_the_same_from_single_verdicts(n):
    checklist = Checklist(0, [item("C0")])
    for votes in product([True, False, None], repeat=n):
        single = [verdict(vote, k) for k, vote in enumerate(votes)]
        if any(vote is not None for vote in votes):
            together = combine(single, 1)
            assert np.array_equal(tally(checklist, single, 1), tally(checklist, [together], 1)), votes


def test_the_reason_explains_votes_ties_and_what_was_lost():
    said = combine([verdict(True, 0), verdict(False, 1), verdict(True, 2)], 2)
    assert said.reason == "2 of 3 say yes: reason 0" and said.evidence[0].snippet == "quote 0"
    assert said.judge == "vote of 3: m0, m1, m2"
    tie = combine([verdict(True, 0), verdict(False, 1)], 2)
    assert tie.reason == "1 of 2 say yes, a tie, which is a no: reason 1" and tie.met is False
    lost = combine([verdict(True, 0), verdict(None, 1), verdict(True, 2)], 2)
    assert lost.reason == "2 of 2 say yes, 1 of 3 lost (unscored: lost): reason 0"
    few = combine([verdict(True, 0), verdict(None, 1), verdict(None, 2)], 2)
    assert few.met is None and few.owner == "judge"
    assert few.reason == ("unscored: too few votes: 1 of 1 say yes, 2 of 3 lost (unscored: lost); 2 are needed")
    assert few.why_unscored == "too few votes"
    nobody = combine([verdict(None, 0, "provider"), verdict(None, 1, "provider")], 1)
    assert nobody.owner == "provider" and "nobody voted" in nobody.reason


def test_votes_of_one_model_are_independent_draws_and_are_asked_together():
    asker = Scripted(lambda request: [entry(one["id"], 0, "search") for one in asked(request)][:2])
    vote = VoteJudge([LLMJudge(asker, sample=k) for k in range(3)])
    checklist = Checklist(0, FOUR.items[:1])
    verdicts = vote.judge(RUN, 0, checklist)
    assert sorted(request.sample for request in asker.requests) == [0, 1, 2]
    assert {v.met for v in verdicts} == {True} and {tuple(v.votes) for v in verdicts} == {(True,) * 3}
    assert vote.counts.calls == 3 and len({v.key for v in verdicts}) == len(verdicts) == 3


def test_first_steps_of_several_votes_come_to_their_median():
    answers = [[entry("C0", step, "search") if step is not None else entry("C0", None)] for step in (0, 2, None)]
    vote = VoteJudge([LLMJudge(Scripted(answer)) for answer in answers])
    assert met(vote.judge(RUN, 0, Checklist(0, FOUR.items[:1]))) == {"C0": [False, False, True]}


def test_a_lost_call_does_not_vote():
    good, bad = Scripted([entry("C0", 0, "search")]), Scripted(ProviderError("503"))
    vote = VoteJudge([LLMJudge(one) for one in (good, bad, good)])
    assert met(vote.judge(RUN, 0, Checklist(0, FOUR.items[:1])))["C0"] == [True] * 3
    vote = VoteJudge([LLMJudge(one) for one in (good, bad, Scripted(ModelError("prose")))])
    found = vote.judge(RUN, 0, Checklist(0, FOUR.items[:1]))
    assert met(found)["C0"] == [None] * 3 and {v.owner for v in found} == {"provider"}
    vote = VoteJudge([LLMJudge(one) for one in (good, bad, bad)], quorum=1)
    assert met(vote.judge(RUN, 0, Checklist(0, FOUR.items[:1])))["C0"] == [True] * 3


def test_judges_of_a_panel_are_all_named():
    panel = [LLMJudge(Scripted([entry("C0", 0, "search")], model=name)) for name in ("large", "small")]
    (first, *_) = VoteJudge(panel).judge(RUN, 0, Checklist(0, FOUR.items[:1]))
    assert "large judge/turn@" in first.judge and "small judge/turn@" in first.judge


def test_what_cannot_hold_is_no_matter_of_votes():
    asker = Scripted([])
    vote = VoteJudge([LLMJudge(asker, sample=k) for k in range(3)])
    (found,) = vote.judge(talk([say("Done.")]), 0, Checklist(0, [item("C0")]))
    assert (found.met, found.judge, found.votes) == (False, "skip", []) and asker.requests == []


def test_a_fatal_failure_of_one_judge_is_raised():
    vote = VoteJudge([LLMJudge(Scripted([])), LLMJudge(Scripted(ProviderError("key", status=401)))])
    with pytest.raises(ProviderError, match="key"):
        vote.judge(talk([call("f", {"x": 1})]), 0, Checklist(0, [item("C0")]))


def test_a_vote_needs_a_judge():
    with pytest.raises(ConfigError, match="needs judges"):
        VoteJudge([])
