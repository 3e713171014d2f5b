"""A recipe as a configuration of verl: what it says, what it refuses, how it is started. verl need not be installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml
from verl_coffee import coffee_file

from cm2.cli.main import main
from cm2.credit import Credit
from cm2.errors import ConfigError
from cm2.judge.judging import Judging
from cm2.simulate.config import SimulatorConfig
from cm2.train import settings
from cm2.train.rl_config import RlConfig
from cm2.verl import launch
from cm2.verl.cluster import Cluster, sizes_of
from cm2.verl.config import steps_of, written
from cm2.verl.setting import setting_of
from cm2.verl.yaml_text import Noted, render

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FILES = [*sorted((RECIPES / "verl").glob("*.yaml")), RECIPES / "one-node-lora-8b-rl.yaml"]


@pytest.fixture
def tasks(tmp_path) -> str:
    """A file of four labelled tasks."""
    return coffee_file(tmp_path / "tasks.jsonl")


def recipe(**given) -> RlConfig:
    return msgspec.convert({"input": "tasks.jsonl", "output": "runs/rl", "model": "Qwen/Qwen3-8B"} | given, RlConfig)


def tree_of(cluster: Cluster | None = None, **given) -> dict:
    """The configuration as a reader of the file gets it."""
    return yaml.safe_load(written(recipe(**given), cluster or Cluster()).text)


def test_every_number_of_a_recipe_that_verl_knows_is_passed_on():
    found = tree_of(
        prompts=64, group=48, mini_batches=32, epochs=2, updates=6400, lr=3e-6, warmup=100, beta=1e-4, clip_low=0.1,
        clip_high=0.3, temperature=0.9, max_tokens=10_000, max_step_tokens=8000, max_steps=30, max_turns=4, clip=0.5,
        weight_decay=0.01, seed=7, importance="token", importance_max=2.0, micro_tokens=20_000,
    )  # fmt: skip
    actor, rollout = found["actor_rollout_ref"]["actor"], found["actor_rollout_ref"]["rollout"]
    assert (found["data"]["train_batch_size"], rollout["n"], actor["ppo_mini_batch_size"]) == (64, 48, 2)
    assert (actor["ppo_epochs"], found["trainer"]["total_training_steps"]) == (2, 100)
    assert (actor["optim"]["lr"], actor["optim"]["lr_warmup_steps"], actor["optim"]["weight_decay"]) == (3e-6, 2, 0.01)
    assert (actor["use_kl_loss"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (True, 1e-4, "low_var_kl")
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["grad_clip"]) == (0.1, 0.3, 0.5)
    assert (rollout["temperature"], rollout["max_model_len"], actor["ppo_max_token_len_per_gpu"]) == (
        0.9,
        10_000,
        20_000,
    )
    assert found["algorithm"]["rollout_correction"] == {"rollout_is": "token", "rollout_is_threshold": 2.0}
    assert (found["data"]["seed"], rollout["seed"], actor["data_loader_seed"]) == (7, 7, 7)
    setting = setting_of(found)
    assert (setting.limits.steps, setting.limits.turns, setting.seed) == (30, 4, 7)
    assert (setting.max_step_tokens, setting.max_tokens) == (8000, 10_000)


@pytest.mark.parametrize(
    ("loss", "mode", "scale"),
    [
        ("token_mean", "token-mean", None),
        ("sequence_mean", "seq-mean-token-mean", None),
        ("dr_grpo", "seq-mean-token-sum-norm", 2048),
    ],
)
def test_losses_have_their_counterparts(loss, mode, scale):
    actor = tree_of(loss=loss)["actor_rollout_ref"]["actor"]
    assert (actor["loss_agg_mode"], actor["loss_scale_factor"]) == (mode, scale)


def test_credit_judge_and_simulator_arrive_as_they_are_in_the_recipe(tmp_path):
    models = tmp_path / "models.yaml"
    models.write_text("default: {base_url: 'http://127.0.0.1:1/v1', model: m}")
    given = recipe(
        level="step", normalise="std", reading="strict", backfill=False, models=str(models),
        judging={"kind": "vote", "schedule": "step", "votes": 5}, simulator={"kind": "llm", "on_failure": "error"},
    )  # fmt: skip
    setting = setting_of(yaml.safe_load(written(given, Cluster()).text))
    assert setting.credit == Credit(level="step", normalise="std", reading="strict", backfill=False)
    assert setting.judging == Judging(kind="vote", schedule="step", votes=5)
    assert setting.simulator == SimulatorConfig(kind="llm", on_failure="error")
    assert setting.models == str(models)


def test_without_a_penalty_there_is_no_reference():
    assert tree_of(beta=0.0)["actor_rollout_ref"]["actor"]["use_kl_loss"] is False


def test_ppo_has_a_critic_and_step_rewards():
    found = tree_of(algorithm="ppo", ppo={"gamma": 0.99, "lam": 0.95, "clip": 0.3, "kl_in": "reward"}, beta=1e-3)
    assert (found["algorithm"]["adv_estimator"], found["algorithm"]["gamma"], found["algorithm"]["lam"]) == (
        "gae",
        0.99,
        0.95,
    )
    assert found["algorithm"]["use_kl_in_reward"] and found["algorithm"]["kl_ctrl"]["kl_coef"] == 1e-3
    assert found["actor_rollout_ref"]["actor"]["use_kl_loss"] is False
    assert (found["critic"]["strategy"], found["critic"]["cliprange_value"]) == ("fsdp2", 0.3)
    assert "critic" not in tree_of()


def test_a_plug_in_that_does_not_load_cannot_be_overlooked():
    found = tree_of()
    names = found["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
    assert names == {"VERL_USE_EXTERNAL_MODULES": "cm2.verl.plugin"}
    assert found["trainer"]["v1"]["trainer_mode"] == "cm2"
    assert found["algorithm"]["adv_estimator"] == "cm2"
    assert found["actor_rollout_ref"]["rollout"]["agent"]["default_agent_loop"] == "cm2"
    assert found["data"]["custom_cls"] == {"path": "pkg://cm2.verl.data", "name": "Tasks"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "embedded"}, "embedded"),
        ({"layers": 4}, "all layers"),
        ({"prompts": 64, "group": 24, "mini_batches": 12}, "do not divide 64 prompts"),
        ({"gate": "graded"}, "gate"),
        ({"probing": {"canaries": 1}}, "probes"),
        ({"algorithm": "ppo", "ppo": {"whiten": False}}, "whitens"),
        ({"generation": {"engine": "vllm", "base_url": "http://127.0.0.1:8000/v1"}}, "generation"),
        ({"judging": {"kind": "llm"}}, "language model"),
    ],
)
def test_what_verl_would_do_otherwise_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        written(recipe(**given), Cluster())


def test_a_mini_batch_that_does_not_divide_over_the_devices_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"96 rollouts .* 64 devices .*set mini_batches to 1 or 2 or 4 or 8 or 16,"):
        written(recipe(prompts=64, group=48, mini_batches=32), Cluster(gpus=64, nodes=8))
    with pytest.raises(ConfigError, match="change --gpus, prompts or group"):
        written(recipe(prompts=64, group=48), Cluster(gpus=56, nodes=7))


def test_what_is_left_out_is_told():
    notes = written(recipe(probe=4, minutes=60.0, resample=2, dtype="float32"), Cluster()).notes
    assert [note.split(" ")[0].rstrip(":") for note in notes] == ["dtype", "probe", "minutes", "resample"]


def test_held_out_tasks_are_verls_validation():
    found = tree_of(heldout="held.jsonl", evaluate_every=30, mini_batches=4, heldout_tasks=9, heldout_temperature=0.7)
    assert found["data"]["val_files"] == [str(Path("held.jsonl").resolve())]
    assert (found["data"]["val_max_samples"], found["trainer"]["test_freq"]) == (9, 8)
    assert found["actor_rollout_ref"]["rollout"]["val_kwargs"] == {"temperature": 0.7, "do_sample": True, "n": 1}
    assert tree_of()["trainer"]["test_freq"] == -1


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4), (48, 6), (64, 8)])
def test_devices_are_spread_over_their_nodes_and_a_copy_stays_in_one(gpus, nodes):
    found = tree_of(Cluster(gpus=gpus, nodes=nodes), prompts=64, group=48, max_tokens=10_000)
    trainer, rollout = found["trainer"], found["actor_rollout_ref"]["rollout"]
    assert (trainer["nnodes"], trainer["nnodes"] * trainer["n_gpus_per_node"]) == (nodes, gpus)
    assert trainer["n_gpus_per_node"] % rollout["tensor_model_parallel_size"] == 0
    assert 0.3 <= rollout["gpu_memory_utilization"] <= 0.9
    assert found["actor_rollout_ref"]["rollout"]["agent"]["num_workers"] == min(64, 8 * nodes)


def test_what_does_not_stay_on_a_device_waits_in_the_processors_memory():
    small, large = Cluster(gpus=2), Cluster(gpus=64, nodes=8)
    assert sizes_of(recipe(), small).offload
    assert not sizes_of(recipe(), large).offload
    assert any(
        "training needs about" in note
        for note in sizes_of(recipe(max_tokens=32_000), Cluster(gpu="rtx4090", gpus=1)).notes
    )
    unknown = sizes_of(recipe(model="acme/unheard-of"), small)
    assert (unknown.width, len(unknown.notes)) == (1, 1)


@pytest.mark.parametrize(
    ("given", "said"), [({"gpus": 65}, "65"), ({"gpus": 10, "nodes": 4}, "divide"), ({"gpu": "abacus"}, "abacus")]
)
def test_a_cluster_that_cannot_be_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        Cluster(**given)


def test_a_file_says_why_and_reads_as_it_was_written():
    tree = {
        "a": Noted(3e-6, "small"),
        "b": {"c": Noted([1, 2], "because " * 20)},
        "d": "line one\n  line two\n",
        "e": {},
    }
    text = render(tree)
    assert yaml.safe_load(text) == {"a": 3e-6, "b": {"c": [1, 2]}, "d": "line one\n  line two\n", "e": {}}
    assert "# small" in text and max(map(len, text.splitlines())) <= 120


def test_our_template_arrives_unchanged():
    from cm2.rollout.template import CHAT_TEMPLATE

    found = tree_of(Cluster(template="cm2"))["actor_rollout_ref"]["model"]["custom_chat_template"]
    assert found.strip() == CHAT_TEMPLATE.strip()
    assert "custom_chat_template" not in tree_of()["actor_rollout_ref"]["model"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_recipes_of_a_cluster_are_ones(file, tmp_path):
    models = tmp_path / "models.yaml"
    models.write_text("default: {base_url: 'http://127.0.0.1:1/v1', model: m}")
    given = {"input": "tasks.jsonl", "output": "run", "models": str(models)}
    found = written(settings.load(RlConfig, str(file), given), Cluster(gpus=48, nodes=6))
    assert setting_of(yaml.safe_load(found.text)).judging.kind == "llm"
    assert not found.notes


def test_the_two_files_of_the_published_run_differ_where_the_engines_count_differently():
    given = {"input": "tasks.jsonl", "output": "run"}
    ours, verls = (
        msgspec.to_builtins(settings.load(RlConfig, str(RECIPES / name), given))
        for name in ("paper-8b-rl.yaml", "verl/paper-8b.yaml")
    )
    assert {name for name in ours if ours[name] != verls[name]} <= {"mini_batches", "updates", "micro_tokens", "models"}
    batches = [steps_of(msgspec.convert(one, RlConfig)) for one in (ours, verls)]
    assert batches == [1000, 1000]


def test_scripts_name_the_plug_in_and_are_scripts(tmp_path):
    file = tmp_path / "a run" / "verl.yaml"
    for text in (launch.ray_job(file, ["a.b=1"]), launch.slurm(file, ["a.b=1"], Cluster(gpus=16, nodes=2))):
        assert "VERL_USE_EXTERNAL_MODULES" in text and "a.b=1" in text and f"'{file.parent}'" in text
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)
    assert launch.shown(file, []).startswith("VERL_USE_EXTERNAL_MODULES=cm2.verl.plugin ")


@pytest.fixture
def command(capsys, monkeypatch):
    """Run `cm2 rl` where verl is not installed; gives exit code, standard output and standard error."""
    monkeypatch.setattr("cm2.verl.check.installed", lambda: False)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["rl", *words])
        found = capsys.readouterr()
        return stop.value.code, found.out, found.err

    return run


def flags(tasks: str, run: Path, *more: str) -> list[str]:
    sizes = ["--prompts", "2", "--group", "4", "--updates", "10"]
    return [tasks, "-o", str(run), "--engine", "verl", "--model", "Qwen/Qwen3-1.7B", *sizes, *more]


@pytest.mark.parametrize("kind", ["print", "ray", "slurm"])
def test_the_command_writes_a_run_and_says_how_to_start_it(command, tasks, tmp_path, kind):
    code, out, err = command(*flags(tasks, tmp_path / "run", "--gpus", "4", "--launch", kind, "--json"))
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["gpus"], summary["steps"], summary["tasks"], summary["checked"]) == (4, 10, 4, False)
    assert yaml.safe_load(Path(summary["config"]).read_text())["trainer"]["n_gpus_per_node"] == 4
    assert "python -m verl.trainer.main_ppo" in summary["command"]
    assert (summary["script"] is None) == (kind == "print")
    assert [line["outcome"] for line in summary["check"]] == ["not checked", "good"]


def test_a_person_is_told_the_command_and_that_nothing_was_checked(command, tasks, tmp_path):
    code, out, _ = command(*flags(tasks, tmp_path / "run"))
    said = " ".join(out.split())
    assert code == 0 and "not checked by verl" in said and "cm2[verl]" in said and "command: VERL_USE" in said


def test_a_start_without_verl_says_what_to_install(command, tasks, tmp_path):
    code, _, err = command(*flags(tasks, tmp_path / "run", "--launch", "run"))
    assert code == 2 and "pip install 'cm2[verl]'" in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_a_folder_with_checkpoints_of_another_run_is_kept(command, tasks, tmp_path):
    run = tmp_path / "run"
    assert command(*flags(tasks, run))[0] == 0
    (run / "checkpoints").mkdir()
    assert command(*flags(tasks, run))[0] == 0  # the same again
    before = (run / "verl.yaml").read_text()
    code, _, err = command(*flags(tasks, run, "--lr", "1e-3"))
    assert code == 2 and "holds another run" in err
    assert (run / "verl.yaml").read_text() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "4"], "read by the engine verl only"),
        (["--engine", "abacus"], "no engine"),
        (["--engine", "verl", "--launch", "hope"], "no way to launch"),
        (["--engine", "verl", "--verl", "nonsense"], "no KEY=VALUE"),
    ],
)
def test_wrong_use_is_told(command, tasks, tmp_path, words, said):
    code, out, err = command(tasks, "-o", str(tmp_path / "run"), *words)
    assert code == 2 and said in " ".join(err.split()) and not out


def test_too_few_tasks_are_told_before_anything_is_written(command, tasks, tmp_path):
    code, _, err = command(*flags(tasks, tmp_path / "run", "--prompts", "8"))
    assert code == 2 and "4 tasks are fewer than the 8" in err
    assert not (tmp_path / "run").exists()
