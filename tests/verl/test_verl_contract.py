"""The plug-in against the installed verl, without Ray or a GPU: agent loop, output, data, loss, configuration."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cm2.verl.check import installed

if not installed():
    pytest.skip("verl is not installed here (make test-verl makes its environment)", allow_module_level=True)

import hydra
import torch
from verl.experimental.agent_loop.agent_loop import (
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl_coffee import coffee_file
from verl_stage import SCRIPTS, Engine, model_folder, run_of, tokenizer

import cm2.verl.plugin
from cm2.errors import ConfigError
from cm2.rollout.trace import read_rollouts
from cm2.train.roll import rows_of, score_of
from cm2.verl import check
from cm2.verl.data import Tasks, task_of
from cm2.verl.record import decode
from cm2.verl.setting import setting_of, workshop


@pytest.fixture
def tasks(tmp_path) -> str:
    return coffee_file(tmp_path / "tasks.jsonl")


@pytest.fixture(scope="module")
def bytes_():
    return tokenizer()


def loop_of(config, bytes_, engine):
    """An agent loop as verl makes one for every rollout."""
    return hydra.utils.instantiate(
        config=_agent_loop_registry["cm2"],
        trainer_config=DictConfigWrap(config=config),
        server_manager=engine,
        tokenizer=bytes_,
        processor=None,
        hf_model_type=None,
        dataset_cls=Tasks,
        data_config=DictConfigWrap(config.data),
        tools=ToolListWrap([]),
    )


def play(config, bytes_, tasks, scripts):
    """The outputs of a group that plays these scripts at once, and the engine."""
    engine = Engine(bytes_, scripts)
    row = Tasks(tasks, config=config.data)[0] | {"uid": "u", "global_steps": 3}
    params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

    async def all_of_them():
        loops = [loop_of(config, bytes_, engine) for _ in scripts]
        return await asyncio.gather(*(loop.run(dict(params), **row, session_id=i) for i, loop in enumerate(loops)))

    return asyncio.run(all_of_them()), engine


def test_an_output_is_the_sessions_ids_with_a_mask_on_what_was_sampled(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks)
    (output,), engine = play(config, bytes_, tasks, ["all of it"])
    mask = torch.tensor(output.response_mask).bool()
    ids = torch.tensor(output.response_ids)
    assert bytes_.decode(ids[mask]) == "".join(SCRIPTS["all of it"])
    shown = bytes_.decode(ids[~mask])
    assert "mocha-7835" in shown and "When do you open on Monday?" in shown and shown.count("assistant") == 3
    assert (mask.sum(), len(mask)) == (sum(map(len, (bytes_(s)["input_ids"] for s in SCRIPTS["all of it"]))), len(ids))
    # token in, token out: what the engine read last is all of the output but its last action
    last = len(bytes_(SCRIPTS["all of it"][-1])["input_ids"])
    assert engine.asked[-1]["ids"] == (output.prompt_ids + output.response_ids)[:-last]
    assert len({asked["request"] for asked in engine.asked}) == 1
    logs = torch.tensor(output.response_logprobs)
    assert (logs[mask] < 0).all() and not logs[~mask].any()
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (3, 3)


def test_the_engine_is_told_where_an_action_ends(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks, max_step_tokens=300, max_tokens=6000)
    _, engine = play(config, bytes_, tasks, ["says it only"])
    params = engine.asked[0]["params"]
    assert params["stop_token_ids"] == [bytes_.convert_tokens_to_ids("<|im_end|>")]
    assert (params["max_tokens"], params["logprobs"], params["temperature"]) == (300, True, 1.0)


def test_the_user_goes_on_only_where_the_strict_items_hold(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks)
    (through, stopped), _ = play(config, bytes_, tasks, ["all of it", "says it only"])
    assert "When do you open" in bytes_.decode(through.response_ids)
    assert "When do you open" not in bytes_.decode(stopped.response_ids)
    assert (through.reward_score, stopped.reward_score) == (1.0, pytest.approx(0.125))


def test_step_rewards_reach_verl_token_by_token(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks)
    (output,), _ = play(config, bytes_, tasks, ["wrong hours"])
    fields = output.as_dict()
    assert "token_rewards" not in fields and fields["rm_scores"].shape == fields["response_mask"].shape
    places = fields["rm_scores"].nonzero()[:, 0].tolist()
    mask = fields["response_mask"]
    assert all(mask[at] == 1 and (at + 1 == len(mask) or mask[at + 1] == 0) for at in places)  # the step's last token
    # the first look-up 0.25, the order 0.5, what is said 0.25; of the second turn only what must not be done, 0.5
    assert fields["rm_scores"][places].tolist() == pytest.approx([0.125, 0.25, 0.125, 0.25])
    assert float(fields["rm_scores"].sum()) == pytest.approx(output.reward_score)


def test_a_rollout_that_failed_is_no_output_and_its_siblings_go_on(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks)
    found, _ = play(config, bytes_, tasks, ["all of it", "broken", "says it only"])
    assert found[1] == [] and found[0].reward_score == 1.0
    kept = {one.member: one for one in read_rollouts_of(config)}
    assert kept[1].failure.owner == "provider" and "the engine is gone" in kept[1].failure.message


def read_rollouts_of(config):
    (file,) = Path(config.cm2.rollouts).glob("*.jsonl")
    return list(read_rollouts(str(file)))


def test_a_judge_that_fails_costs_the_rollout_and_is_no_zero(tmp_path, tasks, bytes_, monkeypatch):
    config = run_of(tmp_path, tasks)
    judge = workshop(setting_of(config)).judge

    def fails(dialogue, turn, checklist, since=0):
        raise RuntimeError("no answer")

    monkeypatch.setattr(judge, "judge", fails, raising=False)
    assert play(config, bytes_, tasks, ["all of it"])[0] == [[]]


def test_rollouts_of_a_prompt_overlap(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks)
    _, engine = play(config, bytes_, tasks, ["all of it"] * 4)
    assert engine.most == 4


def test_siblings_share_a_world_and_later_steps_do_not(tmp_path, tasks):
    config = run_of(tmp_path, tasks)
    shop, one = workshop(setting_of(config)), task_of(Tasks(tasks).rows[0])
    first = shop.world("a", one, 3)
    assert shop.world("a", one, 3) is first and shop.world("b", one, 3) is not first
    del first
    assert "a" not in shop._worlds


def test_a_prompt_without_room_still_is_a_row_without_loss(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks, max_tokens=100, max_step_tokens=50)
    (output,), engine = play(config, bytes_, tasks, ["all of it"])
    assert (output.response_mask, output.reward_score, len(engine.asked)) == ([0], 0.0, 0)
    assert len(output.prompt_ids) + len(output.response_ids) <= 100
    assert output.as_dict()["rm_scores"].tolist() == [0.0]


def test_a_record_gives_the_reward_that_the_session_was_paid(tmp_path, tasks, bytes_):
    config = run_of(tmp_path, tasks, level="step")
    outputs, _ = play(config, bytes_, tasks, ["all of it", "no look-up", "wrong hours"])
    for output in outputs:
        record = decode(output.extra_fields["cm2"])
        assert score_of(record.rollout, setting_of(config).credit).reward == output.reward_score
        assert record.length == len(output.response_ids)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum-norm"])
def test_verls_loss_has_the_gradient_of_ours_on_sampled_tokens(tmp_path, tasks, bytes_, mode):
    """−A/N on every sampled token (N: their number; for Dr. GRPO rows × constant), nothing anywhere else."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    config = run_of(tmp_path, tasks, level="step")
    outputs, _ = play(config, bytes_, tasks, ["all of it", "no look-up", "wrong hours", "says it only"])
    rollouts = sorted(read_rollouts_of(config), key=lambda one: one.member)
    rows, _ = rows_of(rollouts, setting_of(config).credit)
    width = max(len(output.response_ids) for output in outputs)
    mask, advantages = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
    for i, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        assert row.mask == output.response_mask and row.completion == output.response_ids
        mask[i, : len(row.mask)] = torch.tensor(output.response_mask)
        advantages[i, : len(row.mask)] = torch.tensor(row.advantages)
    logs = torch.randn(len(rows), width, requires_grad=True)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    scale = {"dp_size": 1, "batch_num_tokens": mask.sum(), "global_batch_size": len(rows), "loss_scale_factor": 6000}
    actor.global_batch_info.update(scale)
    loss, _ = get_policy_loss_fn("vanilla")(
        old_log_prob=logs.detach(), log_prob=logs, advantages=advantages, response_mask=mask,
        loss_agg_mode=mode, config=actor, rollout_is_weights=None,
    )  # fmt: skip
    loss.backward()
    divisor = mask.sum() if mode == "token-mean" else len(rows) * 6000
    torch.testing.assert_close(logs.grad, -(advantages * mask) / divisor)
    assert logs.grad.abs().max() > 0


def test_rows_of_the_data_are_tasks(tmp_path, tasks):
    config = run_of(tmp_path, tasks)
    from verl.utils.dataset.rl_dataset import collate_fn, get_dataset_class

    kind = get_dataset_class(config.data)
    found = kind(data_files=config.data.train_files, tokenizer=None, processor=None, config=config.data, max_samples=3)
    assert len(found) == 3 and found[1]["reward_model"]["ground_truth"] == "coffee-1"
    batch = collate_fn([found[0], found[1]])
    assert batch["agent_name"].tolist() == ["cm2", "cm2"] and batch["raw_prompt"][0][-1]["role"] == "user"


CASES = {
    "trajectory": {},
    "step, Dr. GRPO": {"level": "step", "loss": "dr_grpo", "mini_batches": 2, "importance": "token"},
    "turn, sequence": {"level": "turn", "loss": "sequence_mean", "importance": "sequence", "kl_gradient": "unbiased"},
    "ppo": {"algorithm": "ppo", "ppo": {"lam": 0.95}},
    "ppo, KL in the reward": {"algorithm": "ppo", "ppo": {"kl_in": "reward"}},
    "adapters": {"lora": 32},
    "resampled": {"resample": 2},
    "without KL": {"beta": 0.0},
}


@pytest.mark.parametrize("given", CASES.values(), ids=CASES.keys())
def test_verl_takes_what_is_written(tmp_path, tasks, given):
    config = run_of(tmp_path, tasks, model=model_folder(tmp_path / "model"), **given)
    said = check.validate(config)
    assert "actor" in said and "model" in said and ("critic" in said) == (given.get("algorithm") == "ppo")
    assert config.algorithm.adv_estimator == ("gae" if given.get("algorithm") == "ppo" else "cm2")


def test_the_report_says_what_is_wrong(tmp_path, tasks):
    run_of(tmp_path, tasks)
    file = str(tmp_path / "run" / "verl.yaml")
    assert check.check(file).good
    bad = check.check(file, ["actor_rollout_ref.actor.loss_agg_mode=hope"])
    assert not bad.good
    assert [line.what for line in bad.lines if line.outcome == "bad"] == ["verl's validation"]
    assert "loss_agg_mode" in next(line.said for line in bad.lines if line.outcome == "bad")
    few = check.check(file, ["data.train_batch_size=64"])
    assert any("4 tasks are fewer than the 64" in line.said for line in few.lines)
    wrong = check.check(file, ["cm2.credit.level=month"])
    assert any(line.what == "section cm2" and line.outcome == "bad" for line in wrong.lines)


def test_our_estimator_without_our_trainer_is_an_error(monkeypatch):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    monkeypatch.setattr(cm2.verl.plugin, "_owned", [])
    with pytest.raises(ConfigError, match="trainer_mode=cm2"):
        get_adv_estimator_fn("cm2")(token_level_rewards=torch.zeros(1, 2), response_mask=torch.ones(1, 2), index=["u"])


def test_a_plug_in_that_does_not_load_ends_every_process(tmp_path):
    """What the entry point keeps to itself, the variable that a written run sets does not."""
    script = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls; get_trainer_cls('cm2')"
    broken = {"VERL_USE_EXTERNAL_MODULES": "cm2.verl.plugin_that_is_absent"}
    done = subprocess.run([sys.executable, "-c", script], env=environment(broken), capture_output=True, text=True)
    assert done.returncode != 0 and "plugin_that_is_absent" in done.stderr


@pytest.mark.slow
def test_without_the_plug_in_the_trainer_is_unknown_and_with_it_known(tmp_path):
    script = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('cm2').__name__)"
    none = environment({"VERL_USE_EXTERNAL_PLUGINS": "none", "VERL_USE_EXTERNAL_MODULES": ""})
    done = subprocess.run([sys.executable, "-c", script], env=none, capture_output=True, text=True)
    assert done.returncode != 0 and "Unknown trainer 'cm2'" in done.stderr
    some = environment({"VERL_USE_EXTERNAL_MODULES": "cm2.verl.plugin"})
    done = subprocess.run([sys.executable, "-c", script], env=some, capture_output=True, text=True)
    assert "ChecklistTrainer" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_entry_point_alone_is_enough(tmp_path):
    """As an installed package declares it; the module is loaded while verl itself is still being imported."""
    folder = tmp_path / "probe-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[verl.plugins]\ncm2 = cm2.verl.plugin\n")
    script = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('cm2').__name__)"
    path = os.pathsep.join([str(tmp_path), *(part for part in sys.path if part)])
    alone = environment({"PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": ""})
    done = subprocess.run([sys.executable, "-c", script], env=alone, capture_output=True, text=True)
    assert "ChecklistTrainer" in done.stdout, done.stderr


def environment(more: dict[str, str]) -> dict[str, str]:
    return os.environ | more
