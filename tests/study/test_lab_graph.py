"""The granularity lab's shortcut is exact: its rollouts are the environment's, its credit is cm2.credit's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cm2.checklist import Checklist
from cm2.credit import Credit, advantages, score
from cm2.dialogue import Dialogue
from cm2.judge import ChecksJudge
from cm2.rollout import Environment
from cm2.verdict import Verdict
from cm2.worlds import world_of

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
MEMBERS = 160


class Flipping:
    """A judge that says the opposite where it is told to: [turn, step, item]."""

    def __init__(self, flipped: np.ndarray):
        self.flipped, self.inner = flipped, ChecksJudge()

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist) -> list[Verdict]:
        found = self.inner.judge(dialogue, turn, checklist)
        column = {item.id: c for c, item in enumerate(checklist.items)}
        for verdict in found:
            if self.flipped[turn, verdict.step, column[verdict.item]]:
                verdict.met = not verdict.met
        return found


@pytest.fixture(scope="module")
def lab():
    sys.path.insert(0, BENCHMARKS)
    from granularity_lab import estimators, graph, loop, policy, rollouts

    class Lab:
        pass

    found = Lab()
    found.estimators, found.graph, found.loop = estimators, graph, loop
    found.policy, found.rollouts = policy, rollouts
    yield found
    sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def played(lab):
    """Random rollouts by the graph, and the records of the same rollouts by the environment."""
    graph = lab.graph.Graph(lab.graph.tasks())
    policy = lab.policy.Policy(graph.width, lab.graph.SLOTS, 8, np.random.default_rng(3))
    policy.weights[1] *= 0
    task_of = np.repeat(np.arange(len(graph.tasks)), MEMBERS)
    noise = lab.rollouts.draw(graph, len(task_of), 0.1, 0.2, np.random.default_rng(5))
    noise.actions[::2] *= np.array([0.4, 0.7, 1.0, 1.0, 1.0])  # not all at once at the first reply
    groups = lab.rollouts.play(graph, policy, task_of, noise)
    records = []
    for i, task in enumerate(graph.tasks):
        records.append([])
        for member in range(MEMBERS):
            own = i * MEMBERS + member
            session = lab.graph.Spoiling(world_of(task).session())
            environment = Environment(task, session, Flipping(noise.flipped[own]), graph.limits)
            while not environment.done:
                turn, step = environment.turn, len(environment.dialogue.turns[environment.turn].steps)
                session.spoil = bool(noise.spoiled[own, turn, step])
                choices = graph.choices[i][turn]
                chosen = min(int(noise.actions[own, turn, step] * len(choices)), len(choices) - 1)
                environment.feed(choices[chosen])
            records[i].append(environment.record(member=member))
    return graph, groups, records


def scores(records):
    return [
        score(one.checklists, one.verdicts, [len(turn.steps) for turn in one.dialogue.turns], one.reference_turns)
        for one in records
    ]


def test_the_graph_takes_the_steps_that_the_environment_takes(played):
    _, groups, records = played
    for group, several in zip(groups, records, strict=True):
        for member, record in enumerate(several):
            counts = [len(turn.steps) for turn in record.dialogue.turns]
            assert group.steps[member, : len(counts)].tolist() == counts
            assert not group.steps[member, len(counts) :].any()


def test_the_graph_s_verdicts_are_the_judge_s(played):
    _, groups, records = played
    later = 0
    for group, several in zip(groups, records, strict=True):
        for member, one in enumerate(scores(several)):
            for (turn, _), ledger in one.ledgers.items():
                count = one.steps[turn]
                later += turn > 0 and count > 0
                assert (group.met[turn][member, :count] == ledger.met).all()
    assert later > 40  # noise opens gates: later turns are among what is compared


@pytest.mark.parametrize(
    "credit",
    [
        Credit(),
        Credit(normalise="std"),
        Credit(judge_flip=0.1),
        Credit(level="turn"),
        Credit(level="turn", turn_credit="to_go", turn_baseline="survivors"),
        Credit(level="step"),
        Credit(level="step", backfill=False, normalise="std"),
        Credit(level="blend"),
        Credit(level="blend", judge_flip=0.1),
    ],
    ids=lambda credit: f"{credit.level}-{credit.normalise}-{credit.turn_credit}-{credit.backfill}-{credit.judge_flip}",
)
def test_the_lab_s_advantages_are_the_package_s(lab, played, credit):
    graph, groups, records = played
    for i, (group, several) in enumerate(zip(groups, records, strict=True)):
        found = lab.estimators.factors(graph, i, group, credit)
        expected = advantages(scores(several), credit=credit)
        assert expected.signal
        for member, steps in enumerate(expected.steps):
            for (turn, step), value in steps.items():
                assert found[member, turn, step] == pytest.approx(value, abs=1e-9)
            assert np.count_nonzero(found[member]) <= len(steps)


def test_a_cell_gives_the_same_curve_again_and_learns(lab):
    graph = lab.graph.Graph(lab.graph.tasks()[:1])
    cell = lab.loop.Cell("blend", 0.0, False, 8, 0, 60, 0.02)
    first, again = lab.loop.run(graph, cell), lab.loop.run(graph, cell)
    assert first == again
    assert first["curve"]["true"][-1] > first["curve"]["true"][0] + 0.15


def test_the_policy_s_gradient_is_the_slope_of_the_log_probability(lab):
    rng = np.random.default_rng(0)
    policy = lab.policy.Policy(5, 4, 3, rng)
    features, allowed = rng.normal(size=(6, 5)), np.ones((6, 4), dtype=bool)
    allowed[:3, 3] = False
    taken, factors = np.array([0, 1, 2, 3, 0, 1]), rng.normal(size=6)
    found = policy.gradient(features, allowed, taken, factors)

    def value() -> float:
        pi, _ = policy.probabilities(features, allowed)
        return float(factors @ np.log(pi[np.arange(6), taken]))

    for weights, gradient in zip(policy.weights, found, strict=True):
        for at in np.ndindex(weights.shape):
            held = weights[at]
            weights[at] = held + 1e-6
            above = value()
            weights[at] = held - 1e-6
            below = value()
            weights[at] = held
            assert gradient[at] == pytest.approx((above - below) / 2e-6, abs=1e-6)
