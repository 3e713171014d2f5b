"""PPO on the TRL engine: gradients of policy and critic against the formulas, resumption, and that it learns."""

import os
import signal

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from cm2.errors import ConfigError  # noqa: E402
from cm2.train.engine import make_trainer  # noqa: E402
from cm2.train.ppo_config import PpoConfig  # noqa: E402
from cm2.train.rl import Batch, RlConfig, train_rl  # noqa: E402
from cm2.train.roll import Row  # noqa: E402
from cm2.train.runs import Run  # noqa: E402
from train.saying_task import numbers, saying, settings, tiny_folder, weights, write  # noqa: E402

G = 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "tasks.jsonl", [saying(i) for i in range(8)])


def made_rows(seed=0):
    """Two groups; a step ends where the mask falls, and is paid there. One row was not run, one earned nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in ([1, 2, 3, 4, 5], [7, 8, 9]):
        for _ in range(G):
            n = int(rng.integers(5, 12))
            mask = (rng.random(n) < 0.7).astype(int)
            mask[0] = 1
            ends = mask * np.append(mask[1:] == 0, True)
            row = Row(prompt, rng.integers(10, 90, n).tolist(), mask.tolist())
            row.logprobs = (-rng.random(n) * mask).tolist()
            row.advantages = [0.0] * n
            row.rewards = (ends * rng.random(n)).tolist()
            row.reward = sum(row.rewards)
            rows.append(row)
    rows[2] = Row(rows[2].prompt, [11], [0], [0.0], [0.0])
    rows[4].rewards = [0.0] * len(rows[4].mask)
    return rows


def trainer_of(tmp_path, model_folder, rows, ppo, head=None, away=True, **changes):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sizes = {"prompts": 2, "group": G, "save_every": 0, "algorithm": "ppo", "ppo": ppo}
    config = RlConfig(input="x", output=str(tmp_path / "run"), model=model_folder, **sizes, **changes)
    run = Run(config.output, "rl", config, {})
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    if away:
        with torch.no_grad():  # away from the reference, so that the KL term has a gradient
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.02)
    trainer = make_trainer(run, config, model, AutoTokenizer.from_pretrained(model_folder), tasks=4)
    trainer.roll = lambda indices, generation: rows
    trainer.current_gradient_accumulation_steps = 1
    with torch.no_grad():
        weight = torch.randn(32, generator=torch.Generator().manual_seed(5)) * 0.1
        trainer.value_head.weight.copy_(weight if head is None else head)
        trainer.value_head.bias.fill_(0.1)
    run.close()
    return trainer


def gradient(trainer):
    trainer.model.zero_grad()
    inputs = [{"prompt": str(i)} for i in (0, 0, 0, 1, 1, 1)]
    clip = torch.nn.utils.clip_grad_norm_
    torch.nn.utils.clip_grad_norm_ = lambda *_: None  # the bare gradients
    try:
        loss = trainer.training_step(trainer.model, inputs)
    finally:
        torch.nn.utils.clip_grad_norm_ = clip
    policy = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    head = {f"head.{name}": p.grad.clone() for name, p in trainer.value_head.named_parameters()}
    return float(loss), policy | head


def read(model, row):
    """log p of each completion id, and the last hidden state before it, of one row read alone."""
    out = model(input_ids=torch.tensor([row.prompt + row.completion]), output_hidden_states=True)
    first = len(row.prompt) - 1
    logps = torch.log_softmax(out.logits[0, first:-1], -1)
    return logps[torch.arange(len(row.completion)), torch.tensor(row.completion)], out.hidden_states[-1][0, first:-1]


def estimate(rewards, values, gamma, lam):
    """GAE from its definition: A_i = Σ_k (γλ)^k δ_{i+k}."""
    n = len(values)
    deltas = [rewards[i] + gamma * (values[i + 1] if i + 1 < n else 0.0) - values[i] for i in range(n)]
    return [sum((gamma * lam) ** k * deltas[i + k] for k in range(n - i)) for i in range(n)]


def by_hand(trainer, rows, ppo, reference=None, beta=0.0, loss="token_mean", old=None, head=None, longest=2048):
    """Loss and gradient from the formulas, row by row; `old`: trainer weights at sampling time, else those of now."""
    model, own_head = trainer.model, trainer.value_head
    model.zero_grad()
    own_head.zero_grad()
    weight, bias = own_head.weight, own_head.bias
    tokens = sum(sum(row.mask) for row in rows)
    kept = []
    for row in rows:
        at = torch.tensor(row.mask).bool()
        logps, hidden = read(model, row)
        values = (hidden if ppo.trunk else hidden.detach()) @ weight + bias
        with torch.no_grad():
            rewards = torch.tensor(row.rewards or [0.0] * len(row.mask))
            if ppo.kl_in == "reward" and beta:
                rewards = rewards - beta * (logps - read(reference, row)[0])
            before = values.detach() if old is None else old[len(kept)]
            advantages = torch.tensor(estimate(rewards[at].tolist(), before[at].tolist(), ppo.gamma, ppo.lam))
            other = read(reference, row)[0] if reference is not None else None
        kept.append((row, at, logps, values, before, advantages, other))
    everything = torch.cat([one[5] for one in kept])
    mean, deviation = everything.mean(), everything.std(unbiased=False)
    total, counted = 0.0, sum(any(row.mask) for row in rows)
    for row, at, logps, values, before, advantages, other in kept:
        returns = advantages + before[at]
        if ppo.whiten:
            advantages = (advantages - mean) / (deviation + 1e-8)
        sampled = logps[at]
        if old is None:
            each = -advantages * torch.exp(sampled - sampled.detach())
        else:
            ratio = torch.exp(sampled - torch.tensor(row.logprobs)[at])
            each = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        if beta and ppo.kl_in == "loss":
            each = each + beta * (torch.exp(other[at] - sampled) - (other[at] - sampled) - 1)
        plain = (values[at] - returns) ** 2
        if ppo.clip is not None:
            held = before[at] + (values[at] - before[at]).clamp(-ppo.clip, ppo.clip)
            plain = torch.max(plain, (held - returns) ** 2)
        each = each + ppo.coef * 0.5 * plain
        if loss == "token_mean":
            total = total + each.sum() / tokens
        elif loss == "sequence_mean":
            total = total + each.sum() / max(int(at.sum()), 1) / counted
        else:
            total = total + each.sum() / (counted * longest)
    total.backward()
    policy = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return float(total.detach()), policy | {"head.weight": weight.grad.clone(), "head.bias": bias.grad.clone()}


def same(found, wanted, tolerance=2e-5):
    assert found.keys() == wanted.keys()
    for part in (False, True):  # the critic's gradient has a size of its own
        names = [name for name in wanted if name.startswith("head.") == part]
        scale = max(float(wanted[name].abs().max()) for name in names)
        assert scale > 0
        for name in names:
            assert float((found[name] - wanted[name]).abs().max()) < tolerance * scale, name


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("micro_tokens", [10, 1000])
@pytest.mark.parametrize("trunk", [True, False])
def test_the_gradients_of_policy_and_critic_are_the_hand_computed_ones(
    tmp_path, model_folder, shared, micro_tokens, trunk
):
    rows, ppo = made_rows(), PpoConfig(lam=0.9, gamma=0.98, trunk=trunk, coef=0.7)
    trainer = trainer_of(tmp_path, model_folder, rows, ppo, beta=0.0, micro_tokens=micro_tokens)
    assert trainer.shared_prefix
    trainer.shared_prefix = shared
    loss, found = gradient(trainer)
    wanted_loss, wanted = by_hand(trainer, rows, ppo)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    same(found, wanted)


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
@pytest.mark.parametrize("loss", ["token_mean", "sequence_mean", "dr_grpo"])
def test_every_aggregation_and_the_kl_in_loss_or_reward_survive_micro_batches(tmp_path, model_folder, loss, kl_in):
    from transformers import AutoModelForCausalLM

    rows, ppo = made_rows(1), PpoConfig(lam=0.95, whiten=kl_in == "loss", kl_in=kl_in)
    trainer = trainer_of(tmp_path, model_folder, rows, ppo, beta=0.05, micro_tokens=12, loss=loss)
    found_loss, found = gradient(trainer)
    reference = AutoModelForCausalLM.from_pretrained(model_folder)
    wanted_loss, wanted = by_hand(trainer, rows, ppo, reference, beta=0.05, loss=loss)
    assert found_loss == pytest.approx(wanted_loss, abs=1e-5)
    same(found, wanted)
    assert trainer.losses()["kl"] > 0


def test_reused_batches_are_clipped_against_values_and_policy_of_sampling_time(tmp_path, model_folder):
    rows, ppo = made_rows(2), PpoConfig(lam=0.9, clip=0.05, coef=1.0)
    trainer = trainer_of(tmp_path, model_folder, rows, ppo, beta=0.0, epochs=2)
    gradient(trainer)
    with torch.no_grad():
        old = [read(trainer.model, row)[1] @ trainer.value_head.weight + trainer.value_head.bias for row in rows]
        for parameter in [*trainer.model.parameters(), *trainer.value_head.parameters()]:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    _, found = gradient(trainer)
    _, wanted = by_hand(trainer, rows, ppo, old=old)
    same(found, wanted)
    assert 0 < trainer.losses()["value_clip_ratio"] < 1


def test_a_group_that_earned_the_same_trains_policy_and_critic(tmp_path, model_folder):
    rows = made_rows()
    for row in rows:
        row.rewards = [0.0] * len(row.mask)
    trainer = trainer_of(tmp_path, model_folder, rows, PpoConfig(), beta=0.0)
    _, found = gradient(trainer)
    assert float(found["head.bias"].abs()) > 0 and any(float(grad.abs().max()) > 0 for grad in found.values())


def test_a_row_that_was_not_run_or_failed_changes_nothing(tmp_path, model_folder):
    """A failed rollout keeps its ids and has no mask: neither returns, nor whitening, nor the critic may see it."""
    rows = made_rows()
    _, without = gradient(trainer_of(tmp_path / "a", model_folder, rows, PpoConfig(), beta=0.0))
    rows[2] = Row(rows[2].prompt, [11, 12, 13], [0, 0, 0], [0.0] * 3, [0.0] * 3, [0.0] * 3)
    _, with_failed = gradient(trainer_of(tmp_path / "b", model_folder, rows, PpoConfig(), beta=0.0))
    assert all(torch.equal(with_failed[name], without[name]) for name in without)


def test_frozen_layers_and_adapters_leave_the_critic_trainable(tmp_path, model_folder):
    for number, changes in enumerate(({"layers": 1}, {"lora": 2})):
        trainer = trainer_of(tmp_path / str(number), model_folder, made_rows(), PpoConfig(trunk=True), **changes)
        _, found = gradient(trainer)
        wanted = ("model.layers.1.", "model.norm") if "layers" in changes else ("base_model.",)
        assert {name for name in found if not name.startswith(wanted)} == {"head.weight", "head.bias"}
        assert float(found["head.weight"].abs().max()) > 0


def test_the_critic_has_a_rate_of_its_own_and_is_no_part_of_the_model(tmp_path, model_folder):
    trainer = trainer_of(tmp_path, model_folder, made_rows(), PpoConfig(lr=3e-3), lr=1e-5)
    trainer.create_optimizer()
    groups = trainer.optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-5, 1e-5, 3e-3]
    own = {id(one) for one in trainer.value_head.parameters()}
    assert {id(one) for one in groups[2]["params"]} == own
    assert not own & {id(one) for one in trainer.model.parameters()}


@pytest.mark.parametrize("changes", [{}, {"mini_batches": 2, "epochs": 2, "updates": 12}])
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, model_folder, data, changes, monkeypatch):
    ppo = PpoConfig(lam=0.95, kl_in="reward", lr=1e-2)
    config = settings(data, tmp_path / "run", model_folder, algorithm="ppo", ppo=ppo, beta=0.05, **changes)
    train_rl(msgspec.structs.replace(config, output=str(tmp_path / "straight")))
    rolled = Batch.__call__

    def interrupted(self, indices, generation):
        rows = rolled(self, indices, generation)
        if generation == 1:
            os.kill(os.getpid(), signal.SIGINT)  # asks for a stop after the step at hand
        return rows

    monkeypatch.setattr(Batch, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_rl(config)
    monkeypatch.setattr(Batch, "__call__", rolled)
    resumed = train_rl(config)
    assert 0 < resumed["resumed_from"] < config.updates
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    mine, theirs = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    told = numbers(tmp_path / "run")
    assert all({"value_loss", "value_explained", "kl", "staleness", "log_ratio_abs"} <= one.keys() for one in told[:1])
    assert any(one["value_mean"] != 0 for one in told if "value_mean" in one)  # the head did learn something


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_learning_raises_the_reward_and_the_critic_follows_it(tmp_path, model_folder, data, kl_in):
    ppo = PpoConfig(lr=1e-2) if kl_in == "loss" else PpoConfig(lr=1e-2, lam=0.95, kl_in="reward", trunk=True)
    changes = {"updates": 20, "group": 8, "lr": 2e-2, "beta": 1e-3, "save_every": 0}
    summary = train_rl(settings(data, tmp_path / "run", model_folder, algorithm="ppo", ppo=ppo, **changes))
    assert summary["last_reward"] > summary["first_reward"] + 0.25
    told = numbers(tmp_path / "run")
    assert np.mean([one["value_loss"] for one in told[-5:]]) < 0.5 * np.mean([one["value_loss"] for one in told[:5]])
    assert all(abs(one["value_mean"] - one["return_mean"]) < 0.4 for one in told[-5:])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"algorithm": "ppo", "level": "step"}, "credits every step by itself"),
        ({"algorithm": "ppo", "resample": 2}, "from which PPO learns too"),
        ({"ppo": PpoConfig(kl_in="reward")}, "needs a critic"),
        ({"algorithm": "reinforce"}, "setting algorithm"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(tmp_path, model_folder, data, changes, told):
    with pytest.raises(ConfigError, match=told):
        train_rl(settings(data, tmp_path / "run", model_folder, **changes))
