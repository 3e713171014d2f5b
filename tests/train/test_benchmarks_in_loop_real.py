"""The real BFCL, by its own harness, while a tiny random model trains."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")
pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.train, pytest.mark.slow]

import msgspec  # noqa: E402
import torch  # noqa: E402
from tiny_run import make_model, numbers, settings, weights, write_tasks  # noqa: E402

from cm2.harness import results  # noqa: E402
from cm2.train.benchmarking import Benchmarking  # noqa: E402
from cm2.train.benchmarks import read_points  # noqa: E402
from cm2.train.rl import train_rl  # noqa: E402
from harness import real  # noqa: E402


def test_the_real_harness_is_run_on_what_trains_and_training_stays_the_same(tmp_path):
    real.environment("bfcl")
    model, tasks = make_model(tmp_path / "start"), write_tasks(tmp_path / "tasks.jsonl", 8)
    looks = Benchmarking(run=["bfcl"], categories=["multi_turn_base"], limit=2, max_tokens=4, every=2)
    config = settings(tmp_path / "run", model, tasks, updates=2, benchmarks=looks)
    summary = train_rl(config)
    train_rl(msgspec.structs.replace(config, output=str(tmp_path / "plain"), benchmarks=Benchmarking()))
    points = read_points(tmp_path / "run" / "benchmarks.jsonl")
    assert [point.step for point in points] == [0, 2] and summary["benchmarks"]["bfcl"][0]["n"] == 2
    for point in points:  # random bytes solve nothing, and that is the agent's own failure
        assert (point.score, point.lost, point.unscored) == (0.0, 0, "")
        made, outcomes = results.read(tmp_path / "run" / "benchmarks" / f"step-{point.step:05d}" / "bfcl")
        assert [one.task for one in outcomes] == ["multi_turn_base_0", "multi_turn_base_1"]
        assert not made.comparable and made.model == "policy" and "a subset" in made.differs[0]
    assert len({point.tasks for point in points}) == 1
    (last,) = [row for row in numbers(tmp_path / "run") if "benchmark/bfcl/score" in row]
    assert last["step"] == 2 and last["benchmark/bfcl/score"] == 0.0
    mine, theirs = weights(tmp_path / "run" / "model"), weights(tmp_path / "plain" / "model")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
