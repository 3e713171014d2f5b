"""Dynamic sampling: silent groups are replaced up to the bound, repeatably, and failures are never zeros."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from cm2.check import Reply  # noqa: E402
from cm2.checklist import Checklist, Task  # noqa: E402
from cm2.dialogue import Dialogue, Turn  # noqa: E402
from cm2.rollout.trace import Failure, Rollout, read_rollouts  # noqa: E402
from cm2.train.dynamic import draw  # noqa: E402
from cm2.train.processes import Processes  # noqa: E402
from cm2.train.rl import Batch, train_rl  # noqa: E402
from rollout.coffee_task import item  # noqa: E402
from train.saying_task import numbers, saying, settings, tiny_folder, weights, write  # noqa: E402


class Rolls:
    """Groups that are told by their task: even ones have a signal, those in `failing` have no rollout that counts."""

    def __init__(self, teaching=lambda i: i % 2 == 0, failing=()):
        self.teaching, self.failing, self.asked, self.places = teaching, failing, [], []

    def __call__(self, chosen, number, first):
        self.asked.append((list(chosen), number))
        self.places.append((list(chosen), number, first))
        return [[self.one(i)] for i in chosen]

    def one(self, i):
        failure = Failure("judge", "down") if i in self.failing else None
        return Rollout(task=str(i), dialogue=Dialogue(id=str(i), turns=[Turn("?")]), failure=failure)

    def signal(self, group):
        return group[0].valid and self.teaching(int(group[0].task))


def drawn(indices, most, rolls, tasks=40, seed=1):
    return draw(indices, tasks, most, seed, rolls, rolls.signal)


def names(groups):
    return [int(group[0].task) for group in groups]


def test_silent_groups_give_their_places_to_further_tasks_that_teach():
    rolls = Rolls()
    found = drawn([0, 1, 3, 4], 20, rolls)
    assert names(found.first) == [0, 1, 3, 4]
    kept = names(found.groups)
    assert kept[0] == 0 and kept[3] == 4 and all(i % 2 == 0 for i in kept)
    assert found.replaced == 2 and len(found.further) == sum(len(chosen) for chosen, _ in rolls.asked[1:])
    assert [number for _, number in rolls.asked] == list(range(len(rolls.asked)))
    again = names(found.everyone)
    assert len(set(again)) == len(again)  # no task twice in an update


def test_no_more_than_the_bound_is_rolled_and_what_is_left_stays():
    rolls = Rolls(teaching=lambda i: False)
    found = drawn([1, 3], 5, rolls)
    assert len(found.further) == 5 and found.replaced == 0 and names(found.groups) == [1, 3]
    assert len(Rolls().asked) == 0 and len(drawn([1, 3], 0, one := Rolls()).further) == 0 and len(one.asked) == 1


def test_the_tasks_end_before_the_bound_does():
    found = drawn([1, 3], 50, Rolls(teaching=lambda i: False), tasks=6)
    assert sorted(names(found.further)) == [0, 2, 4, 5]


def test_the_same_update_draws_the_same_and_another_one_another():
    draws = [names(drawn([1, 3, 5], 9, Rolls(), seed=seed).everyone) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_nothing_is_rolled_on_where_nobody_answers():
    rolls = Rolls(failing={1, 3})
    assert drawn([1, 3], 9, rolls).further == [] and len(rolls.asked) == 1
    rolls = Rolls(failing=set(range(40)) - {1, 3})  # it goes down after the first draw
    found = drawn([1, 3], 9, rolls)
    assert len(rolls.asked) == 2 and found.replaced == 0 and names(found.groups) == [1, 3]


class Threads(Processes):
    """Processes that are threads of this one: what each gives is seen by all."""

    def __init__(self, rank, ranks, meeting, given):
        super().__init__(rank, ranks)
        self.meeting, self.given = meeting, given

    def every(self, value):
        self.given[self.rank] = value
        self.meeting.wait(20)
        found = list(self.given)
        self.meeting.wait(20)
        return found


def drawn_by(ranks, indices, most, rolls, **settings):
    """What each of several processes draws, each with its part of the tasks."""
    meeting, given, size = threading.Barrier(ranks), [None] * ranks, len(indices) // ranks

    def one(rank):
        mine = Threads(rank, ranks, meeting, given)
        part = indices[rank * size : (rank + 1) * size]
        try:
            return draw(part, 40, most, 1, rolls[rank], rolls[rank].signal, mine, **settings)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks)))


@pytest.mark.parametrize("most", [0, 3, 9, 40])
@pytest.mark.parametrize("teaching", [lambda i: i % 2 == 0, lambda i: i % 7 == 0, lambda i: False])
@pytest.mark.parametrize("ranks", [2, 4])
def test_several_processes_draw_what_one_would(ranks, teaching, most):
    """Silent places stand in one process and replacements are rolled in another; places, bound and seeds are one's."""
    indices = [1, 3, 0, 5, 2, 7, 9, 4]  # with two processes the first has three of five odd ones
    alone = draw(indices, 40, most, 1, one := Rolls(teaching), one.signal)
    rolls = [Rolls(teaching) for _ in range(ranks)]
    several = drawn_by(ranks, indices, most, rolls)
    assert names([group for each in several for group in each.groups]) == names(alone.groups)
    assert names([group for each in several for group in each.first]) == indices
    assert all(names(each.further) == names(alone.further) for each in several)
    assert {each.replaced for each in several} == {alone.replaced}
    for number in range(1, len(one.asked)):  # each group is rolled once, at the place that one process would give it
        placed = [
            (first + at, i) for each in rolls for chosen, n, first in each.places if n == number
            for at, i in enumerate(chosen)
        ]  # fmt: skip
        assert sorted(placed) == list(enumerate(one.asked[number][0]))


def test_several_processes_stop_rolling_where_nobody_answers_and_go_on_where_one_does():
    down = [Rolls(failing={1, 3, 5, 7}) for _ in range(2)]
    assert all(each.further == [] for each in drawn_by(2, [1, 3, 5, 7], 9, down))
    half = [Rolls(failing={1, 3}) for _ in range(2)]
    assert all(each.replaced == 4 for each in drawn_by(2, [1, 3, 5, 7], 40, half))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Half of the tasks cannot be done by anybody, so their groups are silent."""
    impossible, reply = Reply(pattern="never said by anyone"), "assistant.content.user_visible_reply"
    tasks = [saying(i) for i in range(12)]
    tasks = [
        one if i % 2 else Task(one.dialogue, [Checklist(0, [item("C0", reply, 1.0, impossible)])])
        for i, one in enumerate(tasks)
    ]
    return write(tmp_path_factory.mktemp("data") / "tasks.jsonl", tasks)


def test_a_run_replaces_silent_groups_and_reports_the_reward_of_the_tasks_drawn_first(tmp_path, model_folder, data):
    plain = settings(data, tmp_path / "plain", model_folder, prompts=4, updates=3)
    train_rl(plain)
    sizes = {"prompts": 4, "updates": 3, "resample": 4}
    train_rl(settings(data, tmp_path / "run", model_folder, **sizes))
    told, before = numbers(tmp_path / "run"), numbers(tmp_path / "plain")
    assert all(0 < one["groups_resampled"] <= 4 for one in told)
    assert sum(one["groups_replaced"] for one in told) > 0
    for name in ("reward", "strict_pass", "groups_without_signal"):  # of the same tasks, under the same weights
        assert told[0][name] == before[0][name]
    assert told[0]["rollouts"] == before[0]["rollouts"] + 4 * told[0]["groups_resampled"]
    assert told[0]["grad_norm"] != before[0]["grad_norm"]
    stored = list(read_rollouts(str(tmp_path / "run" / "rollouts" / "step-00001.jsonl")))
    assert len(stored) == told[0]["rollouts"] and len({one.key for one in stored}) == len(stored)


def test_a_killed_run_draws_the_same_further_tasks(tmp_path, model_folder, data, monkeypatch):
    config = settings(data, tmp_path / "run", model_folder, prompts=4, resample=3)
    train_rl(settings(data, tmp_path / "straight", model_folder, prompts=4, resample=3))
    rolled = Batch.__call__

    def interrupted(self, indices, generation):
        rows = rolled(self, indices, generation)
        if generation == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return rows

    monkeypatch.setattr(Batch, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_rl(config)
    monkeypatch.setattr(Batch, "__call__", rolled)
    assert train_rl(config)["resumed_from"] == 2
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    mine, theirs = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_failed_rollouts_of_a_replacing_group_are_failures_and_no_zeros(tmp_path, model_folder, data, monkeypatch):
    """A third of the judgements fail: their rollouts leave mean and loss wherever they are, drawn first or later."""
    from cm2.judge import ChecksJudge

    judged, count = ChecksJudge.judge, [0]

    def failing(self, *args, **kwargs):
        count[0] += 1
        if count[0] % 3 == 0:
            raise RuntimeError("the judge is down")
        return judged(self, *args, **kwargs)

    monkeypatch.setattr(ChecksJudge, "judge", failing)
    seen = []
    rolled = Batch.__call__
    monkeypatch.setattr(Batch, "__call__", lambda self, *a: seen.append(rolled(self, *a)) or seen[-1])
    train_rl(settings(data, tmp_path / "run", model_folder, prompts=4, updates=2, resample=4))
    for number, one in enumerate(numbers(tmp_path / "run"), 1):
        lines = (tmp_path / "run" / "rollouts" / f"step-0000{number}.jsonl").read_text().splitlines()
        stored = [json.loads(line) for line in lines]
        failed = sum("failure" in rollout for rollout in stored)
        assert one["failures"] == failed > 0 and one["rollouts"] == len(stored)
        first = [rollout["score"]["reward"] for rollout in stored[:16] if "failure" not in rollout]
        assert one["reward"] == pytest.approx(sum(first) / len(first))
        rows = seen[number - 1]
        assert all(not any(row.mask) for row in rows if row.reward is None)
        for group in (rows[i : i + 4] for i in range(0, 16, 4)):  # advantages of those that count sum to zero
            assert sum(max(row.advantages, key=abs, default=0.0) for row in group) == pytest.approx(0, abs=1e-9)
