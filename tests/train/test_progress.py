"""The progress line says when the work will end: by count, by time, whichever is sooner."""

import time

import pytest

from cm2.train.progress import Live


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_follows_from_the_speed_so_far(clock):
    live = Live("work", 10, done=2)
    assert live.left is None
    clock[0] += 30
    live.update(5)  # three units in 30 s: five more take 50 s
    assert live.left == pytest.approx(50)


def test_time_ends_the_work_before_the_count_does(clock):
    live = Live("work", 1000, seconds=100)
    clock[0] += 40
    live.update(2, reward=0.5)
    assert live.left == pytest.approx(60)
    clock[0] += 90
    assert live.left == 0


def test_without_a_terminal_a_plain_line_appears_now_and_then(clock, capsys):
    live = Live("rl", 1000, seconds=100, quiet=10)
    live.update(1, reward=0.25)
    assert not capsys.readouterr().err
    clock[0] += 20
    live.update(2, reward=0.5)
    assert capsys.readouterr().err.strip() == "rl 2 reward 0.5 · 80 s left"
