"""Detectors of drift: the formula, the state, how seldom they cry wolf and how soon they see a fall."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.drift import KEPT, MOST, Adwin, Change, Cusum


def falls(detector: Adwin | Cusum, rate: float, count: int, seed: int) -> list[int]:
    """Where, in a stream of that rate, a fall is found (from 1)."""
    draw = random.Random(seed)
    found = []
    for number in range(1, count + 1):
        change = detector.add(draw.random() < rate)
        if change is not None and change.fell:
            found.append(number)
    return found


@given(results=st.lists(st.booleans(), max_size=200), rate=st.floats(0.5, 0.99), drop=st.floats(0.05, 0.4))
def test_cusum_is_the_formula(results: list[bool], rate: float, drop: float) -> None:
    detector, every = Cusum(rate, drop, 20), 20.0
    fine, worse, total = rate, max(rate - drop, 0.005), 0.0
    for held in results:
        likely = (worse if held else 1 - worse) / (fine if held else 1 - fine)
        total = max(0.0, total + math.log(likely))
        expected = total >= math.log(every)
        change = detector.add(held)
        assert (change is not None) == expected
        if expected:
            assert change == Change(pytest.approx(rate), pytest.approx(worse)) and change.fell
            total = 0.0
        assert detector.state == pytest.approx(total)


def test_cusum_by_hand() -> None:
    detector = Cusum(0.9, 0.4, 20)  # p1 = 0.5: a miss adds log(0.5/0.1) = 1.609, a hit log(0.5/0.9) = -0.588
    assert detector.add(False) is None and detector.state == pytest.approx(1.6094, abs=1e-4)
    assert detector.add(True) is None and detector.state == pytest.approx(1.0217, abs=1e-4)
    assert detector.add(False) is None and detector.state == pytest.approx(2.6311, abs=1e-4)
    assert detector.add(False) is not None and detector.state == 0.0  # 4.24 >= log(20) = 2.996


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_at_the_edge_lets_no_single_result_decide(rate: float) -> None:
    detector = Cusum(rate, 0.1, 10_000)
    assert all(math.isfinite(detector.add(held) is None and detector.state) for held in (True, False, True))
    assert Cusum(1.0, 0.1, 10_000).add(False) is None


def test_false_alarms_are_as_rare_as_asked() -> None:
    # 60 streams of 1,000: at most 60 alarms are promised of `every=1000`, and the bound is not tight
    assert sum(len(falls(Cusum(0.9, 0.1, 1000), 0.9, 1000, seed)) for seed in range(60)) <= 20
    assert sum(len(falls(Adwin(0.002), 0.9, 1000, seed)) for seed in range(60)) <= 2
    # a better rate than the one that is fine is no reason to cry either
    assert sum(len(falls(Cusum(0.9, 0.1, 1000), 0.95, 1000, seed)) for seed in range(60)) <= 2


@pytest.mark.parametrize(("make", "delay"), [(lambda: Cusum(0.95, 0.1, 1000), 120), (lambda: Adwin(), 150)])
def test_a_fall_of_a_fifth_is_seen_in_time(make: object, delay: int) -> None:
    delays = []
    for seed in range(40):
        detector = make()  # type: ignore[operator]
        falls(detector, 0.95, 500, seed)
        found = falls(detector, 0.75, 1000, 1000 + seed)
        assert found, f"stream {seed}: the fall was never seen"
        delays.append(found[0])
    assert mean(delays) < delay


def test_a_rise_is_no_fall() -> None:
    detector = Adwin()
    falls(detector, 0.5, 500, 0)
    draw, changes = random.Random(1), []
    for _ in range(500):
        changes.append(detector.add(draw.random() < 0.95))
    seen = [change for change in changes if change is not None]
    assert seen and not any(change.fell for change in seen)


def test_adwin_of_its_state_is_the_same_adwin() -> None:
    draw = random.Random(3)
    results = [draw.random() < (0.9 if number % 2000 < 1000 else 0.6) for number in range(MOST + 3000)]
    whole, parts, found = Adwin(), Adwin(), [[], []]
    for number, held in enumerate(results):
        if number % 997 == 0:
            parts = Adwin(seen=parts.state)
        for at, detector in enumerate((whole, parts)):
            if detector.add(held) is not None:
                found[at].append(number)  # type: ignore[attr-defined]
    assert found[0] == found[1] and len(found[0]) >= 4
    assert whole.state == parts.state


def test_what_adwin_remembers_is_bounded() -> None:
    detector = Adwin()
    for _ in range(MOST):
        detector.add(True)
    assert len(detector.state) == KEPT
