"""Power: enumeration against every outcome written out, against simulation, and against the formula it begins with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cm2.assure.paired import mcnemar
from cm2.assure.power import (
    cells,
    correlation_of,
    detectable,
    detectable_mean,
    mcnemar_power,
    miettinen,
    needed_pairs,
    needed_tasks,
    plan,
)
from cm2.errors import ConfigError


@pytest.mark.parametrize(
    ("gain", "loss", "alpha"), [(0.4, 0.1, 0.05), (0.25, 0.25, 0.1), (0.6, 0.0, 0.05), (0.3, 0.7, 0.05)]
)
def test_power_is_the_chance_of_every_outcome_that_is_significant(gain, loss, alpha):
    n, total = 12, 0.0
    for better in range(n + 1):
        for worse in range(n + 1 - better):
            chance = stats.multinomial.pmf((better, worse, n - better - worse), n, (gain, loss, 1 - gain - loss))
            total += chance * (mcnemar(worse, better) <= alpha)
    assert mcnemar_power(n, gain, loss, alpha) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("n", [5, 20, 77, 300])
def test_the_exact_test_keeps_its_promise(n):
    """Without a difference no more than alpha of all runs are alarms, and fewer where little differs."""
    assert mcnemar_power(n, 0.1, 0.1) <= 0.05 and mcnemar_power(n, 0.01, 0.01) <= mcnemar_power(n, 0.4, 0.4) <= 0.05


@pytest.mark.parametrize(("gain", "loss"), [(0.12, 0.04), (0.3, 0.15), (0.08, 0.0), (0.05, 0.2)])
def test_the_needed_number_is_the_smallest_with_that_power(gain, loss):
    n = needed_pairs(gain, loss)
    assert mcnemar_power(n, gain, loss) >= 0.8 > mcnemar_power(n - 1, gain, loss)
    assert needed_pairs(loss, gain) == n


def test_simulated_experiments_of_that_size_see_the_difference_as_often_as_asked():
    gain, loss = 0.12, 0.04
    n = needed_pairs(gain, loss)
    rng = np.random.default_rng(0)
    tables = rng.multinomial(n, (gain, loss, 1 - gain - loss), 4000)
    ps = {key: mcnemar(key[1], key[0]) for key in {(int(g), int(l)) for g, l, _ in tables}}
    seen = np.mean([ps[int(g), int(l)] <= 0.05 for g, l, _ in tables])
    assert seen == pytest.approx(mcnemar_power(n, gain, loss), abs=4 * math.sqrt(0.16 / 4000))


def test_the_formula_by_hand_and_near_the_exact_number():
    """psi 0.16, d 0.08: (1.95996 · 0.16 + 0.84162 · sqrt(0.0256 - 0.0064 · 3.16 / 4))² / (0.16 · 0.0064)."""
    root = math.sqrt(0.0256 - 0.0064 * 3.16 / 4)
    by_hand = (1.959964 * 0.16 + 0.841621 * root) ** 2 / (0.16 * 0.0064)
    assert miettinen(0.12, 0.04) == math.ceil(by_hand) == 185
    assert needed_pairs(0.12, 0.04) == pytest.approx(185, rel=0.15)


def test_no_difference_needs_no_number():
    assert needed_pairs(0.1, 0.1) is None and needed_tasks(0.0, 0.3) is None and needed_tasks(0.1, 0.0) is None


def test_a_tiny_difference_is_answered_by_the_formula():
    assert needed_pairs(0.1005, 0.1) == miettinen(0.1005, 0.1) > 50_000


@pytest.mark.parametrize(("n", "share"), [(50, 0.2), (200, 0.15), (1000, 0.05), (30, 0.0)])
def test_what_can_be_detected_is_just_what_has_the_power(n, share):
    least = detectable(n, share)
    psi = max(share, least)
    assert mcnemar_power(n, (psi + least) / 2, (psi - least) / 2) >= 0.8
    below = 0.95 * least
    psi = max(share, below)
    assert mcnemar_power(n, (psi + below) / 2, (psi - below) / 2) < 0.8


def test_a_handful_of_dialogues_shows_nothing_whatever_happens():
    assert detectable(5, 0.5) is None and detectable(6, 1.0) == pytest.approx(1.0, abs=0.1)


def test_means_of_several_runs_have_the_normal_formula():
    n = needed_tasks(0.05, 0.3)
    assert n == math.ceil(((1.959964 + 0.841621) * 0.3 / 0.05) ** 2) == 283
    assert detectable_mean(n, 0.3) == pytest.approx(0.05, abs=2e-4)


def test_a_plan_for_each_correlation_needs_fewer_the_more_alike_the_agents_are():
    found = plan(0.8, 0.05)
    assert [one.correlation for one in found] == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert [one.pairs for one in found] == sorted((one.pairs for one in found), reverse=True)
    assert found[0].discordance == pytest.approx(0.8 * 0.15 + 0.2 * 0.85)
    assert all(one.power >= 0.8 for one in found)


def test_a_plan_knows_correlation_and_discordance_from_each_other():
    gain, loss = cells(0.8, 0.05, 0.5)
    assert gain - loss == pytest.approx(0.05)
    assert correlation_of(0.8, 0.05, gain + loss) == pytest.approx(0.5)
    (by_share,) = plan(0.8, 0.05, discordance=gain + loss)
    (by_phi,) = plan(0.8, 0.05, correlation=0.5)
    assert by_share.pairs == by_phi.pairs and by_share.correlation == pytest.approx(0.5)


def test_a_fall_takes_as_many_as_a_rise():
    assert plan(0.85, -0.05, discordance=0.15)[0].pairs == plan(0.8, 0.05, discordance=0.15)[0].pairs


def test_the_correlation_is_that_of_a_table_of_pairs():
    gain, loss = cells(0.7, 0.1, 0.3)
    both = 0.7 - loss
    shares = np.array([both, gain, loss, 1 - both - gain - loss])
    values = np.repeat([[1, 1], [0, 1], [1, 0], [0, 0]], np.round(1e6 * shares).astype(int), axis=0)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rate": 0.98, "lift": 0.05}, "must be from 0 to 1"),
        ({"rate": 0.8, "lift": 0.0}, "cannot be seen"),
        ({"rate": 0.8, "lift": 0.05, "correlation": 0.99}, "cannot have the correlation"),
        ({"rate": 0.8, "lift": 0.05, "discordance": 0.01}, "can be discordant"),
        ({"rate": 0.8, "lift": 0.05, "discordance": 0.1, "correlation": 0.1}, "give one of them"),
    ],
)
def test_agents_that_cannot_be_are_refused(asked, message):
    with pytest.raises(ConfigError, match=message):
        plan(asked.pop("rate"), asked.pop("lift"), **asked)


def test_perfect_agents_have_no_correlation():
    (found,) = plan(0.9, 0.1, discordance=0.1)
    assert found.correlation is None and found.pairs == needed_pairs(0.1, 0.0)
