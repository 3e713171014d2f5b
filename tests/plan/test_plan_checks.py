"""What the plan says of runs that were made, pinned: a change of the model shows here and in docs/plan.md."""

import json
from pathlib import Path

import pytest

from cm2.errors import ConfigError
from cm2.plan.checks import PAPER_HOURS, checks, paper
from cm2.plan.like import measured, model_of
from cm2.plan.plan import make_plan

RUNS = Path(__file__).resolve().parents[2] / "runs"


@pytest.fixture(scope="module")
def factors():
    return {one.what: one for one in checks()}


PINNED = {
    "demo (in sample): whole": 1.00,
    "study, seed 0: whole": 0.76,
    "study, seed 1: whole": 0.70,
    "study, seed 2: whole": 0.60,
    "Taskmaster-4: whole": 0.22,
    "Llama-3.1-8B, 16 H100, 1060 tokens": 0.81,
    "Qwen3-30B-A3B, 32 H100, 3154 tokens": 0.65,
    "paper, every item asked": 0.89,
    "paper, satisfied items skipped": 0.47,
    "paper, every item, rollouts at the limits": 3.68,
    "paper, every item, 20 calls at once": 1.29,
}


@pytest.mark.parametrize("what", PINNED)
def test_predictions_are_as_far_off_as_the_documentation_says(factors, what):
    assert factors[what].factor == pytest.approx(PINNED[what], abs=0.006)


def test_the_documentation_prints_these_factors():
    text = (Path(__file__).resolve().parents[2] / "docs" / "plan.md").read_text()
    for what, factor in PINNED.items():
        (line,) = (line for line in text.splitlines() if line.startswith("|") and what in line)
        assert f"{factor:.2f}" in line, line


def test_the_papers_hours_are_met_by_some_number_of_judges_not_by_any():
    """How many of the 64 devices judge is not published, and decides."""
    assert paper(True, judge_gpus=8).hours < PAPER_HOURS < paper(True, judge_gpus=4).hours
    assert paper(False, judge_gpus=4).hours < PAPER_HOURS < paper(False, judge_gpus=2).hours


def test_the_papers_run_waits_for_its_judge():
    plan = paper(True)
    assert plan.times.judge > 5 * (plan.times.generation + plan.times.training)
    assert plan.setup.rollouts == 3072 and plan.setup.batches == 1000


def write_run(folder, rows, layers=12, lora=0):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"config": {"layers": layers, "lora": lora}}))
    model = folder / "model"
    model.mkdir()
    dims = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    dims |= {"head_dim": 64, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps(dims))
    return str(folder)


ROW = {"rollouts": 64, "tokens_generated": 4000, "tokens_shown": 9000, "tokens_trained": 3000}
ROW |= {"seconds_rollout": 20.0, "seconds_forward": 10.0, "seconds_backward": 9.0, "seconds": 40.0}


def test_a_run_plans_its_own_like(tmp_path):
    """What is calibrated on a run gives back that run's seconds."""
    run = write_run(tmp_path / "run", [ROW, ROW | {"seconds_rollout": 22.0}])
    found = measured(run)
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "demo-rl.yaml"
    plan = make_plan(str(recipe), gpu="cpu", shape=found.shape, constants=found.constants(model_of(run)))
    assert plan.times.generation == pytest.approx(21.0)
    assert plan.times.forward == pytest.approx(10.0)
    assert plan.times.backward == pytest.approx(9.0)
    assert plan.load.computed == pytest.approx(3000)


def test_a_run_without_updates_or_with_adapters_is_no_like(tmp_path):
    with pytest.raises(ConfigError, match="no run of cm2 rl"):
        measured(str(tmp_path))
    with pytest.raises(ConfigError, match="no measured update"):
        measured(write_run(tmp_path / "empty", []))
    with pytest.raises(ConfigError, match="adapters"):
        measured(write_run(tmp_path / "lora", [ROW], lora=8))


@pytest.mark.skipif(not (RUNS / "demo" / "rl" / "metrics.jsonl").exists(), reason="the demo has not been run here")
def test_the_local_constants_are_those_of_the_demo():
    from cm2.plan.constants import Constants

    run = str(RUNS / "demo" / "rl")
    if measured(run).updates != 21:
        pytest.skip("another run of the demo stands there")
    for name, value in measured(run).constants(model_of(run)).items():
        assert Constants()[name] == pytest.approx(value, rel=0.005), name
