"""The measurement of verdict noise: its judge has the rates that it claims, its reward is that of cm2.credit."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from trust_builders import world_tasks

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "verdict_noise.py"
spec = importlib.util.spec_from_file_location("verdict_noise", FILE)
bench = importlib.util.module_from_spec(spec)
sys.modules["verdict_noise"] = bench
spec.loader.exec_module(bench)


def one_item(met: list[int]):
    """A run of one turn with one item that holds after the steps where `met` is 1."""
    steps = np.array(met, dtype=float)[:, None]
    return bench.RunOf([bench.Played(steps, np.zeros((1, 1), dtype=bool), np.ones(1))], 1, float(max(met)))


def paid(run, noise, schedule, votes=1, errors="independent", draws=20_000):
    rng = np.random.default_rng(0)
    return float(bench.rewards([run], noise, schedule, votes, errors, draws, rng).mean())


def test_the_ratchet_turns_five_percent_into_fourteen_and_one_question_a_turn_does_not():
    noise, never = bench.Noise(0.05, 0.0, 0.3), one_item([0, 0, 0])
    assert paid(never, noise, "published") == pytest.approx(1 - 0.95**3, abs=0.007)
    assert paid(never, noise, "turn") == pytest.approx(0.05, abs=0.005)
    assert paid(never, noise, "published", votes=3) == pytest.approx(1 - (1 - 0.00725) ** 3, abs=0.003)


def test_the_ratchet_forgives_false_no_while_the_state_lasts():
    noise = bench.Noise(0.0, 0.2, 0.3)
    assert paid(one_item([1, 1, 1]), noise, "published") == pytest.approx(1 - 0.2**3, abs=0.005)
    assert paid(one_item([0, 0, 1]), noise, "published") == pytest.approx(0.8, abs=0.01)
    assert paid(one_item([1, 1, 1]), noise, "turn") == pytest.approx(0.8, abs=0.01)


def test_persistent_errors_have_the_same_mean_and_no_vote_mends_them_all():
    noise, never = bench.Noise(0.1, 0.0, 0.5), one_item([0])
    assert paid(never, noise, "published", errors="persistent") == pytest.approx(0.1, abs=0.01)
    alone = paid(never, noise, "published", votes=5)
    assert alone == pytest.approx(0.00856, abs=0.003)
    assert paid(never, noise, "published", votes=5, errors="persistent") > 5 * alone


@pytest.mark.parametrize("schedule", ["published", "turn"])
@pytest.mark.parametrize("errors", ["independent", "persistent"])
def test_a_judge_without_errors_sees_the_true_reward_whatever_the_schedule(schedule, errors):
    rng = random.Random(0)
    runs = [run for task in world_tasks()[:6] for run in bench.runs_of(task, 2, rng)]
    assert len(runs) > 10
    assert 0 < np.mean([run.reward for run in runs]) < 1
    found = bench.rewards(runs, bench.Noise(0, 0, 0.3), schedule, 3, errors, 2, np.random.default_rng(0))
    assert found == pytest.approx(np.array([[run.reward] * 2 for run in runs]))


def test_formulas_and_measurement_agree():
    for row in bench.simple(bench.Noise(0.05, 0.05, 0.3), 20_000, np.random.default_rng(1)):
        assert row["measured"] == pytest.approx(row["formula"], abs=5 * row["standard_error"]), row
