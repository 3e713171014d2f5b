"""The order of tasks: a resumed run goes on in the pass that it was in."""

import os
import signal

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train.order import Order  # noqa: E402
from cm2.train.rl import Batch, train_rl  # noqa: E402
from train.saying_task import numbers, saying, settings, tiny_folder, write  # noqa: E402


def passes(count, first=0, told=True):
    order = Order(list(range(10)), mini_repeat_count=2, batch_size=3, repeat_count=2, shuffle=True, seed=4)
    found = []
    for epoch in range(first, count):
        if told:
            order.set_epoch(epoch)
        found.append(list(order))
    return found


def test_passes_differ_and_each_can_be_begun_with():
    whole = passes(4)
    assert len({tuple(one) for one in whole}) == 4
    assert passes(4, first=2) == whole[2:]
    assert passes(4, told=False) == whole  # what an uninterrupted run always had
    assert all(len(one) == 9 * 2 * 2 and len(set(one)) == 9 for one in whole)


def test_a_run_that_is_resumed_in_its_second_pass_sees_the_tasks_of_an_uninterrupted_one(tmp_path, monkeypatch):
    model = tiny_folder(tmp_path / "model")
    data = write(tmp_path / "tasks.jsonl", [saying(i) for i in range(5)])
    sizes = {"group": 2, "updates": 5, "max_step_tokens": 3}
    train_rl(settings(data, tmp_path / "straight", model, **sizes))
    config, rolled = settings(data, tmp_path / "run", model, **sizes), Batch.__call__

    def interrupted(self, indices, generation):
        rows = rolled(self, indices, generation)
        if generation == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return rows

    monkeypatch.setattr(Batch, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_rl(config)
    monkeypatch.setattr(Batch, "__call__", rolled)
    assert train_rl(config)["resumed_from"] == 3  # two updates a pass: in the middle of the second
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    tasks = [
        [
            [one.task for one in read_rollouts(str(tmp_path / name / "rollouts" / f"step-0000{step}.jsonl"))]
            for step in range(1, 6)
        ]
        for name in ("run", "straight")
    ]
    assert tasks[0] == tasks[1]
