"""cm2 rl with a vLLM server: fresh weights before every batch, and a run that goes on when the server is back."""

import json

import msgspec
import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from cm2.errors import CM2Error, ConfigError  # noqa: E402
from cm2.formats import write_task  # noqa: E402
from cm2.rollout.generation import Generation  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train.drivers import allowed, sharded  # noqa: E402
from cm2.train.rl import RlConfig, train_rl  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from servers.tiny_vllm import TinyVllm  # noqa: E402
from train.test_rl import SHAPE, made, numbers  # noqa: E402


@pytest.fixture
def policy(tmp_path):
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(write_task(made(i), "openai")) + "\n" for i in range(8)))
    return model, tokenizer


def config(tmp_path, url, **changes):
    generation = Generation(engine="vllm", base_url=url, dtype="float32", retries=1, backoff=0.0, timeout=60.0)
    usual = {"prompts": 2, "group": 4, "updates": 3, "max_step_tokens": 6, "max_tokens": 1500, "lr": 1e-2, "seed": 3}
    places = {"input": str(tmp_path / "tasks.jsonl"), "output": str(tmp_path / "run"), "model": str(tmp_path / "start")}
    return RlConfig(**(places | usual | {"generation": generation} | changes))


def test_a_run_is_decoded_by_a_server_that_has_the_weights_of_every_update(policy, tmp_path):
    """What the server read and sampled is what is trained on."""
    with TinyVllm(*policy) as server:
        summary = train_rl(config(tmp_path, server.url))
        assert server.loads == [str(tmp_path / "run" / "weights" / "current")] * 3
    assert summary["updates"] == 3 and summary["rollouts"] == 24 and summary["failures"] == 0
    assert not (tmp_path / "run" / "weights").exists()
    assert any(one["grad_norm"] > 0 for one in numbers(tmp_path / "run"))
    stored = list(read_rollouts(str(tmp_path / "run" / "rollouts" / "step-00001.jsonl")))
    assert {tuple(one.segments[0].prompt) for one in stored} <= set(map(tuple, server.prompts))
    assert all(len(one.segments[0].logprobs) == len(one.segments[0].tokens) for one in stored)


def test_a_run_whose_server_is_lost_stops_and_goes_on_later(policy, tmp_path):
    with TinyVllm(*policy) as server:
        asked = config(tmp_path, server.url, save_every=1e-3)
        server.before_answer = lambda one: one.stop() if len(one.prompts) == 12 else None
        with pytest.raises(CM2Error, match=r"run the same command again|goes on from the last"):
            train_rl(asked)
    assert not (tmp_path / "run" / "model").exists()
    assert all(one["failures"] < one["rollouts"] for one in numbers(tmp_path / "run"))
    with TinyVllm(*policy) as server:
        moved = msgspec.structs.replace(asked.generation, base_url=server.url)  # a setting that may change
        summary = train_rl(msgspec.structs.replace(asked, generation=moved))
    assert summary["updates"] == 3


@pytest.mark.parametrize(
    ("environment", "how"),
    [
        ({}, ""),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, ""),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "DeepSpeed ZeRO 3"),
    ],
)
def test_sharded_weights_need_a_server(environment, how, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sharded() == how
    local = config(tmp_path, "http://127.0.0.1:1/v1", generation=Generation())
    served = config(tmp_path, "http://127.0.0.1:1/v1")
    allowed(served, how)
    if not how:
        allowed(local, how)
        return
    with pytest.raises(ConfigError, match=f"sharded by {how}.*engine: vllm"):
        allowed(local, how)
    with pytest.raises(ConfigError, match="lora"):
        allowed(msgspec.structs.replace(served, lora=8), how)
    with pytest.raises(ConfigError, match=f"sharded by {how}"):
        train_rl(local)
