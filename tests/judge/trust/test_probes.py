"""Probes around a training judge: nothing of them is paid for, everything of them is counted."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest
from trust_builders import Oracle, item, rolled, world_tasks

from cm2.checklist import Checklist, Task
from cm2.credit import score
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import ConfigError
from cm2.judge import ChecksJudge
from cm2.judge.agreement import Confusion, Rate
from cm2.judge.aside import Aside, AsyncAside, aside, hold_out
from cm2.judge.calibration import Calibration, Group
from cm2.judge.canary import pool_of
from cm2.judge.gold import sample, second_opinions
from cm2.judge.probes import Probes, Probing
from cm2.judge.watch import Watching


def truth(dialogue, turn, step, one):
    """What the reply says: the last word of the question stands in it."""
    reply = dialogue.turns[turn].steps[step].reply or ""
    return one.question.split()[-1].strip("?") in reply


def small_task(words=("red", "green", "blue", "gold"), id="t") -> Task:
    items = [item(f"C{i}", f"Does it say {word}?", weight=1 / len(words)) for i, word in enumerate(words)]
    return Task(Dialogue(id, [Turn("hi", [Step(reply="red green blue gold")])]), [Checklist(0, items)])


def obliging(dialogue, turn, step, one):
    """A judge that says yes to everything."""
    return True


def test_a_judge_asked_aside_gives_exactly_the_verdicts_of_the_judge_alone():
    pool = pool_of(world_tasks())
    for task in world_tasks():
        alone = rolled(task).verdicts
        probed = aside(ChecksJudge(), pool, canaries=3, given=2, seed=5)
        assert rolled(task, judge=probed).verdicts == alone


def test_credit_does_not_see_what_was_put_aside():
    task = world_tasks()[0]
    judge = aside(Oracle(obliging), pool_of(world_tasks()), canaries=2)
    rollout = rolled(task, judge=judge)
    steps = [len(turn.steps) for turn in rollout.dialogue.turns]
    found = score(task.checklists, rollout.verdicts, steps, rollout.reference_turns)
    assert found.reward == pytest.approx(score(task.checklists, rolled(task).verdicts, steps, len(steps)).reward)
    kept = judge.take(rollout.dialogue)
    assert kept.canaries and all(bad for _, bad in kept.canaries), "an obliging judge passes every canary"
    assert judge.take(rollout.dialogue).canaries == [], "taken once"


def test_an_awaited_judge_is_awaited():
    class Awaited(Oracle):
        async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
            await asyncio.sleep(0)
            return self.judge(dialogue, turn, checklist, since)

    task = world_tasks()[0]
    judge = aside(Awaited(obliging), pool_of(world_tasks()), canaries=1)
    assert isinstance(judge, AsyncAside)
    assert not hasattr(aside(ChecksJudge()), "judge_async")
    found = asyncio.run(judge.judge_async(task.dialogue, 0, task.checklists[0]))
    assert {v.item for v in found} == {one.id for one in task.checklists[0].items}
    assert len(judge.inner.asked[0]) == len(task.checklists[0].items) + 1
    assert len(judge.take(task.dialogue).canaries) == 1


def test_held_out_items_are_spared_ones_and_the_rest_still_sums_to_one():
    shares = []
    for task in world_tasks():
        paid, held = hold_out(task, 0.5, seed=1)
        for before, after in zip(task.checklists, paid.checklists, strict=True):
            gone = {one.id for one in held.get((before.turn, before.variant), [])}
            assert {one.id for one in before.items} == gone | {one.id for one in after.items}
            assert after.items
            assert sum(one.weight for one in after.items) == pytest.approx(1)
            needed = {id for one in before.items for id in one.depends_on}
            assert not gone & needed
            assert not any(one.required_for_next_turn for one in before.items if one.id in gone)
        shares.append(sum(map(len, held.values())))
    assert sum(shares) > 10
    assert hold_out(world_tasks()[0], 0.0)[0] == world_tasks()[0]
    assert hold_out(world_tasks()[0], 0.5, 1) == hold_out(world_tasks()[0], 0.5, 1)


def test_held_out_items_are_judged_and_never_paid():
    probes = Probes(Probing(hold_out=0.5), Oracle(truth), [small_task()], seed=2)
    (task,) = probes.tasks
    paid = {one.id for one in task.checklists[0].items}
    assert 1 <= len(paid) < 4
    held = {"C0", "C1", "C2", "C3"} - paid
    words = dict(zip(("C0", "C1", "C2", "C3"), ("red", "green", "blue", "gold"), strict=True))
    rollout = rolled(task, judge=probes.judge)
    assert {v.item for v in rollout.verdicts} == paid
    only_paid = msgspec.structs.replace(
        task.dialogue, turns=[Turn("hi", [Step(reply=" ".join(words[i] for i in paid))])]
    )
    pleasing = rolled(msgspec.structs.replace(task, dialogue=only_paid), judge=probes.judge)
    numbers = probes.numbers([[rollout, pleasing]], 1)
    assert numbers["hold_out_training"] == 1.0
    assert numbers["hold_out_reward"] == 0.5, f"one of two rollouts did the held-out duties {held}"


def test_sample_is_seeded_of_the_right_size_and_differs_by_update():
    assert sample(100, 0.1, update=3) == sample(100, 0.1, update=3)
    assert sample(100, 0.1, update=3) != sample(100, 0.1, update=4)
    assert len(sample(100, 0.1, 1)) == 10
    assert len(sample(5, 0.01, 1)) == 1
    assert sample(0, 0.5, 1) == sample(10, 0.0, 1) == []
    counts = np.bincount([i for update in range(400) for i in sample(10, 0.3, update)], minlength=10)
    assert counts.min() > 80, "every rollout has its chance"


def test_second_opinions_pair_both_rewards_over_the_items_that_both_scored():
    task = small_task()
    rollout = rolled(task, judge=Oracle(obliging))
    rollout.dialogue.turns[0].steps[0].reply = "red only"

    def gold(dialogue, turn, step, one):
        return None if one.id == "C3" else truth(dialogue, turn, step, one)

    (found,) = second_opinions([rollout], Oracle(gold))
    assert found.training == pytest.approx(1.0)
    assert found.gold == pytest.approx(1 / 3), "C3 left both"
    assert (found.items, found.differ, found.unscored) == (3, 2, 1)


def test_what_the_training_judge_left_unscored_is_not_held_against_it():
    task = small_task(("red", "green"))
    rollout = rolled(task, judge=Oracle(lambda d, t, s, one: None if one.id == "C1" else True))
    (found,) = second_opinions([rollout], Oracle(lambda d, t, s, one: one.id != "C1"))
    assert (found.training, found.gold, found.unscored) == (1.0, 1.0, 0)
    (nothing,) = second_opinions([rollout], Oracle(lambda d, t, s, one: None))
    assert not nothing.counts


def test_second_opinions_of_an_awaited_judge_keep_the_order():
    class Slow(Oracle):
        async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
            await asyncio.sleep(0.02 if "only" in dialogue.turns[0].steps[0].reply else 0)
            return self.judge(dialogue, turn, checklist, since)

    rollouts = [rolled(small_task(), judge=Oracle(obliging)) for _ in range(3)]
    rollouts[0].dialogue.turns[0].steps[0].reply = "red only"
    assert [one.gold for one in second_opinions(rollouts, Slow(truth))] == [0.25, 1.0, 1.0]


def test_turns_that_were_never_reached_cost_no_gold_call():
    task = world_tasks()[0]
    rollout = rolled(task)
    del rollout.dialogue.turns[1:]
    rollout.verdicts = [v for v in rollout.verdicts if v.turn == 0]
    gold = Oracle(obliging)
    second_opinions([rollout], gold)
    assert len(gold.asked) == sum(c.turn == 0 for c in task.checklists)


def test_metrics_of_an_update():
    tasks = world_tasks()[:4]
    config = Probing(gold_fraction=0.5, canaries=1, given=1)
    probes = Probes(config, Oracle(obliging), tasks, gold=ChecksJudge(), seed=1)
    groups = [[rolled(task, m, probes.judge, lazy=m == 1) for m in range(2)] for task in probes.tasks]
    for group in groups:
        for rollout in group:
            steps = [len(turn.steps) for turn in rollout.dialogue.turns]
            rollout.score = score(rollout.checklists, rollout.verdicts, steps, len(steps)).as_json()
    found = probes.numbers(groups, 7)
    assert found["probe"] == 7
    assert found["gold_rollouts"] == 4
    assert found["gold_gap"] == pytest.approx(found["gold_training"] - found["gold_reward"])
    assert found["gold_gap"] > 0
    assert 0 < found["gold_disagree"] < 1
    assert found["canary_groups"] == 4
    assert found["canary_rate"] == 1.0
    assert found["canaries"] == found["canaries_wrong"] >= 4
    assert found["given_rate"] == 0.0
    assert found["given_wrong"] == 0
    assert msgspec.json.encode(found)


def test_failed_rollouts_are_in_no_number():
    from cm2.rollout.trace import Failure

    tasks = world_tasks()[:1]
    probes = Probes(Probing(gold_fraction=1.0, canaries=1), Oracle(obliging), tasks, gold=ChecksJudge())
    rollout = rolled(tasks[0], judge=probes.judge)
    rollout.failure = Failure("simulator", "broke")
    assert probes.numbers([[rollout]], 1) == {"probe": 1, "gold_rollouts": 0}


def metrics(updates: int, training, gold, canary_rate=0.0) -> list[dict[str, object]]:
    return [
        {
            "probe": u,
            "gold_training": float(training[u]),
            "gold_reward": float(gold[u]),
            "canary_groups": 8,
            "canary_rate": canary_rate,
        }
        for u in range(updates)
    ]


def test_alarms_come_from_the_metrics_alone_and_steps_of_one_batch_count_once():
    probes = Probes(Probing(gold_fraction=0.1, canaries=1, window=8), ChecksJudge(), [], gold=ChecksJudge())
    rows = metrics(16, np.linspace(0.5, 0.9, 16), np.linspace(0.5, 0.3, 16))
    assert [alarm.sign for alarm in probes.alarms(rows)] == ["gold"]
    doubled = [row for row in rows for _ in range(2)]
    assert [alarm.sign for alarm in probes.alarms(doubled)] == ["gold"]
    assert probes.alarms(rows[:8]) == []
    other = [{"reward": 0.5}, *rows]
    assert [alarm.sign for alarm in probes.alarms(other)] == ["gold"], "a run that was begun without probes"


def test_canaries_are_held_against_the_upper_end_of_the_calibrated_rate():
    total = Group(Confusion(), false_yes=Rate(20, 100, 0.2, 0.13, 0.29, 100.0))
    calibration = Calibration(["m"], [], "labels", 1, 0, 100, 0.05, 0.6, total)
    rows = metrics(8, np.full(8, 0.5), np.full(8, 0.5), canary_rate=0.25)
    config = Probing(canaries=1, window=8)
    strict = Probes(config, ChecksJudge(), [])
    assert [alarm.sign for alarm in strict.alarms(rows)] == ["canary"]
    assert Probes(config, ChecksJudge(), [], calibration=calibration).alarms(rows) == []


def test_settings():
    assert not Probing().on
    assert Probing(hold_out=0.1).on
    assert Probing(window=7, alarm_rate=0.01).watching == Watching(window=7, rate=0.01)
    with pytest.raises(ConfigError, match="gold judge"):
        Probes(Probing(gold_fraction=0.1), ChecksJudge(), [])
    off = Probes(Probing(), ChecksJudge(), world_tasks())
    assert isinstance(off.judge, ChecksJudge)
    assert not isinstance(off.judge, Aside)
    assert off.numbers([], 3) == {"probe": 3}
