"""Agreement with a true world, counted by hand on a tiny one and measured on the sample worlds."""

from __future__ import annotations

import asyncio
import json

import msgspec
import numpy as np
import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Tool, ToolCall, Turn
from cm2.errors import ConfigError, DataError
from cm2.llm import BudgetReached
from cm2.simulate import SimulatorConfig, World
from cm2.simulate.fidelity import Forms, compare, measure, play
from cm2.simulate.probe import Probe, Trial
from cm2.simulate.rate import rate_of
from cm2.worlds import MakeConfig, make, world_of
from rollout.coffee_task import made
from simulate.askers import Door, call_in, filled, hashed, section

RED = {"id": "A1", "price": 5, "color": "red"}
TASK = Task(Dialogue("d", [Turn("u", [made("get_item", {"id": "A1"}, RED)])], [Tool("get_item"), Tool("set_price")]))


def probe(kind, name, arguments, answer, wrote=False, before=None) -> Probe:
    error = "error" in answer
    return Probe(0, kind, ToolCall(name, arguments), json.dumps(answer), error, wrote, before)


TRIAL = Trial(
    TASK,
    [
        probe("reference", "get_item", {"id": "A1"}, RED),
        probe("extra", "get_item", {"id": "B2"}, {"id": "B2", "price": 7, "color": "blue"}),
        probe("extra", "get_item", {"id": "C3"}, {"error": "no C3"}),
        probe("reference", "set_price", {"id": "A1", "price": 9}, {"id": "A1", "price": 9}, wrote=True),
        probe("reread", "get_item", {"id": "A1"}, RED | {"price": 9}, before=0),
        probe("reread", "get_item", {"id": "B2"}, {"id": "B2", "price": 7, "color": "blue"}, before=1),
    ],
)


class Lines:
    """A backend that says its lines one after the other."""

    executable = False

    def __init__(self, *lines):
        self.lines = list(lines)

    def session(self):
        return self

    def respond(self, call, context):
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return json.dumps(line)


def counts(*lines) -> dict:
    world = World(TASK.dialogue, backend=Lines(*lines), replay="same_state")
    score = asyncio.run(play(TRIAL, world, Forms([TRIAL])))
    return {place: value for place, value in score.counts.items() if place[0] == "all"} | {"answers": score.answers}


TRUE = [{"id": "B2", "price": 7, "color": "blue"}, {"error": "no C3"}, {"id": "A1", "price": 9}, RED | {"price": 9}]


def test_a_true_simulator_is_right_in_everything():
    assert counts(*TRUE, TRUE[0]) == {
        ("all", "form"): (6, 6),
        ("all", "error"): (6, 6),
        ("all", "facts"): (10, 10),
        ("all", "writes"): (1, 1),
        ("all", "coherence"): (7, 7),
        "answers": {"replayed": 1, "simulated": 5},
    }


def test_a_free_value_may_be_any_as_long_as_it_stays():
    other = {"id": "B2", "price": 3, "color": "green"}
    found = counts(other, *TRUE[1:], other)
    assert found["all", "facts"] == (10, 10) and found["all", "coherence"] == (7, 7)


def test_each_kind_of_fault_is_counted_where_it_belongs():
    lines = [
        {"id": "B2", "price": "1", "color": "blue"},  # form; its price is free
        {"id": "C3", "price": 1, "color": "x"},  # an error in truth
        {"id": "A1", "price": 9},
        RED,  # the write does not show: a wrong fact, a write missed, and not what the write said
        {"id": "B2", "price": 2, "color": "blue"},  # it said "1" before
    ]
    assert counts(*lines) == {
        ("all", "form"): (5, 6),
        ("all", "error"): (5, 6),
        ("all", "facts"): (9, 10),
        ("all", "writes"): (0, 1),
        ("all", "coherence"): (5, 7),
        "answers": {"replayed": 1, "simulated": 5},
    }


def test_rows_that_the_truth_does_not_have_are_wrong_facts():
    rows = [{"id": "A1", "n": 1}, {"id": "B2", "n": 2}]
    reference = Dialogue("d", [Turn("u", [made("get_rows", {"q": "all"}, rows)])], [Tool("get_rows")])
    one = Trial(
        Task(reference),
        [
            Probe(0, "changed", ToolCall("get_rows", {"q": "some"}), json.dumps(rows[:1]), False, False),
            Probe(0, "changed", ToolCall("get_rows", {"q": "none"}), "[]", False, False),
            Probe(0, "changed", ToolCall("get_rows", {"q": "no"}), "[]", False, False),
        ],
    )
    world = World(reference, backend=Lines(rows, rows, []))
    score = asyncio.run(play(one, world, Forms([one])))
    # "some": two leaves of A1 right, the row B2 wrong; "none": an answer where nothing is; "no": right
    assert score.counts["all", "facts"] == (3, 5)


def test_ids_that_both_sides_hand_out_differently_are_translated():
    book, get = Tool("book_room"), Tool("get_booking")
    reference = Dialogue("d", [Turn("u", [made("book_room", {"room": "R1"}, {"booking_id": "T10"})])], [book, get])
    one = Trial(
        Task(reference),
        [
            probe("changed", "book_room", {"room": "R2"}, {"booking_id": "T55"}, wrote=True),
            probe("extra", "get_booking", {"booking_id": "T55"}, {"booking_id": "T55", "room": "R2"}),
        ],
    )
    seen = []

    class Own(Lines):
        def respond(self, call, context):
            seen.append(call.arguments)
            return super().respond(call, context)

    world = World(reference, backend=Own({"booking_id": "S77"}, {"booking_id": "S77", "room": "R2"}))
    score = asyncio.run(play(one, world, Forms([one])))
    assert seen[1] == {"booking_id": "S77"} and score.counts["all", "facts"] == (2, 2)


def test_a_trial_ends_where_the_simulator_fails_and_is_counted():
    make_world = lambda task, seed: World(task.dialogue, backend=Lines(TRUE[0], TimeoutError("slow")))  # noqa: E731
    found = measure("lines", [TRIAL], make_world)
    assert (found.answers, found.failed) == (2, 1) and "TimeoutError: slow" in found.problems[0]
    assert found.rates["all"]["error"].right == found.rates["all"]["error"].of == 2


def test_what_the_next_trial_would_meet_too_stops_the_measurement():
    door = Door(lambda request, attempt: BudgetReached("US$ 1 is reached"))
    tasks = [Task(dialogue) for dialogue in make(MakeConfig(count=3, seed=1))]
    with pytest.raises(BudgetReached):
        list(compare(tasks, world_of, [SimulatorConfig(kind="llm")], door))


# --- rates


def test_a_rate_is_pooled_over_dialogues():
    found = rate_of([(1, 2), (3, 3), (0, 0)])
    assert (found.rate, found.right, found.of, found.dialogues) == (0.8, 4, 5, 2)
    assert rate_of([(0, 0)]) is None and rate_of([]) is None


def test_an_interval_comes_from_resampling_dialogues():
    counts = [(n % 4, 3 + n % 2) for n in range(24)]
    found = rate_of(counts)
    rng = np.random.default_rng(7)
    data = np.array(counts)
    drawn = [data[rng.integers(0, 24, 24)].sum(axis=0) for _ in range(4000)]
    low, high = np.quantile([k / n for k, n in drawn], [0.025, 0.975])
    assert abs(found.low - low) < 0.02 and abs(found.high - high) < 0.02


def test_dialogues_that_all_agree_give_an_exact_interval_over_dialogues():
    found = rate_of([(5, 5)] * 10)
    assert (found.rate, found.high) == (1.0, 1.0) and abs(found.low - 0.025 ** (1 / 10)) < 1e-9
    assert abs(rate_of([(0, 7)] * 10).high - (1 - 0.025 ** (1 / 10))) < 1e-9
    assert (rate_of([(1, 2)]).low, rate_of([(1, 2)]).high) == (0.0, 1.0)


# --- the sample worlds


@pytest.fixture(scope="module")
def tasks():
    return [Task(dialogue) for dialogue in make(MakeConfig(count=20, seed=5))]


def oracle(tasks) -> Door:
    """Answers by the true back end: it plays the session's changes and then the call."""
    backends = {task.dialogue.id: world_of(task).backend for task in tasks}

    def reply(request, attempt):
        desk = backends[request.affinity].session()
        for line in section(request, "What this session has changed").splitlines():
            if line.startswith("call: "):
                name, _, arguments = line.removeprefix("call: ").partition("(")
                desk.respond(ToolCall(name, json.loads(arguments.removesuffix(")"))))
        name, arguments = call_in(request)
        return {"answer": json.loads(desk.respond(ToolCall(name, arguments)))}

    return Door(reply)


def test_an_oracle_is_right_in_everything(tasks):
    door = oracle(tasks)
    always, same_state = compare(
        tasks, world_of, [SimulatorConfig(kind="llm", replay=replay) for replay in ("always", "same_state")], door
    )
    for origin in ("all", "simulated", "replayed"):
        assert {name: rate.rate for name, rate in same_state.rates[origin].items()} == dict.fromkeys(
            ("form", "error", "facts", "writes", "coherence"), 1.0
        )
    assert same_state.failed == 0 and not door.reasons and same_state.simulated > always.simulated > 30
    # what is replayed whatever was written since does not show other writes: no simulator can mend that
    assert always.rates["replayed"]["writes"].rate < 0.9
    for name in ("form", "error", "facts"):
        assert always.rates["simulated"][name].rate == 1.0


def test_junk_of_the_right_form_has_that_and_nothing_else(tasks):
    (found,) = compare(tasks, world_of, [SimulatorConfig(kind="llm", replay="same_state")], Door(hashed))
    simulated = found.rates["simulated"]
    assert 0.8 < simulated["form"].rate < 1  # nobody knows the form of a tool that was never recorded
    assert simulated["facts"].rate < 0.2 and simulated["error"].rate < 0.8


def test_a_model_that_always_refuses_agrees_only_on_errors(tasks):
    def refuse(request, attempt):
        return {"answer": filled(request.schema["properties"]["answer"]["anyOf"][1], "no")}

    (found,) = compare(tasks, world_of, [SimulatorConfig(kind="llm", replay="same_state")], Door(refuse))
    simulated = found.rates["simulated"]
    assert "facts" not in simulated and 0.1 < simulated["error"].rate < 0.6


def test_the_embedded_simulators_are_measured_on_the_same_calls(tasks):
    found = list(compare(tasks, world_of, [SimulatorConfig(kind=kind) for kind in ("replay", "fallback", "schema")]))
    assert len({one.answers for one in found}) == 1 and all(one.failed == 0 for one in found)
    assert all(one.rates["all"]["form"].rate == 1.0 for one in found)
    assert all(one.rates["all"]["facts"].rate > 0.9 for one in found)
    assert found[1].rates["all"]["error"].rate > 0.8


def test_the_truth_cannot_be_measured_and_nothing_neither(tasks):
    with pytest.raises(ConfigError, match="true world"):
        list(compare(tasks, world_of, [SimulatorConfig()]))
    with pytest.raises(DataError, match="no dialogues"):
        list(compare([], world_of, [SimulatorConfig(kind="replay")]))


def test_a_row_without_a_world_is_told_as_such_and_a_broken_world_as_broken():
    with pytest.raises(DataError, match=r"no executable world.*cm2 worlds make") as without:
        list(compare([TASK], world_of, [SimulatorConfig(kind="replay")]))
    assert f"dialogue {TASK.dialogue.id}" in str(without.value) and "'world'" not in str(without.value)
    broken = Task(msgspec.structs.replace(TASK.dialogue, meta={"world": {"seed": 1}}))
    with pytest.raises(DataError, match="cannot be run in its world"):
        list(compare([broken], world_of, [SimulatorConfig(kind="replay")]))
