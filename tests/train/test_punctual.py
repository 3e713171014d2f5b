"""Punctual: what is decoded with what does not depend on when a judge answers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

from cm2.checklist import Task  # noqa: E402
from cm2.dialogue import Dialogue, Step, Turn  # noqa: E402
from cm2.errors import CM2Error  # noqa: E402
from cm2.rollout import Environment, Limits  # noqa: E402
from cm2.rollout.driver import Driver  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.simulate import World  # noqa: E402
from cm2.train.punctual import Punctual  # noqa: E402
from rollout.tiny_models import talkative  # noqa: E402

SAMPLING = Sampling(max_step_tokens=12, max_tokens=700, seed=5)
NAMES = ("a", "b", "c", "d")
SLOW = 0.15
"""Seconds: hundreds of forward passes of the tiny model."""
TIMINGS = {
    "at once": {},
    "one late": {"a": SLOW},
    "in reverse": {"a": 0.09, "b": 0.06, "c": 0.03},
    "all late": dict.fromkeys(NAMES, 0.03),
}


@pytest.fixture(scope="module")
def chat():
    return talkative()


class Spy:
    """An engine that takes down what shares a forward pass."""

    def __init__(self, engine):
        self.engine, self.passes = engine, []

    def start(self, prompts):
        self.passes.append(("start", [tuple(ids) for ids in prompts]))
        return self.engine.start(prompts)

    def extend(self, rows, ids):
        self.passes.append(("extend", [tuple(one) for one in ids]))
        return self.engine.extend(rows, ids)

    def fork(self, rows):
        return self.engine.fork(rows)

    def close(self, rows):
        return self.engine.close(rows)


class Thinking(Environment):
    """An environment that takes its time, as one whose judge asks a model does."""

    def __init__(self, task, seconds, error=None):
        super().__init__(task, World(task.dialogue).session(), None, Limits(steps=6))
        self.seconds, self.error = seconds, error

    @property
    def asynchronous(self):
        return True

    async def feed_async(self, step, **told):
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return self.feed(step, **told)

    async def stop_async(self, *reason):
        await asyncio.sleep(self.seconds)
        return self.stop(*reason)


def said(name):
    return Task(Dialogue(name, [Turn(f"say {n} {name}", [Step(reply="yes")]) for n in range(3)]))


def rolled(chat, timing, kind=Punctual, group=2, **settings):
    """What shared a pass, and the rollouts."""
    driver = kind(*chat, SAMPLING, workers=1, **settings)
    spy = driver.engines[0] = Spy(driver.engines[0])
    environments = [Thinking(said(name), timing.get(name, 0.0)) for name in NAMES for _ in range(group)]
    rollouts = driver.run(environments)
    return spy.passes, [[(s.tokens, s.logprobs) for s in one.segments] for one in rollouts]


def test_what_a_driver_decodes_together_hangs_on_when_answers_come(chat):
    """The cause: with these timings the plain driver makes other batches. (What is said may be the same, or not.)"""
    assert rolled(chat, {}, Driver)[0] != rolled(chat, TIMINGS["one late"], Driver)[0]


@pytest.mark.parametrize("overlap", [0, 3, 64])
def test_a_punctual_one_makes_the_same_batches_and_the_same_numbers_whenever_they_come(chat, overlap):
    wanted = rolled(chat, {}, overlap=overlap)
    for name, timing in TIMINGS.items():
        assert rolled(chat, timing, overlap=overlap) == wanted, name


def test_with_less_room_than_rollouts_too(chat):
    wanted = rolled(chat, {}, overlap=2, batch=3)
    assert rolled(chat, TIMINGS["in reverse"], overlap=2, batch=3) == wanted


class Sleeper:
    """A row of one rollout whose answer is there already."""

    def __init__(self, index, answered=True):
        self.index, self.answer = index, Future()
        self.lives, self.slept = [self], 0
        if answered:
            self.answer.set_result("seen")


def waking(overlap):
    """A driver without a model, and what it has woken."""
    driver = Punctual.__new__(Punctual)
    driver.overlap, woken = overlap, []
    driver._answered = lambda live, seen: woken.append(live.index)
    return driver, woken


def test_an_answer_takes_as_many_passes_as_it_was_said_to():
    driver, woken = waking(2)
    open_, asleep = [], [first := Sleeper(1)]
    when = []
    for before_pass in range(1, 6):  # the first one slept in after pass 0, the second after pass 1
        driver._wake(open_, asleep, idle=False)
        when += [(before_pass, index) for index in woken]
        woken.clear()
        if before_pass == 1:
            asleep.append(second := Sleeper(2))
    assert when == [(3, 1), (4, 2)] and open_ == [first, second] and asleep == [] and first.slept == second.slept == 0


def test_with_nothing_else_to_do_time_jumps_to_the_next_answer_and_those_behind_keep_their_distance():
    driver, woken = waking(10)
    asleep = [Sleeper(1)]
    driver._wake([], asleep, idle=False)
    driver._wake([], asleep, idle=False)  # 1 has slept through one pass
    asleep += [Sleeper(2)]
    driver._wake([], asleep, idle=True)
    assert woken == [1]
    driver._wake([], asleep, idle=False)
    assert woken == [1]  # 2 came two passes later
    driver._wake([], asleep, idle=False)
    assert woken == [1, 2]


def test_decoding_waits_for_an_answer_whose_time_has_come():
    driver, woken = waking(0)
    late = Sleeper(1, answered=False)
    timer = threading.Timer(0.05, lambda: late.answer.set_result("seen"))
    timer.start()
    driver._wake([], [late, Sleeper(2)], idle=False)
    timer.join()
    assert woken == [1, 2]  # by when they fell asleep, not by when they were answered


def test_what_fails_in_a_world_ends_the_run_and_leaves_nothing_asleep(chat):
    driver = Punctual(*chat, SAMPLING, overlap=4, workers=1)
    environments = [Thinking(said(name), 0.0, CM2Error("no more") if name == "b" else None) for name in NAMES]
    with pytest.raises(CM2Error, match="no more"):
        driver.run(environments)
    again = driver.run([Thinking(said(name), 0.0) for name in NAMES])
    assert len(again) == 4
