"""Benchmarks while a run trains: the same few tasks every time, no zero for a loss, and training notices nothing."""

from __future__ import annotations

import contextlib
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
from cm2.errors import ConfigError  # noqa: E402
from cm2.harness import environments, serving  # noqa: E402
from cm2.harness import run as running  # noqa: E402
from cm2.harness.environments import Environment  # noqa: E402
from cm2.harness.process import HarnessFailed  # noqa: E402
from cm2.harness.results import Outcome  # noqa: E402
from cm2.report.dashboard import build  # noqa: E402
from cm2.serve.child import Served  # noqa: E402
from cm2.train.benchmarking import Benchmarking  # noqa: E402
from cm2.train.benchmarks import read_points  # noqa: E402
from cm2.train.rl import train_rl  # noqa: E402
from servers.openai_server import OpenAIServer, says  # noqa: E402

TASKS = ["t0", "t1", "t2", "t3"]


class Fake:
    """A harness of one category, whose score is a fact about the weights; `at` says what happens in which run."""

    WHOLE = {"easy": 40}
    GROUPS = {"fake": ("easy",)}
    DEFAULT = ["fake"]

    def __init__(self):
        self.ran, self.at, self.asked = [], {}, []

    def run_once(self, config, environment, folder, index, chosen):
        """Play what has no score yet."""
        self.ran.append(str(folder.parents[2].name))
        self.asked.append((config.tasks or TASKS[: config.limit], config.model, config.temperature, config.max_tokens))
        what = self.at.get(len(self.ran), "")
        if what == "broken":
            raise HarnessFailed("the harness ended with 1")
        if what == "unreadable":
            raise KeyError("accuracy")
        folder.mkdir(parents=True, exist_ok=True)
        ids = self.asked[-1][0] if what != "others" else ["t7"]
        (folder / "tasks.json").write_text(json.dumps({"hash": "-".join(ids)}))
        path = folder / "rows.json"
        rows = json.loads(path.read_text()) if path.exists() else {}
        for number, id in enumerate(ids):
            if rows.get(id, "user") == "user":
                rows[id] = "user" if what == "lost" and not number else float(sum(self.seen) * (number + 1) % 1 > 0.5)
            path.write_text(json.dumps(rows))
            if what == "killed" and number == 1:
                os.kill(os.getpid(), signal.SIGINT)
                raise KeyboardInterrupt
            yield number + 1

    def parse(self, folder, index, raw):
        """Rows as outcomes."""
        rows = json.loads((folder / "rows.json").read_text())
        if len(rows) < len(self.asked[-1][0]) and "t7" not in rows:
            raise HarnessFailed("answers are missing")
        found = [
            Outcome(task=id, category="easy", run=index, **({"owner": one} if one == "user" else {"score": one}))
            for id, one in rows.items()
        ]
        return found, {"easy": [0.0]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_model(folder / "model"), write_tasks(folder / "tasks.jsonl", 8)


@pytest.fixture
def fake(monkeypatch):
    """A harness and a server that is told the folder of the weights."""
    made = Fake()
    monkeypatch.setitem(running.ADAPTERS, "bfcl", made)
    monkeypatch.setattr(environments, "need", lambda name: Environment(name=name, folder="", pins="", version="h==1"))
    with OpenAIServer([says("hello")]) as server:

        @contextlib.contextmanager
        def served(checkpoint, thinking, **more):
            assert torch.is_grad_enabled()
            made.seen = [float(value.double().abs().sum()) for value in weights_of(checkpoint)]
            yield Served(server.url, "key", "policy", "cm2", 512)

        monkeypatch.setattr(serving, "served", served)
        yield made


def weights_of(folder):
    from pathlib import Path

    return list(weights(Path(folder)).values())


@pytest.fixture
def config(tmp_path, files):
    looks = Benchmarking(run=["bfcl"], every=2, limit=2)
    return settings(tmp_path / "run", files[0], files[1], benchmarks=looks)


def changed(config, **changes):
    return msgspec.structs.replace(config, **changes)


def ours(rows):
    return [{name: value for name, value in row.items() if not name.startswith("benchmark")} for row in rows]


def same(one, other):
    mine, theirs = weights(one / "model"), weights(other / "model")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_training_is_the_same_with_and_without_and_the_same_tasks_are_asked_every_time(config, fake, tmp_path):
    summary = train_rl(config)
    run, plain = tmp_path / "run", tmp_path / "plain"
    train_rl(changed(config, output=str(plain), benchmarks=Benchmarking()))
    assert same(run, plain) and ours(numbers(run)) == ours(numbers(plain))
    assert fake.ran == ["step-00000", "step-00002", "step-00004"]
    assert fake.asked == [(["t0", "t1"], "policy", 0.0, config.max_step_tokens)] * 3
    points = read_points(run / "benchmarks.jsonl")
    assert [point.step for point in points] == [0, 2, 4] and all(point.n == 2 for point in points)
    assert all("not comparable" in point.note for point in points)
    told = [row for row in numbers(run) if "benchmark/bfcl/score" in row]
    assert [(row["step"], row["benchmark/bfcl/score"]) for row in told] == [(p.step, p.score) for p in points[1:]]
    assert all("not comparable" in row["benchmark/bfcl/note"] for row in told)
    assert [one["step"] for one in summary["benchmarks"]["bfcl"]] == [0, 2, 4]
    assert (run / "benchmarks" / "step-00002" / "bfcl" / "results.json").exists()
    assert not list(run.glob(".saving-*"))
    assert not (plain / "benchmarks.jsonl").exists()


def test_the_curve_stands_in_tensorboard_and_on_the_page(config, fake, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fake.at = {2: "lost"}
    train_rl(config)
    board = EventAccumulator(str(tmp_path / "run" / "tb"))
    board.Reload()
    points = read_points(tmp_path / "run" / "benchmarks.jsonl")
    assert [(one.step, one.value) for one in board.Scalars("benchmark/bfcl/score")] == [(4, points[2].score)]
    page, _ = build(tmp_path / "run")
    (section,) = [one for one in page.sections if one.name == "Benchmarks"]
    (panel,) = section.panels
    assert panel.title == "bfcl" and panel.lines[0].steps == [0, 2, 4] and len(panel.lines[0].known) == 2
    assert "2 tasks" in panel.note and "not comparable" in panel.note and "no score after step 2" in panel.note
    assert not any("benchmark/" in one.title for part in page.sections for one in part.panels)


@pytest.mark.parametrize("what", ["lost", "broken", "unreadable", "others"])
def test_what_is_lost_is_unscored_and_never_a_zero_and_training_goes_on(config, fake, tmp_path, what, capsys):
    fake.at = {2: what}
    train_rl(config)
    first, second, third = read_points(tmp_path / "run" / "benchmarks.jsonl")
    assert second.score is None and first.score is not None and third.score is not None
    reason = {
        "lost": "user 1",
        "broken": "ended with 1",
        "unreadable": "KeyError",
        "others": "others than after step 0",
    }[what]
    assert reason in second.unscored and reason in " ".join(capsys.readouterr().err.split())
    (row,) = [row for row in numbers(tmp_path / "run") if row["step"] == 2]
    assert row["benchmark/bfcl/score"] is None and reason in row["benchmark/bfcl/unscored"]


def test_a_loss_that_is_allowed_is_left_out_of_the_mean(config, fake, tmp_path):
    fake.at = {1: "lost"}
    train_rl(changed(config, benchmarks=msgspec.structs.replace(config.benchmarks, allow_errors=1), updates=1))
    first = read_points(tmp_path / "run" / "benchmarks.jsonl")[0]
    assert first.score in (0.0, 1.0) and (first.n, first.lost) == (2, 1)


def test_a_server_that_does_not_start_costs_the_point(config, fake, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def served(checkpoint, thinking, **more):
        raise ConfigError("it could not be served")
        yield

    monkeypatch.setattr(serving, "served", served)
    assert train_rl(changed(config, updates=1))["updates"] == 1
    points = read_points(tmp_path / "run" / "benchmarks.jsonl")
    assert [point.unscored for point in points] == ["it could not be served"] * 2


@pytest.mark.parametrize("more", [{}, {"lora": 2}])
def test_killed_during_an_evaluation_the_same_command_ends_with_the_same_model_and_curve(config, fake, tmp_path, more):
    config = changed(config, save_every=1e-4, **more)
    train_rl(changed(config, output=str(tmp_path / "straight")))
    fake.at = {len(fake.ran) + 2: "killed"}
    with pytest.raises(KeyboardInterrupt):
        train_rl(config)
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert [row["step"] for row in numbers(run)] == [1] and [
        one.step for one in read_points(run / "benchmarks.jsonl")
    ] == [0]
    begun = json.loads((run / "benchmarks/step-00002/bfcl/raw/run-0/rows.json").read_text())
    (run / ".saving-benchmark" / "policy").mkdir(parents=True)  # as a kill that nobody can catch leaves it
    assert train_rl(config)["resumed_from"] == 1
    assert numbers(run) == numbers(straight) and same(run, straight)
    assert read_points(run / "benchmarks.jsonl") == read_points(straight / "benchmarks.jsonl")
    ended = json.loads((run / "benchmarks/step-00002/bfcl/raw/run-0/rows.json").read_text())
    assert begun.items() <= ended.items()  # what had a score was not asked again
    assert not list(run.glob(".saving-*"))


def test_results_of_other_weights_are_not_taken_for_a_step(config, fake, tmp_path):
    train_rl(changed(config, updates=2))
    run = tmp_path / "run"
    (run / "benchmarks/step-00002/weights").write_text("other weights")
    (run / "done.json").unlink()
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints").mkdir(exist_ok=True)
    count = len(fake.ran)
    assert train_rl(changed(config, updates=2))["resumed_from"] == 0
    assert fake.ran[count:] == ["step-00002"]  # the start's are of its very weights


def test_what_would_fail_every_time_is_refused_before_the_first_update(config, tmp_path, monkeypatch):
    monkeypatch.setenv("CM2_CACHE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="cm2 eval setup bfcl"):
        train_rl(config)
    with pytest.raises(ConfigError, match="simulated user"):
        train_rl(changed(config, benchmarks=Benchmarking(run=["tau2"])))
    with pytest.raises(ConfigError, match="of one benchmark"):
        train_rl(changed(config, benchmarks=Benchmarking(run=["bfcl", "tau2"], tasks=["t0"])))
    with pytest.raises(ConfigError, match="twice"):
        train_rl(changed(config, benchmarks=Benchmarking(run=["bfcl", "bfcl"])))
    assert not numbers(tmp_path / "run") and not (tmp_path / "run" / "rollouts").exists()


def test_a_resumed_run_keeps_its_tasks(config, fake):
    train_rl(changed(config, updates=1))
    with pytest.raises(ConfigError, match=r"benchmarks\.limit was 2, now 3"):
        train_rl(changed(config, benchmarks=msgspec.structs.replace(config.benchmarks, limit=3)))


def test_the_flags_say_the_same_as_a_recipe(config, fake, tmp_path, capsys):
    words = ["rl", config.input, "-o", str(tmp_path / "run"), "--model", config.model, "--updates", "1", "--json"]
    words += ["--prompts", "2", "--group", "4", "--max-step-tokens", "6", "--max-tokens", "1500"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--benchmarks", "bfcl", "--benchmark-every", "1", "--benchmark-limit", "3"])
    assert stop.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert [one["n"] for one in summary["benchmarks"]["bfcl"]] == [3, 3]


def test_a_recipe_names_them_and_verl_says_that_it_leaves_them_out(tmp_path):
    from cm2.train import settings as reading
    from cm2.train.drivers import allowed
    from cm2.train.rl_config import RlConfig
    from cm2.verl.refusals import notes_of

    recipe = tmp_path / "rl.yaml"
    recipe.write_text("benchmarks:\n  run: [bfcl]\n  every: 10\n  tasks: [multi_turn_base_3]\n")
    flags = {"input": "tasks.jsonl", "output": "run"}
    loaded = reading.load(RlConfig, str(recipe), flags, {"benchmarks": {"every": 5, "limit": None}})
    assert loaded.benchmarks == Benchmarking(run=["bfcl"], every=5, tasks=["multi_turn_base_3"])
    assert any(note.startswith("benchmarks is left out") for note in notes_of(loaded))
    servers = msgspec.structs.replace(loaded.generation, engine="vllm", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="benchmarks does not go with weights that are sharded"):
        allowed(msgspec.structs.replace(loaded, generation=servers), "FSDP")
