"""The best model on held-out dialogues: noise does not select it, and a resumed run selects the same."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.rollout.trace import Failure, Rollout
from cm2.train import best as module
from cm2.train.best import Best, compare, fallen, heldout_tasks, look_of, numbers_of, read_looks, step_of
from cm2.train.runs import Run


class Settings(msgspec.Struct):
    seed: int = 0


class Weights:
    """Stands for a model: it writes a file that says which step's weights they are."""

    def __init__(self, step):
        self.step = step

    def parameters(self):
        return []

    def save_pretrained(self, folder):
        (folder / "weights").write_text(str(self.step))


def opened(tmp_path):
    return Run(tmp_path / "run", "rl", Settings(), {"input": "x"})


def rollouts(rewards, failed=0):
    made = [Rollout(f"t{i}", Dialogue(f"t{i}"), score={"reward": reward}) for i, reward in enumerate(rewards)]
    return made + [Rollout(f"f{i}", Dialogue("f"), failure=Failure("judge", "down")) for i in range(failed)]


def take(best, step, rewards):
    return best.take(step, rollouts(rewards), Weights(step), Weights(step))


LOW, HIGH = [0.2, 0.3, 0.1, 0.4] * 4, [0.6, 0.7, 0.5, 0.9] * 4


def saved(tmp_path):
    return (tmp_path / "run" / "best" / "weights").read_text()


def test_a_better_model_takes_the_place_of_the_start_and_a_worse_one_does_not(tmp_path):
    with opened(tmp_path) as run:
        best = Best(run, 0)
        assert [take(best, step, rewards).best for step, rewards in ((0, LOW), (10, HIGH), (20, LOW))] == [1, 1, 0]
        assert best.best.step == 10 and saved(tmp_path) == "10" and step_of(best.folder) == 10
        told = numbers_of(best.looks[-1], best.best)
        assert told["best_step"] == 10 and told["heldout_fallen"] == pytest.approx(0.425)
        assert "heldout_fallen" not in numbers_of(best.looks[1], best.best)
    assert [(look.step, look.best, look.against) for look in read_looks(tmp_path / "run" / "heldout.jsonl")] == [
        (0, True, None),
        (10, True, 0),
        (20, False, 10),
    ]


def test_a_lead_that_may_be_luck_selects_nothing():
    """Of two that cannot be told apart the earlier stays: three tasks better and two worse prove nothing."""
    first = compare(look_of(0, rollouts([0.5] * 20)), None)
    lead = compare(look_of(5, rollouts([0.9, 0.9, 0.9, 0.3, 0.3] + [0.5] * 15)), first)
    assert lead.reward > first.reward and lead.change.p > 0.05 and not lead.best and fallen(lead) is None


def test_luck_alone_rarely_selects_and_ranking_always_does():
    rng = np.random.default_rng(0)
    moved = picked = 0
    for _ in range(20):
        skill = rng.uniform(0.2, 0.8, 48)
        best = None
        looks = [look_of(n, rollouts((rng.random(48) < skill).astype(float))) for n in range(6)]
        for look in looks:
            best = look if compare(look, best).best else best
        moved += best.step > 0
        picked += max(looks, key=lambda look: look.reward).step > 0
    assert moved <= 7 and picked >= 12


def test_failed_rollouts_are_no_zeros_and_a_task_missing_on_one_side_is_not_compared():
    look = look_of(1, rollouts(HIGH, failed=3))
    assert look.failures == 3 and look.reward == pytest.approx(np.mean(HIGH)) and len(look.tasks) == 16
    other = compare(look_of(2, rollouts(HIGH[:10])), look)
    assert other.change.n == 10 and other.change.difference == 0 and not other.best
    with pytest.raises(DataError, match="not one of 2 held-out rollouts"):
        look_of(1, rollouts([], failed=2))


def test_a_resumed_run_forgets_later_evaluations_and_has_the_best_of_its_step_again(tmp_path):
    with opened(tmp_path) as run:
        best = Best(run, 0)
        for step, rewards in ((0, [0.0] * 16), (10, LOW), (20, HIGH)):
            take(best, step, rewards)
        assert saved(tmp_path) == "20"
    with opened(tmp_path) as run:
        again = Best(run, 15)
        assert again.best.step == 10 and saved(tmp_path) == "10" and [one.step for one in again.looks] == [0, 10]
        take(again, 20, HIGH)
        assert saved(tmp_path) == "20"
    with opened(tmp_path) as run:
        assert Best(run, 5).best.step == 0 and saved(tmp_path) == "0"
    with opened(tmp_path) as run:
        assert Best(run, -1).best is None and not (tmp_path / "run" / "best").exists()


def test_an_older_best_is_kept_until_a_checkpoint_covers_the_newer(tmp_path):
    with opened(tmp_path) as run:
        best = Best(run, 0)
        for step, rewards in ((0, [0.0] * 16), (10, LOW), (20, HIGH)):
            take(best, step, rewards)
        kept = lambda: sorted(path.name for path in run.folder.glob(".best-*"))  # noqa: E731
        assert kept() == [".best-00000000", ".best-00000010"]
        best.covered(15)
        assert kept() == [".best-00000000", ".best-00000010"]
        best.covered(20)
        assert kept() == []


@pytest.mark.parametrize("moment", ["before the swap", "between", "before the line"])
def test_a_kill_while_the_best_changes_leaves_a_whole_one(tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    with opened(tmp_path) as run:
        best = Best(run, 0)
        take(best, 0, LOW)
        with monkeypatch.context() as patch:
            if moment == "before the line":
                patch.setattr(Run, "write", die)
            else:
                rename, count = module.Path.rename, {"before the swap": 1, "between": 2}[moment]
                seen = []

                def renamed(path, target):
                    if path.name in ("best", "best-new"):
                        seen.append(path)
                        if len(seen) == count:
                            die()
                    return rename(path, target)

                patch.setattr(module.Path, "rename", renamed)
            with pytest.raises(Killed):
                take(best, 10, HIGH)
    with opened(tmp_path) as run:
        assert Best(run, 0).best.step == 0 and saved(tmp_path) == "0"
        assert not (run.folder / "best-new").exists()


def test_held_out_tasks_are_not_trained_on():
    tasks = [Task(Dialogue("a"), []), Task(Dialogue("b"), [])]
    assert heldout_tasks(tasks, [Task(Dialogue("c"), [])], "f") == tasks
    with pytest.raises(DataError, match=r"dialogue b: a held-out task is trained on too"):
        heldout_tasks(tasks, tasks[1:], "f")
    with pytest.raises(DataError, match="the same id"):
        heldout_tasks([*tasks, tasks[0]], [], "f")


def test_a_torn_line_of_evaluations_is_left_out(tmp_path):
    file = tmp_path / "heldout.jsonl"
    file.write_text(json.dumps({"step": 1, "reward": 0.5}) + "\n" + '{"step": 2, "rew')
    assert [look.step for look in read_looks(file)] == [1]


def test_an_evaluation_lends_the_driver_and_gives_it_back_as_it_was(tmp_path, monkeypatch):
    """Also where the evaluation fails; a driver that meets other processes does not while they wait."""
    from types import SimpleNamespace

    from cm2.train import heldout

    tasks = [Task(Dialogue("a"), [])]
    monkeypatch.setattr(heldout, "read_all", lambda *_: SimpleNamespace(tasks=tasks))
    seen = []

    class Driver:
        sampling, lead = "training's", "everybody's"

        def update_weights(self, model):
            seen.append((self.lead(lambda: "alone"), self.sampling.temperature))
            raise RuntimeError("the weights do not fit")

    class Config(SimpleNamespace):
        def __getattr__(self, name):
            return None

    config = Config(heldout="f", heldout_temperature=0.0, max_step_tokens=4, max_tokens=9, seed=1, reading="gated")
    config.simulator, config.max_steps = SimpleNamespace(kind="auto"), 3
    driver, feedback = Driver(), SimpleNamespace(tasks=[], plain=None, world=None)
    with opened(tmp_path) as run:
        held = heldout.Heldout(run, config, driver, feedback, lambda: None, None, 0)
        with pytest.raises(RuntimeError, match="do not fit"):
            held.start()
    assert seen == [("alone", 0.0)] and (driver.sampling, driver.lead) == ("training's", "everybody's")
