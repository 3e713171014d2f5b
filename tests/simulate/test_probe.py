"""Calls that stray from a reference: valid, true, the same each time, and of every kind."""

from __future__ import annotations

from collections import Counter

import pytest

from cm2.checklist import Task
from cm2.simulate.probe import trial
from cm2.simulate.replay import call_key
from cm2.worlds import MakeConfig, make, world_of


@pytest.fixture(scope="module")
def trials():
    tasks = [Task(dialogue) for dialogue in make(MakeConfig(count=30, seed=2))]
    return [trial(task, world_of(task), 0) for task in tasks]


def test_the_answers_are_those_of_the_true_world(trials):
    for one in trials:
        session = world_of(one.task).session()
        for probe in one.probes:
            response = session.respond(probe.call)
            assert (response.content, response.origin) == (probe.content, "simulated")


def test_every_kind_of_straying_occurs(trials):
    kinds = Counter(probe.kind for one in trials for probe in one.probes)
    assert min(kinds[kind] for kind in ("reference", "changed", "extra", "reread", "repeated")) >= 5
    recorded = {call_key(call) for one in trials for _, _, _, call, _ in one.task.dialogue.calls()}
    off = sum(call_key(probe.call) not in recorded for one in trials for probe in one.probes)
    assert off >= 40 and sum(probe.error for one in trials for probe in one.probes) >= 20


def test_a_reread_has_a_write_between_and_a_repetition_has_none(trials):
    for one in trials:
        for index, probe in enumerate(one.probes):
            if probe.before is None:
                continue
            earlier = one.probes[probe.before]
            assert call_key(earlier.call) == call_key(probe.call)
            between = any(other.wrote for other in one.probes[probe.before : index])
            assert between == (probe.kind == "reread")
            if probe.kind == "repeated":
                assert earlier.content == probe.content


def test_trials_are_the_same_each_time_and_differ_by_seed(trials):
    task = trials[0].task
    assert trial(task, world_of(task), 0).probes == trials[0].probes
    assert any(trial(task, world_of(task), seed).probes != trials[0].probes for seed in range(1, 4))


def test_the_reference_itself_is_left_as_it_is(trials):
    fresh = list(make(MakeConfig(count=30, seed=2)))
    assert [one.task.dialogue for one in trials] == fresh
