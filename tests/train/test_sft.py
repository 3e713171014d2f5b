"""cm2 sft: the right loss, the same numbers after a kill, a model that can be used."""

import copy
import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import numpy as np  # noqa: E402
import torch  # noqa: E402

from cm2.checklist import Task  # noqa: E402
from cm2.dialogue import Dialogue, Turn  # noqa: E402
from cm2.errors import CM2Error, ConfigError, DataError  # noqa: E402
from cm2.formats import write_task  # noqa: E402
from cm2.rollout.template import ChatTemplate  # noqa: E402
from cm2.train import keeping, settings  # noqa: E402
from cm2.train.loss import common, packed_loss, sparse_loss  # noqa: E402
from cm2.train.masks import BEGINNING, example  # noqa: E402
from cm2.train.prefix import supports  # noqa: E402
from cm2.train.runs import Run  # noqa: E402
from cm2.train.sft import SftConfig, train_sft  # noqa: E402
from cm2.train.trainer import Trainer, rate  # noqa: E402
from rollout.coffee_task import dialogue  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_chat(**SHAPE, max_position_embeddings=8192)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def made(i):
    """The coffee dialogue with as many steps of its first turn as i says, so that lengths differ."""
    one = copy.deepcopy(dialogue())
    one.id = f"coffee-{i}"
    one.turns = one.turns[: 1 + i % 2]
    one.turns[0].user += f" It is order number {i}."
    one.turns[0].steps = one.turns[0].steps[i % 4 :]
    return one


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    file.write_text("".join(json.dumps(write_task(Task(made(i), []), "openai")) + "\n" for i in range(12)))
    return str(file)


@pytest.fixture
def config(tmp_path, model_folder, data):
    changes = {"input": data, "output": str(tmp_path / "run"), "model": model_folder, "epochs": 2, "lr": 1e-2}
    return SftConfig(**changes, batch=4, micro_batch=2, seed=1)


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("how", ["packed", "sparse"])
def test_loss_and_gradient_are_the_token_mean_cross_entropy_over_exactly_the_masked_positions(how):
    model, tokenizer = tiny_chat(**SHAPE, max_position_embeddings=8192)
    stranger = made(2)
    stranger.system = "You are someone else and begin differently."
    examples = [example(ChatTemplate(tokenizer), one) for one in (made(3), stranger, made(2), made(7))]
    if how == "packed":
        assert supports(model)
        assert len(set(common([one.ids for one in examples], [one.mask for one in examples]))) == 2
        loss = packed_loss(model, [one.ids for one in examples], [one.mask for one in examples])
    else:
        loss = sparse_loss(model, *padded(examples, tokenizer.pad_token_id))
    loss.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    by_hand, count = 0.0, 0
    for one in examples:  # each alone, so neither padding nor packing nor batching can matter
        logp = torch.log_softmax(model(torch.tensor(one.ids)[None]).logits[0].double(), -1)
        for at in range(1, len(one.ids)):
            if one.mask[at]:
                by_hand, count = by_hand - logp[at - 1, one.ids[at]], count + 1
    (by_hand / count).backward()
    assert abs(loss.item() - (by_hand / count).item()) < 1e-6
    assert max((got[name] - p.grad).abs().max().item() for name, p in model.named_parameters()) < 1e-6


def padded(examples, pad):
    width = max(len(one.ids) for one in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), -100)
    for row, one in enumerate(examples):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        labels[row, : len(one.ids)] = torch.tensor(one.labels)
    return ids, labels


def test_a_common_beginning_ends_before_the_first_trained_id_and_needs_enough_ids():
    same = np.arange(100)
    trained = np.arange(100) >= 60
    early = np.arange(100) >= 50
    assert common([same, same], [trained, early]) == [50, 50]
    assert common([same, np.where(np.arange(100) < 40, same, -1)], [trained, trained]) == [40, 40]
    assert common([same, np.where(np.arange(100) < BEGINNING - 1, same, -1)], [trained, trained]) == [60, 60]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1]), ("linear", [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])],
)
def test_the_learning_rate_rises_from_the_first_step_and_falls_after_the_warm_up(schedule, shares):
    assert [rate(step, 7, schedule, 0.4) for step in range(7)] == pytest.approx(shares)
    assert [rate(step, 4, "cosine", 0.0) for step in (0, 2)] == pytest.approx([1.0, 0.5])


def test_micro_batches_do_not_change_the_numbers(config, tmp_path):
    config.epochs = 0.7
    train_sft(config)
    train_sft(settings.check(SftConfig, {**_dict(config), "output": str(tmp_path / "other"), "micro_batch": 4}))
    a, b = (numbers(tmp_path / name) for name in ("run", "other"))
    assert [one["tokens"] for one in a] == [one["tokens"] for one in b]
    assert [one["loss"] for one in a] == pytest.approx([one["loss"] for one in b], rel=1e-4)


def _dict(config):
    return {name: getattr(config, name) for name in config.__struct_fields__}


def test_the_loss_falls_and_every_step_is_on_record(config, tmp_path):
    summary = train_sft(config)
    found = numbers(tmp_path / "run")
    assert [one["step"] for one in found] == [1, 2, 3, 4, 5, 6] and summary["steps"] == 6
    assert set(found[0]) == {"step", "loss", "lr", "grad_norm", "tokens", "loss_tokens", "epoch"}
    assert found[-1]["loss"] < found[0]["loss"] - 0.5
    assert found[0]["lr"] > found[-1]["lr"] and found[-1]["epoch"] == 2.0
    assert sum(one["tokens"] for one in found[:3]) == sum(one["tokens"] for one in found[3:])
    assert os.listdir(tmp_path / "run/tb")


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("polite", [True, False])
def test_a_stopped_or_killed_run_goes_on_to_the_same_losses_and_weights(config, tmp_path, monkeypatch, lora, polite):
    config.lora, config.lora_dropout = lora, 0.1 * bool(lora)
    straight = settings.check(SftConfig, {**_dict(config), "output": str(tmp_path / "straight")})
    train_sft(straight)
    record = Run.log

    def interrupted(self, step, **told):
        record(self, step, **told)
        if step == 2 and polite:
            os.kill(os.getpid(), signal.SIGINT)  # arrives in the middle of a run; step 3 is still made whole
        if step == 4 and not polite:
            raise SystemExit  # step 4 is on record but in no checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        if not polite:
            patch.setattr(keeping.Every, "due", lambda every: len(numbers(tmp_path / "run")) == 2)  # after step 3
        with pytest.raises(KeyboardInterrupt if polite else SystemExit):
            train_sft(config)
    with Run(config.output, "sft", config, _inputs(tmp_path), ()) as run:
        assert run.last_checkpoint()[0] == 3
    summary = train_sft(config)
    assert summary["resumed_from"] == 3
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    one, other = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _inputs(tmp_path):
    return json.loads((tmp_path / "run/config.json").read_text())["inputs"]


def test_a_finished_run_says_so_and_does_nothing(config, tmp_path):
    config.epochs = 0.3
    first = train_sft(config)
    written = (tmp_path / "run/model/model.safetensors").stat().st_mtime_ns
    again = train_sft(config)
    assert not first["finished_before"] and again["finished_before"]
    assert {**again, "finished_before": False} == first
    assert (tmp_path / "run/model/model.safetensors").stat().st_mtime_ns == written


def test_other_settings_and_other_data_on_the_same_run_are_refused(config, tmp_path):
    config.epochs = 0.3
    train_sft(config)
    with pytest.raises(ConfigError, match=r"lr was 0.01, now 0.02"):
        train_sft(settings.check(SftConfig, {**_dict(config), "lr": 0.02}))
    less = tmp_path / "less.jsonl"
    less.write_text(Path(config.input).read_text().rstrip("\n").rpartition("\n")[0])
    with pytest.raises(ConfigError, match="input's content changed"):
        train_sft(settings.check(SftConfig, {**_dict(config), "input": str(less)}))


def test_the_trained_model_loads_and_prefers_what_it_was_taught(config, tmp_path, model_folder):
    from cm2.train.embedded import load_model

    summary = train_sft(config)
    (before, tokenizer), (after, _) = load_model(model_folder), load_model(summary["model"])
    one = example(ChatTemplate(tokenizer), made(0))
    ids, labels = (torch.tensor(values).long()[None] for values in (one.ids, one.labels))
    with torch.no_grad():
        assert sparse_loss(after, ids, labels) < sparse_loss(before, ids, labels) - 0.5


def test_lora_saves_the_adapter_and_the_merged_model(config, tmp_path, model_folder):
    from peft import PeftModel

    from cm2.train.embedded import load_model

    config.lora = 4
    summary = train_sft(config)
    merged, _ = load_model(summary["model"])
    adapted = PeftModel.from_pretrained(load_model(model_folder)[0], tmp_path / "run/adapter")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, load_model(model_folder)[0](ids).logits, atol=1e-2)
    assert 0 < summary["trained_parameters"] < summary["parameters"]


def test_a_checkpoint_that_finds_no_room_costs_only_itself(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keeping.Every, "due", lambda every: True)
    save = Trainer._save_optimizer_and_scheduler

    def full(self, folder):
        if self.state.global_step in (2, 4):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(self, folder)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    assert train_sft(config)["steps"] == 6
    told = " ".join(capsys.readouterr().err.split())
    assert "checkpoint of step 2 could not be written" in told and "checkpoint of step 3 is kept" in told


def test_a_loss_that_is_no_number_stops_the_run_and_says_so(config, monkeypatch):
    loss = Trainer.compute_loss
    monkeypatch.setattr(Trainer, "compute_loss", lambda *a, **k: loss(*a, **k) * float("nan"))
    with pytest.raises(CM2Error, match="step 1: the loss is nan"):
        train_sft(config)


def test_dialogues_that_are_cut_left_out_or_unreadable_are_counted(config, tmp_path):
    config.epochs, config.max_tokens = 1, 900
    file = tmp_path / "mixed.jsonl"
    rows = [write_task(Task(one, []), "openai") for one in (made(0), made(2), Dialogue("mute", [Turn("hello?")]))]
    huge = made(1)
    huge.turns[0].user = "x" * 1000
    rows.append(write_task(Task(huge, []), "openai"))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    config.input = str(file)
    summary = train_sft(config)
    counts = ("dialogues", "examples", "cut", "too_long", "without_actions", "unreadable")
    assert [summary[name] for name in counts] == [4, 2, 1, 1, 1, 1]
    assert summary["problems"][0].startswith("line 5")


def test_nothing_to_train_on_is_one_clear_sentence(config):
    config.max_tokens = 50
    with pytest.raises(DataError, match=r"none of 12 dialogues can be trained.*raise --max-tokens"):
        train_sft(config)


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(config):
    config.micro_batch = 3
    with pytest.raises(ConfigError, match="does not divide"):
        train_sft(config)


def test_settings_come_from_the_file_and_flags_win(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("lr: 2e-4\nmicro-batch: 2\nepochs: 3\n")
    found = settings.load(SftConfig, str(file), {"input": "a", "output": "b", "epochs": 1.0, "seed": None})
    assert (found.lr, found.micro_batch, found.epochs, found.seed) == (2e-4, 2, 1.0, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learning_rate: 1", "unknown setting learning_rate.*known ones: .*lr"),
        ("lr: -1", r"setting lr: .*> 0.*it is -1"),
        ("lr: fast", "setting lr"),
        ("[1]", "not a mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path, text, told):
    file = tmp_path / "sft.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"sft.yaml.*: .*{told}"):
        settings.load(SftConfig, str(file), {"input": "a", "output": "b"})


def test_the_command_prints_one_json_object_and_leaves_a_usable_run(config, tmp_path, capsys):
    from cm2.cli.main import main

    flags = ["--model", config.model, "--epochs", "0.5", "--batch", "2", "--micro-batch", "2", "--lr", "1e-3", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["sft", config.input, "-o", str(tmp_path / "cli"), *flags])
    assert ended.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["steps"], summary["examples"]) == (3, 12)
    assert (tmp_path / "cli/model/config.json").exists()
