"""What must hold whatever the task: invariance of rewards and advantages, and what an agent cannot gain by."""

from __future__ import annotations

import random

import msgspec
import pytest
from credit_cases import CASES, READINGS, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.credit import Credit, advantages, score, spread
from cm2.credit.satisfaction import backfilled, earned, eligible
from cm2.verdict import Verdict

CREDITS = st.builds(
    Credit,
    level=st.sampled_from(["trajectory", "turn", "step"]),
    normalise=st.sampled_from(["none", "std"]),
    turn_baseline=st.sampled_from(["group", "survivors"]),
    turn_credit=st.sampled_from(["own", "to_go"]),
)
SEEDS = st.integers(0, 2**32)
many = settings(max_examples=150, deadline=None)


def close(one, other) -> bool:
    return [pytest.approx(steps, abs=1e-9) for steps in one] == list(other)


@many
@given(CASES, READINGS)
def test_rewards_lie_between_zero_and_one_and_the_steps_add_up_to_them(case, reading):
    for found in scores_of(case, reading):
        if found.reward is not None:
            assert -1e-12 <= found.reward <= 1 + 1e-12
            assert sum(found.step_rewards.values()) == pytest.approx(found.reward, abs=1e-12)
            assert min(found.step_rewards.values(), default=0) >= 0


@many
@given(CASES, READINGS)
def test_an_item_pays_at_most_once_and_only_while_eligible(case, reading):
    for found in scores_of(case, reading):
        for ledger in found.ledgers.values():
            paid = earned(ledger.satisfied, ledger.depends)
            filled = backfilled(ledger.satisfied, ledger.depends)
            assert (paid.sum(axis=0) <= 1).all()
            assert (paid <= filled).all() and (filled <= eligible(ledger.satisfied, ledger.depends)).all()
            assert (paid.any(axis=0) == filled.any(axis=0)).all()


@many
@given(CASES)
def test_the_strict_reading_never_pays_what_the_gated_one_does_not_where_dependencies_are_one_deep(case):
    for gated, strict in zip(scores_of(case, "gated"), scores_of(case, "strict"), strict=True):
        for place, ledger in strict.ledgers.items():
            shallow = ~(ledger.depends @ ledger.depends).any(axis=1)
            paid = earned(ledger.satisfied, ledger.depends).any(axis=0)
            generous = gated.ledgers[place]
            assert (paid <= earned(generous.satisfied, generous.depends).any(axis=0))[shallow].all()


@many
@given(CASES, CREDITS, READINGS, SEEDS)
def test_the_order_of_items_checklists_and_verdicts_does_not_matter(case, credit, reading, seed):
    dice = random.Random(seed)

    def shuffled(values):
        return dice.sample(values, len(values))

    lists = [msgspec.structs.replace(each, items=shuffled(each.items)) for each in shuffled(case.checklists)]
    turned = [score(lists, shuffled(said), counts, case.turns, reading) for counts, said in case.rollouts]
    scores = scores_of(case, reading)
    for one, other in zip(scores, turned, strict=True):
        assert other.reward == (None if one.reward is None else pytest.approx(one.reward, abs=1e-12))
        assert other.strict_pass == one.strict_pass
    before, after = advantages(scores, case.valid, credit), advantages(turned, case.valid, credit)
    assert before.trained == after.trained and close(before.steps, after.steps)


@many
@given(CASES, CREDITS, SEEDS)
def test_the_order_of_the_group_does_not_matter(case, credit, seed):
    scores = scores_of(case, "gated")
    order = random.Random(seed).sample(range(len(scores)), len(scores))
    before = advantages(scores, case.valid, credit)
    after = advantages([scores[i] for i in order], [case.valid[i] for i in order], credit)
    assert close([before.steps[i] for i in order], after.steps)
    assert [before.trained[i] for i in order] == after.trained


@many
@given(CASES, CREDITS)
def test_a_failed_member_is_as_good_as_never_there(case, credit):
    scores = scores_of(case, "gated")
    there = advantages(scores, case.valid, credit)
    kept = [i for i, valid in enumerate(case.valid) if valid]
    gone = advantages([scores[i] for i in kept], credit=credit)
    assert close([there.steps[i] for i in kept], gone.steps)
    assert all(set(there.steps[i].values()) <= {0.0} for i in range(len(scores)) if i not in kept)
    assert there.signal == gone.signal


@many
@given(CASES, CREDITS)
def test_trajectory_and_turn_advantages_of_the_compared_sum_to_zero(case, credit):
    found = advantages(scores_of(case, "gated"), credit=credit)
    trained = [steps for steps, counts in zip(found.steps, found.trained, strict=True) if counts]
    if credit.level == "trajectory" and all(trained):
        assert sum(next(iter(steps.values())) for steps in trained) == pytest.approx(0.0, abs=1e-6)
    elif credit.level == "turn" and credit.turn_baseline == "survivors":
        for turn in range(case.turns):
            values = [steps[turn, 0] for steps in found.steps if (turn, 0) in steps]
            assert sum(values) == pytest.approx(0.0, abs=1e-6)


@many
@given(CASES)
def test_stopping_before_a_turn_never_pays_more_than_going_on(case):
    for counts, verdicts in case.rollouts:
        whole = score(case.checklists, verdicts, counts, case.turns).reward
        for turns in range(len(counts)):
            before = [verdict for verdict in verdicts if verdict.turn < turns]
            stopped = score(case.checklists, before, counts[:turns], case.turns).reward
            if whole is not None and stopped is not None:
                assert stopped <= whole + 1e-12


@many
@given(CASES)
def test_a_further_yes_never_lowers_the_gated_reward_of_a_fully_decided_rollout(case):
    for counts, verdicts in case.rollouts:
        decided = [msgspec.structs.replace(verdict, met=bool(verdict.met)) for verdict in verdicts]
        reached = [each for each in case.checklists if each.turn < len(counts) and counts[each.turn] > 0]
        decided += [Verdict("d", each.turn, 0, one.id, False, each.variant) for each in reached for one in each.items]
        better = [*decided, *[msgspec.structs.replace(v, met=True) for v in decided[::2] for _ in range(4)]]
        before = score(case.checklists, decided, counts, case.turns).reward
        after = score(case.checklists, better, counts, case.turns).reward
        assert (before is None) == (after is None) == (not case.checklists)
        assert before is None or before <= after + 1e-12


@many
@given(CASES, CREDITS)
def test_every_sampled_token_carries_the_number_of_its_step(case, credit):
    for steps in advantages(scores_of(case, "gated"), case.valid, credit).steps:
        segments = [(turn, step, 1 + (turn + step) % 3) for turn, step in steps]
        tokens = spread(steps, segments)
        assert len(tokens) == sum(count for _, _, count in segments)
        assert set(tokens.tolist()) == set(steps.values())
