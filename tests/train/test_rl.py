"""cm2 rl: the same numbers after a kill, a model that can be used, and clear words for wrong use."""

import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.check import Reply  # noqa: E402
from cm2.checklist import Checklist, Task  # noqa: E402
from cm2.cli.main import main  # noqa: E402
from cm2.errors import CM2Error, ConfigError, DataError  # noqa: E402
from cm2.formats import write_task  # noqa: E402
from cm2.judge.judging import Judging  # noqa: E402
from cm2.judge.probes import Probing  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train.embedded import load_model  # noqa: E402
from cm2.train.rl import Batch, RlConfig, train_rl  # noqa: E402
from rollout.coffee_task import item, task  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from servers.scripted import Scripted, faulty, good, says  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def made(i, labelled=True):
    """A one-turn task that a model of random bytes can sometimes do: its reply holds an "a" (or a "b")."""
    one = task().dialogue
    one.id, one.turns = f"coffee-{i}", one.turns[:1]
    one.turns[0].user = f"Say something, number {i}."
    checks = [Reply(pattern="[a-m]"), Reply(pattern="[A-Z]")]
    items = [item(f"C{n}", "assistant.content.user_visible_reply", 0.5, check) for n, check in enumerate(checks)]
    return Task(one, [Checklist(0, items)] if labelled else [])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "tasks.jsonl"
    file.write_text("".join(json.dumps(write_task(made(i), "openai")) + "\n" for i in range(8)))
    return str(file)


@pytest.fixture
def config(tmp_path, model_folder, data):
    sizes = {"prompts": 2, "group": 4, "updates": 4, "max_step_tokens": 6, "max_tokens": 1500}
    return RlConfig(input=data, output=str(tmp_path / "run"), model=model_folder, lr=1e-2, seed=3, **sizes)


def changed(config, **changes):
    import msgspec

    return msgspec.structs.replace(config, **changes)


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_a_run_leaves_a_model_metrics_and_every_rollout(config, tmp_path):
    summary = train_rl(config)
    run = tmp_path / "run"
    assert summary["updates"] == 4 and summary["rollouts"] == 32 and summary["failures"] == 0
    assert [one["step"] for one in numbers(run)] == [1, 2, 3, 4]
    assert all({"reward", "kl", "entropy", "grad_norm", "tokens_generated"} <= one.keys() for one in numbers(run))
    assert any(one["grad_norm"] > 0 for one in numbers(run))
    assert sorted(file.name for file in (run / "rollouts").iterdir()) == [f"step-0000{n}.jsonl" for n in (1, 2, 3, 4)]
    stored = list(read_rollouts(str(run / "rollouts" / "step-00001.jsonl")))
    assert len(stored) == 8 and all(one.segments and "reward" in one.score for one in stored)
    assert list((run / "tb").iterdir())
    load_model(run / "model")
    again = train_rl(config)
    assert again["finished_before"] and again["model"] == summary["model"]


@pytest.mark.parametrize("changes", [{}, {"lora": 2, "lr": 0.1}, {"mini_batches": 2, "epochs": 2}])
def test_a_killed_run_resumes_to_the_same_numbers(config, tmp_path, changes, monkeypatch):
    config = changed(config, updates=12 if "epochs" in changes else 4, **changes)
    straight = changed(config, output=str(tmp_path / "straight"))
    train_rl(straight)
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
    assert not (tmp_path / "run" / "model").exists()
    resumed = train_rl(config)
    assert 0 < resumed["resumed_from"] < config.updates
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    mine, theirs = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_learning_raises_the_reward(config, tmp_path):
    """A model of random bytes soon says capital letters when that is what pays."""
    summary = train_rl(changed(config, updates=25, group=8, beta=0.0, lr=3e-2, save_every=0))
    assert summary["last_reward"] > summary["first_reward"] + 0.15


def test_time_ends_a_run_with_a_model(config, tmp_path):
    summary = train_rl(changed(config, updates=10_000, minutes=1e-6))
    assert summary["updates"] == 1 and (tmp_path / "run" / "model" / "config.json").exists()


def test_another_run_in_the_same_folder_is_refused(config):
    train_rl(changed(config, updates=1))
    with pytest.raises(ConfigError, match=r"lr was 0\.01, now 0\.02"):
        train_rl(changed(config, updates=1, lr=2e-2))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group": 1}, "setting group"),
        ({"lr": 0.0}, "setting lr"),
        ({"mini_batches": 3}, "does not divide"),
        ({"layers": 1, "lora": 2}, "exclude each other"),
        ({"layers": 9}, "the model has 2"),
        ({"level": "token"}, "setting level"),
    ],
)
def test_settings_out_of_range_are_named(config, changes, told):
    with pytest.raises(ConfigError, match=told):
        train_rl(changed(config, **changes))


def test_a_file_without_checklists_says_how_to_get_them(config, tmp_path):
    file = tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps(write_task(made(i, False), "openai")) + "\n" for i in range(3)))
    with pytest.raises(DataError, match="cm2 label"):
        train_rl(changed(config, input=str(file)))
    file.write_text(json.dumps(write_task(made(1), "openai")) + "\n")
    with pytest.raises(DataError, match="fewer than the 2"):
        train_rl(changed(config, input=str(file), output=str(tmp_path / "other")))


def test_the_command_prints_one_json_object(config, capsys):
    flags = ["--model", config.model, "--updates", "1", "--prompts", "2", "--group", "2", "--max-step-tokens", "4"]
    with pytest.raises(SystemExit) as stop:
        main(["rl", config.input, "-o", config.output, *flags, "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["updates"] == 1


def test_the_command_refuses_an_unreadable_model(config, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["rl", config.input, "-o", config.output, "--model", str(tmp_path / "nowhere")])
    assert stop.value.code == 2
    assert "does not exist" in capsys.readouterr().err


MODELS = """
default: {{base_url: "{url}", model: scripted, backoff: 0, retries: 12, price: {{input: 1, output: 1}}}}
"""


def asked(config, tmp_path, url, **probing):
    """Every item is a model's to judge: none has a check; a gold judge looks on."""
    rows = [json.loads(line) for line in Path(config.input).read_text().splitlines()]
    for row in rows:
        for one in (each for checklist in row["checklists"] for each in checklist["items"]):
            del one["check"]
    file, models = tmp_path / "open.jsonl", tmp_path / "models.yaml"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    models.write_text(MODELS.format(url=url))
    probing = Probing(gold_fraction=0.5, canaries=1, **probing)
    judge = Judging(kind="llm")
    return changed(config, input=str(file), judging=judge, models=str(models), probing=probing, gold=judge, updates=3)


def test_a_run_is_judged_by_a_model_whatever_its_server_does(config, tmp_path):
    with Scripted(good) as server:
        clean = asked(config, tmp_path, server.url)
        summary = train_rl(changed(clean, output=str(tmp_path / "clean")))
    assert summary["failures"] == 0 and summary["rollouts"] == 24
    told = numbers(tmp_path / "clean")
    assert told[-1]["llm_calls"] > 0 and told[-1]["llm_cost"] > 0
    assert all(one["gold_training"] == one["gold_reward"] and one["gold_disagree"] == 0 for one in told)
    assert all(0 <= one["canary_rate"] <= 1 for one in told if "canary_rate" in one)
    stored = list(read_rollouts(str(tmp_path / "clean" / "rollouts" / "step-00001.jsonl")))
    judges = {verdict.judge.split(" ")[0] for rollout in stored for verdict in rollout.verdicts}
    assert all(rollout.score["reward"] is not None for rollout in stored) and judges - {"checks"}
    with Scripted(faulty(0.3)) as server:  # a provider's faults cost tries, and change no number
        train_rl(changed(asked(config, tmp_path, server.url), output=str(tmp_path / "faulty")))
    same = ("reward", "strict_pass", "gold_reward", "loss", "grad_norm", "failures")
    assert [[one[name] for name in same] for one in numbers(tmp_path / "faulty")] == [
        [one[name] for name in same] for one in told
    ]


def test_a_run_whose_judge_never_answers_stops_and_goes_on_later(config, tmp_path):
    with Scripted(lambda body, tries: says("no", "down", "stop")) as server:  # prose, whatever is asked
        dead = asked(config, tmp_path, server.url)
        with pytest.raises(CM2Error, match=r"none of the 8 rollouts of an update counts"):
            train_rl(dead)
    assert not (tmp_path / "run" / "model").exists()
    with Scripted(good) as server:
        assert train_rl(asked(config, tmp_path, server.url))["updates"] == 3
