"""Several processes: the numbers of one, one writer, one end for all. Two processes do all of it once (`ended`)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from cm2.errors import CM2Error, ConfigError  # noqa: E402
from cm2.formats import write_task  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train.processes import Processes  # noqa: E402
from cm2.train.rl import RlConfig, train_rl  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402
from train.test_rl import SHAPE, made, numbers, weights  # noqa: E402

TESTS = Path(__file__).resolve().parents[1]
EXACT = ("step", "reward", "reward_std", "strict_pass", "rollouts", "failures", "truncated", "tokens_generated", "lr")
ALARMED = ("length", "steps", "truncated_share", "dead_groups", "groups_resampled", "groups_replaced")
"""What alarms look at, and what replaced groups are counted by; only where a run has it."""
CLOSE = ("loss", "grad_norm", "kl", "entropy")
SAME = {  # scenarios whose numbers must be those of one process
    "plain": {},
    "many_micro_batches": {"micro_tokens": 400, "prompts": 4},
    "mini_batches": {"mini_batches": 2, "epochs": 2, "updates": 8},
}
MORE = {  # likewise, not every time
    "sequence_mean": {"loss": "sequence_mean", "level": "step", "updates": 2},
    "layers": {"layers": 1, "updates": 2},
    "ppo": {"algorithm": "ppo", "updates": 2},
    "dr_grpo": {"loss": "dr_grpo", "lora": 2, "updates": 2},
    "resample": {"resample": 3, "prompts": 4, "updates": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    (folder / "tasks.jsonl").write_text("".join(json.dumps(write_task(made(i), "openai")) + "\n" for i in range(8)))
    return folder


def config(folder, name, **changes):
    sizes = {"prompts": 2, "group": 4, "updates": 3, "max_step_tokens": 6, "max_tokens": 1500, "save_every": 0.0}
    usual = {"input": str(folder / "tasks.jsonl"), "output": str(folder / name), "model": str(folder / "start")}
    return RlConfig(**(usual | {"lr": 1e-2, "seed": 3} | sizes | changes))


@pytest.fixture(scope="module")
def ended(folder):
    """How every scenario ended, in either process."""
    many = same(folder, SAME)
    stopped = config(folder, "two-stopped", updates=4)
    many += [
        {"name": "stopped", "config": stopped, "interrupt": [1, 1]},
        {"name": "resumed", "config": stopped},
        {"name": "again", "config": stopped},
        {"name": "other", "config": msgspec.structs.replace(stopped, lr=2e-2)},
        {"name": "failed", "config": config(folder, "two-failed"), "fail": [1, 1]},
        {"name": "uneven", "config": config(folder, "two-uneven", prompts=3)},
        {"name": "timed", "config": config(folder, "two-timed", updates=10_000, minutes=1e-6)},
    ]
    return done(folder, many)


@pytest.fixture(scope="module")
def ended_more(folder):
    """The same of the slower scenarios."""
    halted = {"name": "halted", "config": config(folder, "two-halted", updates=4), "interrupt": [0, 1]}
    return done(folder, [*same(folder, MORE), halted])


def same(folder, scenarios):
    return [{"name": name, "config": config(folder, f"two-{name}", **one)} for name, one in scenarios.items()]


def done(folder, scenarios):
    file = folder / "scenarios.json"
    file.write_bytes(msgspec.json.encode(scenarios))
    torchrun(str(TESTS / "train" / "process_worker.py"), str(file))
    return [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in range(2)]


@contextlib.contextmanager
def running(*command):
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    whole = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # its own processes go with it
            process.wait(60)


def torchrun(*command):
    with running(*command) as process:
        out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err[-4000:]
    return out


@pytest.mark.parametrize("name", list(SAME))
def test_two_processes_have_the_numbers_of_one(folder, ended, name):
    """Losses, gradient norms and weights: group statistics and the token mean are those of the whole update."""
    compare(folder, ended[0][name], name, SAME[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MORE))
def test_they_have_them_with_other_losses_adapters_and_a_critic(folder, ended_more, name):
    compare(folder, ended_more[0][name], name, MORE[name])


def compare(folder, ended, name, changes):
    assert isinstance(ended, dict), ended
    summary = train_rl(config(folder, f"one-{name}", **changes))
    mine, theirs = numbers(folder / f"two-{name}"), numbers(folder / f"one-{name}")
    assert [[line[key] for key in EXACT] for line in mine] == [[line[key] for key in EXACT] for line in theirs]
    for key in ALARMED:
        assert [line.get(key) for line in mine] == [line.get(key) for line in theirs], key
    assert "resample" not in changes or any(line["groups_replaced"] for line in theirs)
    assert any(line["grad_norm"] > 0 for line in theirs)
    for two, alone in zip(mine, theirs, strict=True):
        for key in CLOSE:
            if name == "many_micro_batches" and key in ("kl", "entropy"):
                continue  # means of micro-batches' means, which are other ones
            assert two[key] == pytest.approx(alone[key], rel=2e-3, abs=2e-5), (key, two["step"])
    after, wanted = weights(folder / f"two-{name}"), weights(folder / f"one-{name}")
    assert after.keys() == wanted.keys()
    moved = max(float((wanted[key] - weights_before(folder)[key]).abs().max()) for key in wanted)
    assert all(float((after[key] - wanted[key]).abs().max()) < 0.02 * moved + 1e-6 for key in wanted)
    assert ended["rollouts"] == summary["rollouts"]


def weights_before(folder):
    from safetensors.torch import load_file

    return load_file(folder / "start" / "model.safetensors")


def test_both_processes_return_one_summary_and_one_writes(folder, ended):
    for name in SAME:
        assert ended[0][name] == ended[1][name]
    stored = sorted(file.name for file in (folder / "two-plain" / "rollouts").iterdir())
    assert stored == ["step-00001.jsonl", "step-00002.jsonl", "step-00003.jsonl"]
    train_rl(config(folder, "one-plain"))
    mine, theirs = (
        [
            (rollout.task, rollout.group, rollout.member, rollout.seed, [one.tokens for one in rollout.segments])
            for name in stored
            for rollout in read_rollouts(str(folder / run / "rollouts" / name))
        ]
        for run in ("two-plain", "one-plain")
    )
    assert mine == theirs


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_which_goes_on_later(folder, tmp_path):
    """The others end with a sentence instead of waiting, and the command resumes to the same numbers."""
    settings = tmp_path / "settings.yaml"
    one = msgspec.to_builtins(config(folder, "killed", updates=12, save_every=1e-3))
    settings.write_bytes(msgspec.yaml.encode({key: value for key, value in one.items() if value is not None}))
    command = ["-m", "cm2", "rl", one["input"], "-o", one["output"], "--config", str(settings), "--json"]
    metrics = folder / "killed" / "metrics.jsonl"
    with running(*command) as process:
        deadline = time.monotonic() + 300
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 4:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-4000:]
            time.sleep(0.02)
        victims = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(victims[-1]), signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and out == ""
    assert "has lost another one" in err or "SIGKILL" in err
    assert not (folder / "killed" / "model").exists()
    summary = json.loads(torchrun(*command))
    assert summary["updates"] == 12 and summary["resumed_from"] >= 3
    train_rl(config(folder, "unharmed", updates=12))
    mine, theirs = numbers(folder / "killed"), numbers(folder / "unharmed")
    assert [line["reward"] for line in mine] == [line["reward"] for line in theirs]
    assert [line["grad_norm"] for line in mine] == pytest.approx([line["grad_norm"] for line in theirs], rel=1e-2)


def test_a_stop_asked_of_one_process_stops_both_with_a_checkpoint(folder, ended):
    assert [one["stopped"].partition(":")[0] for one in ended] == ["KeyboardInterrupt"] * 2
    assert ended[0]["resumed"]["resumed_from"] == ended[1]["resumed"]["resumed_from"] == 2
    train_rl(config(folder, "one-stopped", updates=4))
    mine, theirs = numbers(folder / "two-stopped"), numbers(folder / "one-stopped")
    assert [line["step"] for line in mine] == [1, 2, 3, 4]
    assert [line["reward"] for line in mine] == [line["reward"] for line in theirs]
    assert [line["grad_norm"] for line in mine] == pytest.approx([line["grad_norm"] for line in theirs], rel=2e-3)
    assert ended[1]["again"]["finished_before"]


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_one(folder, ended_more):
    assert ended_more[0]["halted"].startswith("KeyboardInterrupt")
    assert train_rl(config(folder, "two-halted", updates=4))["resumed_from"] == 2
    train_rl(config(folder, "one-stopped", updates=4))
    mine, theirs = numbers(folder / "two-halted"), numbers(folder / "one-stopped")
    assert [line["reward"] for line in mine] == [line["reward"] for line in theirs]
    assert [line["grad_norm"] for line in mine] == pytest.approx([line["grad_norm"] for line in theirs], rel=2e-3)


def test_what_fails_in_one_process_ends_both_with_its_sentence(ended):
    for one in ended:
        assert one["failed"].startswith("CM2Error: ") and "the machine room is on fire" in one["failed"]
        assert one["other"].startswith("ConfigError: ") and "lr was 0.01, now 0.02" in one["other"]
        assert "3 prompts cannot be dealt evenly to 2 processes" in one["uneven"]
        assert one["timed"]["updates"] == 1
    assert "process 1" in ended[0]["failed"]


def test_one_process_agrees_with_itself():
    alone = Processes()
    assert alone.every(3) == [3] and alone.collect(3) == [3] and alone.share(7, "prompts") == 7
    assert alone.lead(lambda: 4) == alone.together(lambda: 4) == alone.in_turn(lambda: 4) == 4
    with pytest.raises(CM2Error, match="boom"):
        alone.agree(CM2Error("boom"))
    with pytest.raises(ConfigError, match="cannot be dealt"):
        Processes(0, 2).share(3, "prompts")
