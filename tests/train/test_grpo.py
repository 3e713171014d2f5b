"""The TRL engine: its loss and gradient against the formulas, whatever the micro-batches."""

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import numpy as np  # noqa: E402
import torch  # noqa: E402

from cm2.train.engine import make_trainer  # noqa: E402
from cm2.train.rl import RlConfig  # noqa: E402
from cm2.train.roll import Row  # noqa: E402
from cm2.train.runs import Run  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
G = 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def made_rows(seed=0):
    """Two groups with advantages that differ within a row, a row that was not run, one without advantage."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in ([1, 2, 3, 4, 5], [7, 8, 9]):
        for _ in range(G):
            n = int(rng.integers(4, 12))
            mask = (rng.random(n) < 0.7).astype(int)
            mask[0] = 1
            rows.append(
                Row(
                    prompt,
                    rng.integers(10, 90, n).tolist(),
                    mask.tolist(),
                    (-rng.random(n) * mask).tolist(),
                    (rng.normal(size=n) * mask).tolist(),
                    float(rng.random()),
                )
            )
    rows[2] = Row(rows[2].prompt, [11], [0], [0.0], [0.0])
    rows[4].advantages = [0.0] * len(rows[4].mask)
    return rows


def trainer_of(tmp_path, model_folder, rows, **changes):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = RlConfig(
        input="x", output=str(tmp_path / "run"), model=model_folder, prompts=2, group=G, save_every=0, **changes
    )
    run = Run(config.output, "rl", config, {})
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    if config.beta:
        with torch.no_grad():  # away from the reference, so that the KL term has a gradient
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.02)
    trainer = make_trainer(run, config, model, AutoTokenizer.from_pretrained(model_folder), tasks=4)
    trainer.roll = lambda indices, generation: rows
    trainer.current_gradient_accumulation_steps = 1
    run.close()
    return trainer


def gradient(trainer):
    trainer.model.zero_grad()
    inputs = [{"prompt": str(i)} for i in (0, 0, 0, 1, 1, 1)]
    loss = trainer.training_step(trainer.model, inputs)
    return float(loss), {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def logps_of(model, row):
    logits = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(row.completion)), torch.tensor(row.completion)]


def by_hand(model, rows, loss="token_mean", reference=None, beta=0.0, unbiased=False, longest=2048):
    """The loss from its formula: minus A times the ratio (1, with the gradient of log p), plus beta times k3."""
    model.zero_grad()
    total, tokens = 0.0, sum(sum(row.mask) for row in rows)
    counted = sum(any(row.mask) for row in rows)  # one that was not run, or failed, is in no mean
    for row in rows:
        mask, advantage = torch.tensor(row.mask, dtype=torch.float), torch.tensor(row.advantages)
        logps = logps_of(model, row)
        own = -advantage * torch.exp(logps - logps.detach())
        if beta:
            with torch.no_grad():
                other = logps_of(reference, row)
            k3 = torch.exp(other - logps) - (other - logps) - 1
            own = own + beta * k3 * (torch.exp(logps - logps.detach()) if unbiased else 1)
        if loss == "token_mean":
            total = total + (own * mask).sum() / tokens
        elif loss == "sequence_mean":
            total = total + (own * mask).sum() / max(float(mask.sum()), 1.0) / counted
        else:
            total = total + (own * mask).sum() / (counted * longest)
    total.backward()
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(found, wanted, tolerance=2e-5):
    scale = max(float(grad.abs().max()) for grad in wanted.values())
    assert found.keys() == wanted.keys() and scale > 0
    for name, grad in wanted.items():
        assert float((found[name] - grad).abs().max()) < tolerance * scale, name


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("micro_tokens", [10, 1000])
def test_the_gradient_of_a_batch_is_the_hand_computed_one(tmp_path, model_folder, shared, micro_tokens):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.0, micro_tokens=micro_tokens)
    assert trainer.shared_prefix
    trainer.shared_prefix = shared
    loss, found = gradient(trainer)
    wanted_loss, wanted = by_hand(trainer.model, rows)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    same(found, wanted)


@pytest.mark.parametrize("kl", ["k3", "unbiased"])
@pytest.mark.parametrize("loss", ["token_mean", "sequence_mean", "dr_grpo"])
def test_every_aggregation_and_the_kl_term_survive_micro_batches(tmp_path, model_folder, loss, kl):
    from transformers import AutoModelForCausalLM

    rows = made_rows(1)
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.05, micro_tokens=12, loss=loss, kl_gradient=kl)
    found_loss, found = gradient(trainer)
    reference = AutoModelForCausalLM.from_pretrained(model_folder)
    wanted_loss, wanted = by_hand(trainer.model, rows, loss, reference, beta=0.05, unbiased=kl == "unbiased")
    assert found_loss == pytest.approx(wanted_loss, abs=1e-5)
    same(found, wanted)


def test_rows_without_loss_are_not_computed(tmp_path, model_folder):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.0)
    gradient(trainer)
    # Rows 2 (not run) and 4 (no advantage) are left out; a row's last id is not read; what rows share is read once.
    read = {
        tuple((rows[i].prompt + rows[i].completion)[: n + 1])
        for i in (0, 1, 3, 5)
        for n in range(len(rows[i].prompt + rows[i].completion) - 1)
    }
    assert trainer.tokens_forward == len(read)


def test_a_batch_without_any_signal_has_a_zero_gradient(tmp_path, model_folder):
    rows = made_rows()
    for row in rows:
        row.advantages = [0.0] * len(row.mask)
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.0)
    loss, found = gradient(trainer)
    assert loss == 0 and all(float(grad.abs().max()) == 0 for grad in found.values())


def test_reused_batches_are_clipped_against_the_sampling_policy(tmp_path, model_folder):
    """With two passes over a batch the driver's log-probabilities are the old ones; outside the clip no gradient."""
    rows = made_rows(2)
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.0, epochs=2, clip_low=0.2, clip_high=0.3)
    _, found = gradient(trainer)
    model = trainer.model
    model.zero_grad()
    total, tokens = 0.0, sum(sum(row.mask) for row in rows)
    for row in rows:
        mask, advantage = torch.tensor(row.mask, dtype=torch.float), torch.tensor(row.advantages)
        ratio = torch.exp(logps_of(model, row) - torch.tensor(row.logprobs))
        clipped = torch.clamp(ratio, 0.8, 1.3)
        total = total - (torch.min(ratio * advantage, clipped * advantage) * mask).sum() / tokens
    total.backward()
    same(found, {name: p.grad.clone() for name, p in model.named_parameters()})


def test_frozen_layers_have_no_gradient_and_the_others_keep_theirs(tmp_path, model_folder):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.0, layers=1)
    _, found = gradient(trainer)
    assert found and all(name.startswith(("model.layers.1.", "model.norm")) for name in found)
    for parameter in trainer.model.parameters():
        parameter.requires_grad_(True)
    _, wanted = by_hand(trainer.model, rows)
    same(found, {name: wanted[name] for name in found})


def test_lora_trains_adapters_only_and_its_reference_is_the_bare_model(tmp_path, model_folder):
    rows = made_rows()
    trainer = trainer_of(tmp_path, model_folder, rows, beta=0.1, lora=2)
    assert trainer.ref_model is None and trainer.shared_prefix
    _, found = gradient(trainer)
    assert found and all("lora_" in name for name in found)
