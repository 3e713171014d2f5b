"""Weights that are sharded over two processes (FSDP2, on a CPU): the numbers of one process, decoded by a server."""

import json

import msgspec
import pytest

pytest.importorskip("trl")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from cm2.formats import write_task  # noqa: E402
from cm2.rollout.generation import Generation  # noqa: E402
from cm2.train.rl import train_rl  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from servers.tiny_vllm import TinyVllm  # noqa: E402
from train.test_processes import TESTS, config, torchrun, weights  # noqa: E402
from train.test_rl import SHAPE, made, numbers  # noqa: E402

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def test_fsdp2_has_the_numbers_of_one_process_also_after_a_stop(tmp_path, monkeypatch):
    """Stopped after two steps, resumed from the checkpoint that both processes wrote, saved in full at the end."""
    policy = tiny_chat(**SHAPE)
    for one in policy:
        one.save_pretrained(tmp_path / "start")
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(write_task(made(i), "openai")) + "\n" for i in range(8)))
    with TinyVllm(*policy) as server:
        generation = Generation(engine="vllm", base_url=server.url, dtype="float32", retries=1, backoff=0.0)
        train_rl(config(tmp_path, "one", generation=generation, updates=4))
        two = config(tmp_path, "two", generation=generation, updates=4)
        many = [{"name": "stopped", "config": two, "interrupt": [1, 1]}, {"name": "resumed", "config": two}]
        (tmp_path / "scenarios.json").write_bytes(msgspec.json.encode(many))
        for name, value in FSDP2.items():
            monkeypatch.setenv(name, value)
        torchrun(str(TESTS / "train" / "process_worker.py"), str(tmp_path / "scenarios.json"))
    first, second = (json.loads((tmp_path / f"ended-{rank}.json").read_text()) for rank in range(2))
    assert first["stopped"].startswith("KeyboardInterrupt") and second["stopped"].startswith("KeyboardInterrupt")
    assert first["resumed"] == second["resumed"] and first["resumed"]["resumed_from"] == 2
    mine, theirs = numbers(tmp_path / "two"), numbers(tmp_path / "one")
    assert [line["reward"] for line in mine] == [line["reward"] for line in theirs]
    assert [line["grad_norm"] for line in mine] == pytest.approx([line["grad_norm"] for line in theirs], rel=2e-3)
    after, wanted = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert all(float((after[key] - wanted[key]).abs().max()) < 1e-3 for key in wanted)
