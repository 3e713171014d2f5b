"""Under a judge that flips verdicts, the blend that knows the rate points where the true gradient points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def measured():
    sys.path.insert(0, BENCHMARKS)
    from granularity_lab import graph, loop, variance

    one = graph.Graph(graph.tasks()[:1])
    policy = loop.trained(one, 25, 0.02, 0)
    names = ["trajectory", "turn", "step", "blend", "blend, no flip rate", "trajectory, flip rate"]
    found = {}
    for flip in (0.0, 0.3):
        for row in variance.measure(one, policy, names, 48, flip, False, 40, 0):
            found[row["estimator"], flip] = row
    yield found
    sys.path.remove(BENCHMARKS)


def test_without_noise_trajectory_and_blend_point_the_same_way_and_blend_is_less_noisy(measured):
    assert measured["trajectory", 0.0]["cos"] > 0.97 and measured["blend", 0.0]["cos"] > 0.97
    assert measured["blend", 0.0]["noise"] < measured["trajectory", 0.0]["noise"]


def test_flips_turn_every_level_away_but_what_knows_the_rate(measured):
    for level in ("trajectory", "turn", "step", "blend, no flip rate"):
        assert measured["blend", 0.3]["cos"] > measured[level, 0.3]["cos"] + 0.1
    assert measured["blend", 0.3]["variance"] < measured["trajectory, flip rate", 0.3]["variance"]
