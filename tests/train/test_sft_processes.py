"""cm2 sft by several processes: the numbers of one."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import msgspec  # noqa: E402
import numpy as np  # noqa: E402

from cm2.errors import ConfigError  # noqa: E402
from cm2.rollout.template import ChatTemplate  # noqa: E402
from cm2.train import sft as module  # noqa: E402
from cm2.train.loss import packed_loss  # noqa: E402
from cm2.train.masks import Example, example  # noqa: E402
from cm2.train.prefix import supports  # noqa: E402
from cm2.train.processes import Processes  # noqa: E402
from cm2.train.sft import train_sft  # noqa: E402
from cm2.train.trainer import evened  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from train.test_processes import done  # noqa: E402
from train.test_sft import SHAPE, config, data, made, model_folder, numbers, weights  # noqa: E402, F401

EPOCHS = 1.6
"""Of 12 dialogues: 19 in steps of 4, so the last step has 3, and one process has a row more than the other."""


def test_an_order_is_filled_up_with_a_row_that_has_no_loss():
    ids = np.arange(9)
    examples = [Example("a", ids, ids > 3, 1), Example("b", ids, ids > 3, 1)]
    filled, order = evened(examples, [1, 0, 1], 4)
    assert order == [1, 0, 1, 2] and filled[:2] == examples and not filled[2].mask.any()
    assert (filled[2].labels == -100).all()
    assert evened(examples, [1, 0, 1, 0], 4) == (examples, [1, 0, 1, 0])


@pytest.mark.parametrize("beside", [0, 1])
def test_such_a_row_has_no_loss_and_no_gradient_alone_or_beside_another(beside):
    model, tokenizer = tiny_chat(**SHAPE, max_position_embeddings=8192)
    assert supports(model)
    one = example(ChatTemplate(tokenizer), made(1))
    silent = evened([one], [0], 2)[0][1]
    rows = [one] * beside + [silent]
    loss = packed_loss(model, [row.ids for row in rows], [row.mask for row in rows], 7)
    loss.backward()
    wanted = float(packed_loss(model, [one.ids], [one.mask], 7).detach()) if beside else 0.0
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    assert (largest > 0) is bool(beside)


def test_a_batch_that_cannot_be_dealt_out_is_refused(config, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "join", lambda: Processes(0, 3))
    with pytest.raises(ConfigError, match="micro_batch 2 in each of 3 processes does not divide batch 4"):
        train_sft(config)


def test_weights_that_are_sharded_are_refused(config, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="sharded by FSDP"):
        train_sft(config)


def start_of(folder):
    """The weights that a run began with."""
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


@pytest.mark.slow
def test_two_processes_fine_tune_to_the_numbers_of_one(config, tmp_path):  # noqa: F811
    config.epochs = EPOCHS
    named = {name: msgspec.structs.replace(config, output=str(tmp_path / name)) for name in ("one", "two", "lora")}
    named["lora"].lora, named["alone"] = 2, msgspec.structs.replace(config, output=str(tmp_path / "alone"), lora=2)
    scenarios = [{"name": name, "verb": "sft", "config": named[name]} for name in ("two", "lora")]
    halted = msgspec.structs.replace(config, output=str(tmp_path / "halted"))
    scenarios += [
        {"name": "halted", "verb": "sft", "config": halted, "interrupt": [1, 1]},
        {"name": "resumed", "verb": "sft", "config": halted},
    ]
    ended = done(tmp_path, scenarios)
    for mine, theirs in (("two", "one"), ("lora", "alone")):
        summary = train_sft(named[theirs])
        assert ended[0][mine] == ended[1][mine] and ended[0][mine]["steps"] == summary["steps"] == 5
        two, one = numbers(tmp_path / mine), numbers(tmp_path / theirs)
        for name in ("step", "tokens", "loss_tokens", "epoch", "lr"):
            assert [line[name] for line in two] == [line[name] for line in one]
        for name in ("loss", "grad_norm"):
            assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=2e-3)
        after, wanted, before = weights(tmp_path / mine), weights(tmp_path / theirs), start_of(config.model)
        moved = max(float((wanted[key] - before[key]).abs().max()) for key in wanted)
        assert all(float((after[key] - wanted[key]).abs().max()) < 0.02 * moved for key in wanted)
    assert ended[0]["halted"].startswith("KeyboardInterrupt") and ended[0]["resumed"]["resumed_from"] == 2
    again, whole = numbers(tmp_path / "halted"), numbers(tmp_path / "one")
    assert [line["loss"] for line in again] == pytest.approx([line["loss"] for line in whole], rel=2e-3)
