"""Truncated importance sampling: folded weights are the direct formula, also through the trainer; staleness."""

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import numpy as np  # noqa: E402
import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.train.engine import make_trainer  # noqa: E402
from cm2.train.importance import cut, truncated  # noqa: E402
from cm2.train.ppo_config import PpoConfig  # noqa: E402
from cm2.train.rl import RlConfig, train_rl  # noqa: E402
from cm2.train.roll import Row  # noqa: E402
from cm2.train.runs import Run  # noqa: E402
from cm2.train.staleness import Staleness  # noqa: E402
from train.saying_task import numbers, saying, tiny_folder, write  # noqa: E402
from train.saying_task import settings as run_settings  # noqa: E402


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


def test_weights_of_tokens_and_of_sequences_by_hand():
    policy, sampler = torch.log(torch.tensor([[0.6, 0.5, 0.9]])), torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    mask = torch.tensor([[1, 1, 0]])
    assert truncated(policy, sampler, mask, "token", 2.0)[0].tolist() == pytest.approx([2.0, 1.0, 1.0])
    assert truncated(policy, sampler, mask, "token", 5.0)[0].tolist() == pytest.approx([3.0, 1.0, 1.0])
    assert truncated(policy, sampler, mask, "sequence", 5.0)[0].tolist() == pytest.approx([3.0, 3.0, 1.0])
    assert truncated(policy, sampler, mask, "sequence", 2.0)[0].tolist() == pytest.approx([2.0, 2.0, 1.0])
    assert truncated(policy, sampler, mask, "none", 2.0)[0].tolist() == [1.0, 1.0, 1.0]
    assert cut(truncated(policy, sampler, mask, "token", 2.0), mask, 2.0) == 0.5
    assert cut(torch.ones(1, 2), torch.zeros(1, 2), 2.0) == 0.0


@settings(deadline=None, max_examples=200)
@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(0.3, 2), st.floats(0.05, 0.4), st.floats(0.05, 0.9))
def test_a_weight_above_zero_may_be_folded_into_the_advantage_of_the_clipped_loss(advantage, weight, ratio, low, high):
    def clipped(a):
        return min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)

    assert clipped(advantage) * weight == pytest.approx(clipped(advantage * weight), rel=1e-9, abs=1e-9)


def made_rows():
    rng = np.random.default_rng(3)
    rows = []
    for prompt in ([1, 2, 3, 4, 5], [7, 8, 9]):
        for _ in range(3):
            n = int(rng.integers(4, 12))
            mask = (rng.random(n) < 0.7).astype(int)
            mask[0] = 1
            row = Row(prompt, rng.integers(10, 90, n).tolist(), mask.tolist())
            row.logprobs = (-16 * rng.random(n) * mask).tolist()  # a sampler that is far from the policy
            row.advantages = (rng.normal(size=n) * mask).tolist()
            row.rewards = [0.0] * n
            rows.append(row)
    rows[1] = Row(rows[1].prompt, [11], [0], [0.0], [0.0])
    return rows


def trainer_of(tmp_path, model_folder, rows, **changes):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sizes = {"prompts": 2, "group": 3, "save_every": 0, "beta": 0.0}
    config = RlConfig(input="x", output=str(tmp_path / "run"), model=model_folder, **(sizes | changes))
    run = Run(config.output, "rl", config, {})
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    trainer = make_trainer(run, config, model, AutoTokenizer.from_pretrained(model_folder), tasks=4)
    trainer.roll = lambda indices, generation: rows
    trainer.current_gradient_accumulation_steps = 1
    run.close()
    return trainer


def gradient(trainer):
    trainer.model.zero_grad()
    trainer.training_step(trainer.model, [{"prompt": str(i)} for i in (0, 0, 0, 1, 1, 1)])
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def logps_of(model, row):
    logits = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(row.completion)), torch.tensor(row.completion)]


def directly(model, rows, mode, most, old=None):
    """Σ −w·min(r·A, clip(r)·A) / tokens, the weight as a factor of the loss and not folded into anything."""
    model.zero_grad()
    total, tokens = 0.0, sum(sum(row.mask) for row in rows)
    for i, row in enumerate(rows):
        mask, advantage = torch.tensor(row.mask).float(), torch.tensor(row.advantages)
        logps = logps_of(model, row)
        before = logps.detach() if old is None else old[i]
        log_weight = (before - torch.tensor(row.logprobs)) * mask
        if mode == "sequence":
            log_weight = log_weight.sum().expand_as(log_weight)
        weight = torch.exp(log_weight).clamp(max=most)
        ratio = torch.exp(logps - before)
        each = -weight * torch.min(ratio * advantage, ratio.clamp(0.8, 1.3) * advantage)
        total = total + (each * mask).sum() / tokens
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(found, wanted, tolerance=2e-5):
    scale = max(float(grad.abs().max()) for grad in wanted.values())
    assert found.keys() == wanted.keys() and scale > 0
    for name, grad in wanted.items():
        assert float((found[name] - grad).abs().max()) < tolerance * scale, name


@pytest.mark.parametrize("mode", ["token", "sequence"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_is_that_of_weights_outside_the_loss(tmp_path, model_folder, mode, shared):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, importance=mode, importance_max=1.5)
    trainer.shared_prefix = shared
    found = gradient(trainer)
    same(found, directly(trainer.model, rows, mode, 1.5))
    told = trainer.losses()
    assert 0 < told["importance_cut"] <= 1 and told["importance_mean"] > 0


def test_without_correction_a_sampler_that_differs_changes_nothing_on_the_first_pass(tmp_path, model_folder):
    trainer = trainer_of(tmp_path, model_folder, made_rows())
    found = gradient(trainer)
    for row in (rows := made_rows()):
        row.logprobs = [0.0] * len(row.mask)
    again = gradient(trainer_of(tmp_path / "b", model_folder, rows))
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_on_a_second_pass_the_ratio_is_to_the_policy_at_sampling_time_and_the_weight_stays(tmp_path, model_folder):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, importance="token", epochs=2, clip_high=0.3)
    gradient(trainer)
    with torch.no_grad():
        old = [logps_of(trainer.model, row) for row in rows]
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    same(gradient(trainer), directly(trainer.model, rows, "token", 2.0, old))
    assert trainer.losses()["clip_ratio"] > 0


def test_ppo_weighs_its_advantages_and_not_its_returns(tmp_path, model_folder):
    rows = made_rows()
    for row in rows:
        row.rewards = [0.0] * len(row.mask)
        row.rewards[0] = 0.5 * row.mask[0]
    seen = {}
    for mode in ("none", "token"):
        ppo = PpoConfig(whiten=False)
        trainer = trainer_of(tmp_path / mode, model_folder, rows, algorithm="ppo", ppo=ppo, importance=mode)
        seen[mode] = trainer._generate_and_score_completions([{"prompt": str(i)} for i in (0, 0, 0, 1, 1, 1)])
    assert torch.equal(seen["none"]["returns"], seen["token"]["returns"])
    assert not torch.equal(seen["none"]["advantages"], seen["token"]["advantages"])


def test_staleness_counts_updates_and_sums_log_ratios_up_over_parts():
    stale = Staleness()
    stale.sampled(7)
    mask = torch.tensor([[1, 1, 0]])
    stale.see(torch.tensor([[-1.0, -2.0, 5.0]]), torch.tensor([[-1.5, -1.0, 0.0]]), mask)
    stale.see(torch.tensor([[-1.0]]), torch.tensor([[-1.0]]), torch.tensor([[1]]))
    told = stale.numbers(9)
    assert told["staleness"] == 2
    assert told["log_ratio_mean"] == pytest.approx(-0.5 / 3)
    assert told["log_ratio_abs"] == pytest.approx(0.5) and told["log_ratio_max"] == 1.0
    stale.begin()
    stale.see(torch.tensor([[-1.0]]), None, torch.tensor([[1]]))
    assert stale.numbers(7) == {"staleness": 0}


def test_a_run_tells_how_stale_each_step_was(tmp_path, model_folder):
    data = write(tmp_path / "tasks.jsonl", [saying(i) for i in range(4)])
    config = run_settings(data, tmp_path / "run", model_folder, mini_batches=2, epochs=2, updates=8, importance="token")
    train_rl(config)
    told = numbers(tmp_path / "run")
    assert [one["staleness"] for one in told] == [0, 1, 2, 3] * 2
    # Fresh rollouts: sampler and trainer agree up to rounding; used again they drift apart.
    assert told[0]["log_ratio_abs"] < 0.02 < told[3]["log_ratio_abs"]
    assert told[0]["importance_mean"] == pytest.approx(1, abs=0.05)
