"""The whole way: verl's own worker plays groups, its queue carries them, and the trainer's advantages are ours.

What is real: verl's worker code (`_run_prompt`, post-processing), its padding of batches and its trainer's step around
ours; in the slow half Ray and TransferQueue too. What is not: the engine that samples, and what needs a GPU.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cm2.verl.check import installed

if not installed():
    pytest.skip("verl is not installed here (make test-verl makes its environment)", allow_module_level=True)

import torch
from verl_coffee import coffee_file
from verl_stage import Engine, Queue, run_of, tokenizer

from cm2.rollout.trace import read_rollouts
from cm2.train.roll import rows_of
from cm2.verl.data import Tasks
from cm2.verl.setting import setting_of

SCRIPTS = ["all of it", "no look-up", "says it only", "wrong hours"]
WITH_A_FAILURE = ["all of it", "broken", "says it only", "wrong hours"]


@pytest.fixture(scope="module")
def real():
    """TransferQueue on a local Ray, with one storage unit: each asks for a processor and a process of its own.

    Ray is told of 16 processors, because verl's own eight units would wait for theirs without a word.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    import transfer_queue as tq
    from omegaconf import OmegaConf

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    yield tq
    tq.close()
    ray.shutdown()


@pytest.fixture(params=["one process", pytest.param("ray", marks=pytest.mark.slow)])
def queue(request, monkeypatch):
    """verl's queue, or a stand-in of one process in every module that speaks with it."""
    if request.param == "ray":
        found = request.getfixturevalue("real")
        yield found
        if keys := list(found.kv_list("train").get("train", {})):
            found.kv_clear(keys=keys, partition_id="train")
        return
    from verl.trainer.ppo import padding_utils
    from verl.trainer.ppo.v1 import agent_loop_tq, trainer_base

    from cm2.verl import trainer

    made = Queue()
    for module in (padding_utils, agent_loop_tq, trainer_base, trainer):
        monkeypatch.setattr(module, "tq", made)
    yield made


@pytest.fixture(scope="module")
def bytes_():
    return tokenizer()


@pytest.fixture
def tasks(tmp_path) -> str:
    return coffee_file(tmp_path / "tasks.jsonl")


def worker_of(config, bytes_, scripts):
    """verl's worker as it is, without the actor around it and with our engine in it."""
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    worker = kind.__new__(kind)
    worker.config, worker.llm_client, worker.tokenizer, worker.processor = config, Engine(bytes_, scripts), bytes_, None
    worker.reward_loop_worker_handles, worker.distillation_enabled, worker.hf_model_type = None, False, None
    worker.dataset_cls, worker.tools, worker.mm_processor_kwargs = Tasks, [], {}
    worker.rollout_config = config.actor_rollout_ref.rollout
    return worker


def played(queue, config, bytes_, tasks, groups: dict[str, list[str]]):
    """Play groups (uid: scripts) through verl's worker; the batch as verl's replay buffer would hand it over."""
    from transfer_queue import KVBatchMeta

    data = Tasks(tasks, config=config.data)
    params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True}
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": False}
    for number, (uid, scripts) in enumerate(groups.items()):
        row = data[number] | {"uid": uid, "global_steps": 3}
        asyncio.run(worker_of(config, bytes_, scripts)._run_prompt(row, params, trajectory))
    tags = queue.kv_list("train")["train"]
    assert {tags[uid]["status"] for uid in groups} == {"finished"}
    keys = [key for key in tags if key not in groups]
    return KVBatchMeta(partition_id="train", keys=keys, tags=[tags[key] for key in keys])


def stepped(queue, config, batch, multiple: int = 1):
    """What verl's trainer does between playing and updating, as far as it concerns us; the batch and its metrics."""
    from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size

    from cm2.verl.plugin import own
    from cm2.verl.trainer import ChecklistTrainer

    own()
    trainer = ChecklistTrainer.__new__(ChecklistTrainer)
    trainer.config, trainer.setting = config, setting_of(config)
    batch = upsample_batch_to_divisible_size(batch, multiple, 0)
    data = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["rollout_log_probs"])
    data["old_log_probs"] = data.pop("rollout_log_probs")
    queue.kv_batch_put(keys=batch.keys, partition_id="train", fields=data)
    metrics: dict = {}
    trainer._compute_advantage(batch, metrics)
    return batch, metrics


def rows_in(queue, batch, *names: str) -> dict[str, dict[str, torch.Tensor]]:
    data = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=list(names))
    return {key: {name: data[name][i] for name in names} for i, key in enumerate(batch.keys)}


def local(config) -> dict[tuple[str, int], object]:
    """The rows that the local engine would train on, by group and member, from the rollouts that were kept."""
    (file,) = Path(config.cm2.rollouts).glob("*.jsonl")
    groups: dict[str, list] = {}
    for one in sorted(read_rollouts(str(file)), key=lambda one: one.member):
        groups.setdefault(one.group, []).append(one)
    found = {}
    for uid, group in groups.items():
        rows, _ = rows_of(group, setting_of(config).credit)
        found |= {(uid, one.member): row for one, row in zip(group, rows, strict=True)}
    return found


LEVELS = {
    "trajectory": {"level": "trajectory"},
    "trajectory, std": {"level": "trajectory", "normalise": "std"},
    "turn": {"level": "turn"},
    "turn, to go": {"level": "turn", "turn_credit": "to_go", "turn_baseline": "survivors"},
    "step": {"level": "step"},
    "step, importance": {"level": "step", "importance": "token"},
    "blend": {"level": "blend"},
}


@pytest.mark.parametrize("given", LEVELS.values(), ids=LEVELS.keys())
def test_advantages_in_the_queue_are_the_local_engines(queue, bytes_, tasks, tmp_path, given):
    config = run_of(tmp_path, tasks, **given)
    groups = {"uida": SCRIPTS, "uidb": WITH_A_FAILURE}
    batch = played(queue, config, bytes_, tasks, groups)
    assert len(batch.keys) == 7 and "uidb_1_0" not in batch.keys  # the failed one is nowhere
    batch, metrics = stepped(queue, config, batch, multiple=4)
    assert len(batch.keys) == 8  # verl has filled the batch up
    expected = local(config)
    found = rows_in(queue, batch, "advantages", "returns", "response_mask", "loss_mask", "responses", "rm_scores")
    for key, row in found.items():
        uid, member, _ = key.split("_")
        if uid.startswith("pad"):
            assert not row["response_mask"].any() and not row["advantages"].any()
            continue
        ours = expected[uid, int(member)]
        assert row["responses"].tolist() == ours.completion
        assert row["response_mask"].tolist() == row["loss_mask"].tolist() == ours.mask
        torch.testing.assert_close(row["advantages"], torch.tensor(ours.advantages), rtol=0, atol=1e-7)
        torch.testing.assert_close(row["returns"], row["advantages"])
        assert float(row["rm_scores"].sum()) == pytest.approx(ours.reward)
    assert any(row["advantages"].any() for row in found.values())
    assert (metrics["cm2/rollouts"], metrics["cm2/failures"]) == (8, 1)


def test_a_failure_that_comes_as_a_row_loses_its_masks(queue, bytes_, tasks, tmp_path, monkeypatch):
    """A session of ours is absent when it fails; whatever brings a failed record all the same, it is not trained."""
    from cm2.verl import trainer
    from cm2.verl.record import decode

    config = run_of(tmp_path, tasks)
    batch = played(queue, config, bytes_, tasks, {"uidc": SCRIPTS})
    lost = batch.keys.index("uidc_2_0")
    rows = iter(range(len(batch.keys)))

    def failed(text: str):
        record = decode(text)
        if next(rows) == lost:
            from cm2.rollout.trace import Failure

            record.rollout.failure = Failure("judge", "gone")
        return record

    monkeypatch.setattr(trainer, "decode", failed)
    batch, metrics = stepped(queue, config, batch)
    found = rows_in(queue, batch, "advantages", "response_mask", "loss_mask")
    assert not any(found["uidc_2_0"][name].any() for name in ("advantages", "response_mask", "loss_mask"))
    kept = [row for key, row in found.items() if key != "uidc_2_0"]
    assert all(row["response_mask"].any() and row["loss_mask"].any() for row in kept)
    firsts = sorted(float(row["advantages"][row["response_mask"].bool()][0]) for row in kept)
    rewards = [1.0, 0.75]  # all of it; wrong hours; and the one without a look-up
    assert sum(firsts) == pytest.approx(0.0, abs=1e-6) and firsts[-1] - firsts[-2] == pytest.approx(
        rewards[0] - rewards[1]
    )
    assert metrics["cm2/failures"] == 1


def test_a_critic_is_paid_step_by_step(queue, bytes_, tasks, tmp_path):
    """With γ = λ = 1 and values of 0 verl's returns are the rewards to go of the steps."""
    config = run_of(tmp_path, tasks, algorithm="ppo")
    batch = played(queue, config, bytes_, tasks, {"uidd": SCRIPTS})
    masks = rows_in(queue, batch, "response_mask")
    zeros = [torch.zeros(len(masks[key]["response_mask"])) for key in batch.keys]
    from tensordict import TensorDict

    values = TensorDict({"values": torch.nested.as_nested_tensor(zeros, layout=torch.jagged)}, batch_size=len(zeros))
    queue.kv_batch_put(keys=batch.keys, partition_id="train", fields=values)
    batch, metrics = stepped(queue, config, batch)
    for row in rows_in(queue, batch, "returns", "rm_scores", "response_mask").values():
        to_go = row["rm_scores"].flip(0).cumsum(0).flip(0)
        mask = row["response_mask"].bool()
        torch.testing.assert_close(row["returns"][mask], to_go[mask])
    assert metrics["cm2/reward/mean"] > 0
