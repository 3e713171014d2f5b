"""A judge that is down for a while, in a real run: it waits, says so, and gives the numbers of a run without."""

from __future__ import annotations

import time

import msgspec
import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from tiny_run import make_model, numbers, settings, write_tasks  # noqa: E402

from cm2.errors import CM2Error  # noqa: E402
from cm2.judge.judging import Judging  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train import outage  # noqa: E402
from cm2.train.rl import Batch, train_rl  # noqa: E402
from servers.scripted import Behaviour, Scripted, good  # noqa: E402

MODELS = "default: {{base_url: '{url}', model: m, backoff: 0.001, retries: 1, price: {{input: 0, output: 0}}}}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_model(folder / "model"), write_tasks(folder / "tasks.jsonl", 8, checks=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(
        outage.Outage.__init__, "__kwdefaults__", {"first": 0.02, "longest": 0.1, "clock": time.monotonic}
    )


def asked(tmp_path, files, url, **changes):
    models = tmp_path / "models.yaml"
    models.write_text(MODELS.format(url=url))
    # One rollout at a time: else the order of answers would decide which share a matrix product, and the last bits.
    made = settings(tmp_path / "run", *files, updates=3, judging=Judging(kind="llm"), models=str(models), batch=1)
    return msgspec.structs.replace(made, **changes)


class Down:
    """A script whose server is out for `seconds` from its `first`-th request on."""

    def __init__(self, first, seconds):
        self.first, self.seconds, self.seen, self.began = first, seconds, 0, None

    def __call__(self, body, tries):
        self.seen += 1
        if self.seen >= self.first and self.began is None:
            self.began = time.monotonic()
        if self.began is not None and time.monotonic() - self.began < self.seconds:
            return Behaviour({"error": {"message": "maintenance"}}, 503, kind="down")
        return good(body, tries)


def test_an_outage_is_waited_out_and_changes_no_number(tmp_path, files, capsys):
    with Scripted(good) as server:
        train_rl(asked(tmp_path, files, server.url, output=str(tmp_path / "clear")))
    capsys.readouterr()
    with Scripted(Down(5, 1.5)) as server:
        summary = train_rl(asked(tmp_path, files, server.url))
    assert summary["failures"] == 0 and summary["updates"] == 3
    assert numbers(tmp_path / "run") == numbers(tmp_path / "clear")
    rewards = [
        [rollout.score["reward"] for n in (1, 2, 3) for rollout in read_rollouts(str(folder / f"step-0000{n}.jsonl"))]
        for folder in (tmp_path / "run" / "rollouts", tmp_path / "clear" / "rollouts")
    ]
    assert rewards[0] == rewards[1] and None not in rewards[0]
    told = " ".join(capsys.readouterr().err.split())
    assert "nobody answers" in told and "training waits, for 10 minutes at most" in told and "training goes on" in told
    waited = [
        line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if "seconds_outage" in line
    ]
    assert waited


def test_without_patience_the_same_outage_costs_rollouts(tmp_path, files):
    """What the waiting is for: rollouts leave their groups, or the run stops, where nobody waits."""
    with Scripted(Down(5, 1.5)) as server:
        try:
            assert train_rl(asked(tmp_path, files, server.url, outage_minutes=0.0))["failures"] > 0
        except CM2Error as error:
            assert "rollouts of an update counts" in str(error) or "nobody answers" in str(error)


def test_an_outage_that_lasts_too_long_stops_cleanly_and_the_same_command_goes_on(tmp_path, files, monkeypatch):
    with Scripted(good) as server:
        train_rl(asked(tmp_path, files, server.url, output=str(tmp_path / "clear")))
    called = Batch.__call__
    script = Down(10**9, 1e9)

    def breaking(self, indices, generation):
        if generation == 1:
            script.first = 0
        return called(self, indices, generation)

    monkeypatch.setattr(Batch, "__call__", breaking)
    with Scripted(script) as server:
        config = asked(tmp_path, files, server.url, outage_minutes=0.01, save_every=1e-4)
        with pytest.raises(CM2Error, match=r"no answer for 1 s.*same command"):
            train_rl(config)
    assert [row["step"] for row in numbers(tmp_path / "run")] == [1]
    monkeypatch.setattr(Batch, "__call__", called)
    with Scripted(good) as server:
        assert train_rl(asked(tmp_path, files, server.url))["resumed_from"] == 1
    assert numbers(tmp_path / "run") == numbers(tmp_path / "clear")
