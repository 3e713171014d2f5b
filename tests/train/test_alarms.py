"""Alarms: they sound when a run goes wrong in a known way, soon enough, and not on a run that is well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cm2.train.alarms import Alarming, alarms, by_generation, history

RUNS = Path(__file__).resolve().parents[2] / "runs"


def run(kind="healthy", steps=120, turn=60, seed=0, noise=0.06):
    """The metrics of a run that learns, and from `turn` on goes wrong in one way."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    rows = []
    for t in range(steps):
        late = max(0, t - turn)
        reward = 0.45 if kind == "flat" else 0.4 + 0.4 * (1 - np.exp(-t / 40))
        truth, entropy, kl = reward - 0.1, 0.4 * np.exp(-t / 60) + 0.1, 4e-4 * t
        length, malformed = 60.0 + 0.05 * t, 0.05
        if kind == "collapse":
            reward, entropy = max(0.05, reward - 0.02 * late), entropy * np.exp(-late / 10)
        if kind == "falling":
            reward = max(0.05, reward - 0.012 * late)
        if kind == "kl":
            kl *= 1.3**late
        if kind in ("longer", "shorter"):
            length *= (1 + 0.02 * late) if kind == "longer" else max(0.2, 1 - 0.02 * late)
            reward, truth = min(1.0, reward + 0.005 * late), truth - 0.004 * late
        if kind == "format":
            malformed = min(0.9, 0.05 + 0.012 * late)
        if kind == "gaming":
            reward, truth = min(1.0, reward + 0.004 * late), truth - 0.012 * late
        truth = reward - 0.1 if kind in ("collapse", "falling") else truth
        row = {"step": t + 1, "kl": kl * np.exp(rng.normal(0, 0.3)), "entropy": entropy * np.exp(rng.normal(0, 0.1))}
        row |= {"reward": reward + rng.normal(0, noise), "outcome": truth + rng.normal(0, noise)}
        row |= {"length": length * np.exp(rng.normal(0, 0.05)), "malformed": malformed + rng.normal(0, 0.02)}
        rows.append(row)
    return rows


SIGNS = {
    "collapse": "collapse",
    "falling": "reward",
    "kl": "kl",
    "longer": "length",
    "shorter": "length",
    "format": "format",
    "gaming": "gaming",
}


@pytest.mark.parametrize("kind", SIGNS)
def test_each_way_to_go_wrong_is_seen_while_it_happens(kind):
    for seed in range(2):
        found = history(run(kind, seed=seed))
        first = next((alarm for alarm in found if alarm.sign == SIGNS[kind]), None)
        assert first is not None and 60 < first.step <= 110, (kind, seed, found)
        assert not [alarm for alarm in found if alarm.step <= 60], "nothing was wrong yet"


@pytest.mark.parametrize("kind", ["healthy", "flat"])
def test_a_run_that_is_well_has_no_alarm(kind):
    assert [history(run(kind, seed=seed, noise=noise)) for seed in range(3) for noise in (0.02, 0.15)] == [[]] * 6


@pytest.mark.slow
def test_the_rate_of_false_alarms_is_what_was_asked_for():
    """At most 5 % of runs for each sign; the tests' own looks are spent carefully, so it is well below."""
    found = [
        {a.sign for a in history(run("flat", steps=60, seed=s, noise=0.1), Alarming(window=5))} for s in range(200)
    ]
    assert all(sum(sign in one for one in found) <= 10 for sign in ("reward", "collapse", "length", "format", "gaming"))


def test_real_runs_that_went_well_have_no_alarm():
    files = sorted(RUNS.glob("demo/rl/metrics.jsonl")) + sorted(RUNS.glob("study/seed-*/rl/metrics.jsonl"))
    if not files:
        pytest.skip("no demo or study was made here")
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for window in (4, 10):
            assert history(rows, Alarming(window=window)) == [], file


def test_the_last_alarms_are_those_of_the_whole_history():
    rows = run("collapse")
    live = [alarm for n in range(1, len(rows) + 1) for alarm in alarms(rows[:n])]
    assert live == history(rows) and live


def test_a_batch_of_rollouts_that_serves_several_steps_counts_once():
    rows = run("collapse", steps=90)
    twice = [row | {"generation": n, "step": 2 * n + k} for n, row in enumerate(rows) for k in (1, 2)]
    assert len(by_generation(twice)) == 90
    once, both = history(rows), history(twice)
    assert [(a.sign, 2 * a.step - 1) for a in once] == [(a.sign, a.step) for a in both]


def test_a_kl_that_stays_high_is_said_once():
    rows = [{"step": n + 1, "kl": 0.01 if n < 20 else 3.0} for n in range(60)]
    assert [(a.sign, a.step) for a in history(rows)] == [("kl", 22)]


def test_a_small_leap_of_a_small_kl_is_none():
    assert history([{"step": n + 1, "kl": 1e-4 if n < 20 else 0.05} for n in range(60)]) == []


def test_a_reward_whose_meaning_changes_may_fall():
    rows = run("falling")
    assert {a.sign for a in history(rows)} == {"reward", "collapse"} and history(rows, moving=True) == []


def test_a_held_out_reward_that_fell_is_an_alarm_at_its_step():
    (alarm,) = alarms([{"step": 1}, {"step": 2, "heldout_reward": 0.4, "heldout_fallen": 0.2}])
    assert alarm.sign == "heldout" and "0.400, 0.200 below its best" in alarm.reason


def test_missing_numbers_and_off_are_silent():
    rows = [{"step": n, "reward": None, "entropy": None} for n in range(40)]
    assert history(rows) == [] and alarms([]) == []
    assert history(run("kl"), Alarming(on_alarm="off")) == []
