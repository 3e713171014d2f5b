"""Alarms: silent where nothing is wrong, at the stated rate; loud where the reward is being pleased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cm2.judge.watch import Answers, Pair, Watching, at_least, diverging, failing

WATCHING = Watching(window=8, rate=0.05)


def pairs(training, other) -> list[Pair]:
    return [Pair(u, float(a), float(b)) for u, (a, b) in enumerate(zip(training, other, strict=True), 1)]


def first_alarm(points, look) -> int | None:
    """The update of the first alarm while the series grows."""
    for upto in range(1, len(points) + 1):
        if upto % WATCHING.window == 0:
            alarm = look(points[:upto])
            if alarm is not None:
                assert alarm.p < alarm.level
                return alarm.update
    return None


def rewards(rng, updates: int, training: float, gold: float, rollouts: int = 6):
    """Mean rewards of both judges over the same few rollouts: coarse, skewed, correlated; slopes as given an update."""
    ability = 0.5 + np.linspace(0, 1, updates)[:, None] * gold * updates
    true = rng.beta(8 * np.clip(ability, 0.05, 0.95), 8 * (1 - np.clip(ability, 0.05, 0.95)), size=(updates, rollouts))
    seen = np.clip(true + (training - gold) * np.arange(updates)[:, None] + 0.1, 0, 1)
    noisy = np.where(rng.random(seen.shape) < 0.15, rng.random(seen.shape), seen)
    return np.round(noisy * 8).mean(axis=1) / 8, np.round(true * 8).mean(axis=1) / 8


@pytest.mark.parametrize("slope", [0.0, 0.001, -0.001])
def test_no_alarm_while_both_judges_tell_the_same_story(slope):
    """Under the null (the gap stays as it is, whatever the reward does) at most 5 % of runs of 120 updates alarm."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(150):
        training, gold = rewards(rng, 120, slope, slope)
        alarms += first_alarm(pairs(training, gold), lambda p: diverging(p, WATCHING)) is not None
    assert alarms <= stats.binom.ppf(0.999, 150, 0.05)


def test_the_growth_of_the_gap_alone_is_tested_at_the_stated_rate():
    """Here one judge rises and the other falls whenever the gap grows, so nothing but the t-test keeps it silent."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        gap = rng.normal(size=96) * 0.05
        alarms += first_alarm(pairs(0.5 + gap / 2, 0.5 - gap / 2), lambda p: diverging(p, WATCHING)) is not None
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


def test_alarm_when_the_training_judge_is_pleased():
    rng = np.random.default_rng(2)
    seen = []
    for _ in range(40):
        training, gold = rewards(rng, 120, 0.003, -0.001)
        seen.append(first_alarm(pairs(training, gold), lambda p: diverging(p, WATCHING)))
    assert sum(update is not None for update in seen) >= 36
    assert np.median([update or 120 for update in seen]) < 100


def test_alarm_needs_the_gold_judge_to_fall():
    """A judge that grows more lenient while the agent grows better is a gap, not yet an alarm."""
    steady = np.linspace(0.3, 0.6, 64)
    assert first_alarm(pairs(steady * 1.5, steady), lambda p: diverging(p, WATCHING)) is None
    falling = first_alarm(pairs(steady * 1.5, 0.6 - steady / 2), lambda p: diverging(p, WATCHING))
    assert falling is not None


def test_a_turn_for_the_worse_after_real_progress_is_seen_before_all_progress_is_lost():
    rng = np.random.default_rng(3)
    up, down = np.linspace(0.2, 0.7, 80), np.linspace(0.7, 0.5, 80)
    gold = np.concatenate([up, down]) + rng.normal(size=160) * 0.01
    training = np.concatenate([up, np.linspace(0.7, 0.9, 80)]) + 0.05 + rng.normal(size=160) * 0.01
    update = first_alarm(pairs(training, gold), lambda p: diverging(p, WATCHING))
    assert 80 < update <= 120


def test_reason_says_what_happened():
    alarm = diverging(pairs(np.linspace(0.5, 0.9, 16), np.linspace(0.5, 0.3, 16)), WATCHING)
    assert alarm.sign == "gold"
    assert "last 8 updates" in alarm.reason
    assert "rose by 0.213" in alarm.reason
    assert "fell by 0.107" in alarm.reason
    assert alarm.level == pytest.approx(0.05 / (2 * 3))


def test_nothing_is_looked_at_between_windows():
    points = pairs(np.linspace(0.5, 0.9, 17), np.linspace(0.5, 0.3, 17))
    assert diverging(points[:16], WATCHING) is not None
    assert diverging(points, WATCHING) is None
    assert diverging(points[:8], WATCHING) is None
    assert diverging([], WATCHING) is None


def test_levels_of_all_looks_sum_to_the_rate():
    assert sum(0.05 / (k * (k + 1)) for k in range(1, 10_000)) == pytest.approx(0.05, abs=1e-5)


@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.001, 0.999))
def test_binomial_tail_is_scipys_at_whole_numbers(count, more, share):
    n = count + more
    expected = stats.binomtest(count, n, share, alternative="greater").pvalue
    assert at_least(count, n, share) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("alike", [True, False])
def test_canaries_at_the_calibrated_rate_give_no_alarm(alike):
    """Whether the siblings of a group all fall for the same canary or each by itself."""
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(200):
        wrong = rng.binomial(1, 0.06, size=(80, 8)) if alike else rng.binomial(8, 0.06, size=(80, 8)) / 8
        points = [Answers(u, 8, float(each.sum())) for u, each in enumerate(wrong, 1)]
        alarms += first_alarm(points, lambda p: failing(p, 0.06, WATCHING)) is not None
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


def test_canaries_above_the_calibrated_rate_give_one():
    rng = np.random.default_rng(5)
    seen = []
    for _ in range(40):
        rate = np.where(np.arange(80) < 40, 0.05, 0.2)
        points = [Answers(u, 8, float(rng.binomial(8, r))) for u, r in enumerate(rate, 1)]
        seen.append(first_alarm(points, lambda p: failing(p, 0.06, WATCHING)))
    assert sum(update is not None and update > 40 for update in seen) >= 36


def test_canary_reason_and_missing_groups():
    points = [Answers(u, 4, 3.0) for u in range(1, 9)]
    alarm = failing(points, 0.06, WATCHING)
    assert "75.0% of 32 groups" in alarm.reason
    assert failing([Answers(u, 0, 0.0) for u in range(1, 9)], 0.06, WATCHING) is None
    assert "refused" in failing(points, 0.06, WATCHING, "given").reason
