"""Runs with held-out tasks, quality numbers, alarms and a record of what they rest on."""

from __future__ import annotations

import json
import os
import signal

import msgspec
import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from tiny_run import make_model, numbers, settings, weights, write_tasks  # noqa: E402

from cm2.cli.main import main  # noqa: E402
from cm2.errors import CheckFailed, CM2Error, DataError  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train import reproduce, space  # noqa: E402
from cm2.train.alarms import Alarm, Alarming  # noqa: E402
from cm2.train.best import read_looks, step_of  # noqa: E402
from cm2.train.embedded import load_model  # noqa: E402
from cm2.train.quality import duties  # noqa: E402
from cm2.train.rl import Batch, train_rl  # noqa: E402
from cm2.train.space import DiskFull  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    held = write_tasks(folder / "held.jsonl", 6, prefix="held")
    return make_model(folder / "model"), write_tasks(folder / "tasks.jsonl", 8), held


@pytest.fixture
def config(tmp_path, files):
    return settings(tmp_path / "run", files[0], files[1])


def changed(config, **changes):
    return msgspec.structs.replace(config, **changes)


def ours(rows):
    return [{name: value for name, value in row.items() if not name.startswith(("heldout", "best"))} for row in rows]


def test_held_out_tasks_leave_the_training_as_it_was_and_their_best_model_is_kept(config, files, tmp_path):
    train_rl(config)
    watched = changed(config, output=str(tmp_path / "watched"), heldout=files[2], evaluate_every=2)
    summary = train_rl(watched)
    run = tmp_path / "watched"
    assert ours(numbers(run)) == ours(numbers(tmp_path / "run"))
    mine, theirs = weights(run / "model"), weights(tmp_path / "run" / "model")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    looks = read_looks(run / "heldout.jsonl")
    assert [look.step for look in looks] == [0, 2, 4] and all(len(look.tasks) == 6 for look in looks)
    assert [row["step"] for row in numbers(run) if "heldout_reward" in row] == [2, 4]
    assert step_of(run / "best") == summary["best_step"] and summary["best"] == str(run / "best")
    load_model(run / "best")
    if summary["best_step"] == 0:  # nothing was better beyond noise: the start itself
        start = weights(run / "best")
        assert all(torch.equal(start[name], value) for name, value in load_model(config.model)[0].state_dict().items()
                   if name in start)  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"lora": 2, "lr": 0.1}])
def test_a_killed_run_resumes_to_the_same_evaluations(config, files, tmp_path, changes, monkeypatch):
    config = changed(config, heldout=files[2], evaluate_every=1, updates=3, **changes)
    train_rl(changed(config, output=str(tmp_path / "straight")))
    rolled = Batch.__call__

    def interrupted(self, indices, generation):
        rows = rolled(self, indices, generation)
        if generation == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return rows

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Batch, "__call__", interrupted)
        train_rl(config)
    assert train_rl(config)["resumed_from"] == 2
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert numbers(run) == numbers(straight)
    assert read_looks(run / "heldout.jsonl") == read_looks(straight / "heldout.jsonl")
    mine, theirs = weights(run / "best"), weights(straight / "best")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    sessions = reproduce.read(run).sessions
    assert [one.resumed_from for one in sessions] == [0, 2] and reproduce.differences(*sessions) == []


def test_tasks_of_the_training_are_no_held_out_tasks(config):
    with pytest.raises(DataError, match="a held-out task is trained on too"):
        train_rl(changed(config, heldout=config.input))


def test_the_numbers_of_an_update_are_those_of_its_rollouts(config, tmp_path):
    train_rl(changed(config, updates=1))
    (row,) = numbers(tmp_path / "run")
    stored = list(read_rollouts(str(tmp_path / "run" / "rollouts" / "step-00001.jsonl")))
    tallies = duties(stored)
    for kind in ("small", "capital"):
        assert row[f"duty/{kind}"] == tallies[kind][True] / 8
    rewards = {one.task: [] for one in stored}
    for one in stored:
        rewards[one.task].append(one.score["reward"])
    assert row["length"] == row["tokens_generated"] / 8 and row["unscored"] == 0 and row["generation"] == 0
    by_domain = {name: row[f"domain/{name}"] for name in ("bar", "shop") if f"domain/{name}" in row}
    mean = sum(map(sum, rewards.values())) / 8
    assert row["reward"] == pytest.approx(mean)
    for name, value in by_domain.items():
        own = [r for task, found in rewards.items() if int(task[-1]) % 2 == ("bar", "shop").index(name) for r in found]
        assert value == pytest.approx(sum(own) / len(own))
    assert 0 <= row["dead_groups"] <= 1 and row["steps"] >= 1


def test_an_alarm_is_on_record_and_stops_a_run_that_is_to_stop(config, tmp_path, monkeypatch, capsys):
    def seen(metrics, alarming, moving):
        return [Alarm("kl", 2, "the KL leapt")] if len(metrics) == 2 and alarming.on_alarm != "off" else []

    monkeypatch.setattr("cm2.train.feedback.alarms", seen)
    noted = train_rl(config)
    assert noted["alarms"] == ["kl: the KL leapt"] and "alarm: kl: the KL leapt" in capsys.readouterr().err
    with pytest.raises(CheckFailed, match="the KL leapt"):
        train_rl(changed(config, output=str(tmp_path / "stopped"), alarms=Alarming(on_alarm="stop")))
    assert len(numbers(tmp_path / "stopped")) == 3 and list((tmp_path / "stopped" / "checkpoints").iterdir())
    going = changed(config, output=str(tmp_path / "stopped"))  # whoever looked may go on
    assert train_rl(going)["resumed_from"] == 3


def test_a_disk_that_is_full_stops_the_run_before_it_writes_and_room_lets_it_go_on(config, tmp_path, monkeypatch):
    straight = changed(config, output=str(tmp_path / "straight"))
    train_rl(straight)
    small, real = changed(config, save_every=1e-4), space.room
    stored = Batch._store

    def filling(self, groups, generation):
        if generation == 2:
            monkeypatch.setattr(space, "room", lambda folder: space.RESERVE + 100)
        stored(self, groups, generation)

    monkeypatch.setattr(Batch, "_store", filling)
    with pytest.raises(DiskFull, match="no room for the rollouts of an update"):
        train_rl(small)
    run = tmp_path / "run"
    assert [row["step"] for row in numbers(run)] == [1, 2]
    assert sorted(path.name for path in (run / "rollouts").iterdir()) == ["step-00001.jsonl", "step-00002.jsonl"]
    monkeypatch.setattr(Batch, "_store", stored)
    with pytest.raises(DiskFull):  # still full: nothing is lost by trying
        train_rl(small)
    monkeypatch.setattr(space, "room", real)
    assert train_rl(small)["resumed_from"] == 2
    assert numbers(run) == numbers(tmp_path / "straight")


def test_a_damaged_checkpoint_is_passed_over_and_the_numbers_are_the_same(config, tmp_path, monkeypatch, capsys):
    train_rl(changed(config, output=str(tmp_path / "straight")))
    rolled, frequent = Batch.__call__, changed(config, save_every=1e-4)

    def dies(self, indices, generation):
        if generation == 3:
            raise RuntimeError("killed")
        return rolled(self, indices, generation)

    monkeypatch.setattr(Batch, "__call__", dies)
    with pytest.raises(RuntimeError, match="killed"):
        train_rl(frequent)
    monkeypatch.setattr(Batch, "__call__", rolled)
    run = tmp_path / "run"
    newest = run / "checkpoints" / "step-00000003"
    (file,) = newest.rglob("optimizer.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert train_rl(frequent)["resumed_from"] == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "checkpoint of step 3 is damaged" in told and "going on from the one of step 2" in told
    assert numbers(run) == numbers(tmp_path / "straight")


def test_a_run_says_what_it_rests_on_and_how_to_make_it_anew(config, tmp_path, capsys):
    train_rl(changed(config, updates=1))
    run = tmp_path / "run"
    record = reproduce.read(run)
    assert record.seeds["seed"] == 3 and record.inputs.keys() == {"input", "model"}
    assert {"python", "torch", "trl", "cm2", "cm2 code"} <= record.first.versions.keys()
    assert record.first.machine["threads"] == torch.get_num_threads()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(run), "--reproduce"])
    assert stop.value.code == 0
    told = capsys.readouterr()
    command = told.out.split()
    assert command[:3] == ["cm2", "rl", config.input] and "changed since" not in told.err
    with pytest.raises(SystemExit) as stop:
        main([*command[1:], "--json"])
    assert stop.value.code == 0
    assert numbers(tmp_path / "run-again") == numbers(run)
    assert reproduce.read(tmp_path / "run-again").config_hash == record.config_hash


def test_what_changed_since_is_told(config, tmp_path, monkeypatch, capsys):
    config = changed(config, updates=1)
    train_rl(config)
    run = tmp_path / "run"
    monkeypatch.setattr(reproduce, "versions", lambda: reproduce.read(run).first.versions | {"torch": "9.9"})
    record = reproduce.read(run)
    (tmp_path / "run" / "done.json").unlink()
    said = []
    from cm2.train.runs import Run

    with Run(run, "rl", msgspec.structs.replace(config), dict(record.inputs), ("output",)) as opened:
        reproduce.note(opened, "rl", config, record.inputs, 1, said.append)
    assert len(said) == 1 and said[0].startswith("this run began with torch 2") and "goes on with 9.9" in said[0]
    found = reproduce.changed(run, lambda settings: dict(record.inputs) | {"input": "other"})
    assert found[0] == "input: its content changed" and any("torch" in line and "now 9.9" in line for line in found)


def test_a_folder_that_does_not_say_is_told_so(tmp_path):
    with pytest.raises(DataError, match=r"has no reproduce\.json"):
        reproduce.command_of(tmp_path)
    (tmp_path / "reproduce.json").write_text("{")
    with pytest.raises(CM2Error, match="does not read"):
        reproduce.read(tmp_path)


def test_no_secret_of_the_environment_is_kept(config, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefghijklmnop")
    train_rl(changed(config, updates=1))
    text = (tmp_path / "run" / "reproduce.json").read_text()
    assert "sk-abc" not in text and json.loads(text)["verb"] == "rl"
