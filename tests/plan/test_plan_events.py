"""The simulation against queues whose answers are known."""

import math
import random

import pytest

simpy = pytest.importorskip("simpy")

from cm2.plan.events import Job, Service, Station, job_of, simulate  # noqa: E402
from cm2.plan.plan import make_plan  # noqa: E402


def erlang_wait(arrivals, rate, servers):
    """Mean wait of M/M/c."""
    load = arrivals / rate
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    queued = last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)
    return queued / (servers * rate - arrivals)


def open_queue(service, arrivals, customers, seed=1):
    """Customers that come at random to one station; the station and the time when the last one left."""
    env = simpy.Environment()
    station = Station(env, service, seed)
    draws = random.Random(seed + 99)

    def come():
        for _ in range(customers):
            yield env.timeout(draws.expovariate(arrivals))
            env.process(station.serve())

    env.process(come())
    env.run()
    return station, env.now


@pytest.mark.parametrize(("servers", "arrivals"), [(1, 0.5), (1, 0.8), (3, 2.1), (8, 6.4)])
def test_waits_are_those_of_erlang(servers, arrivals):
    station, end = open_queue(Service("s", servers, 1.0), arrivals, 20_000)
    seen = station.seen(end)
    assert seen.wait == pytest.approx(erlang_wait(arrivals, 1.0, servers), rel=0.10)
    assert seen.utilisation == pytest.approx(arrivals / servers, rel=0.03)


def test_a_fixed_service_waits_half_as_long():
    """Pollaczek and Khinchine: M/D/1 waits half of M/M/1."""
    station, end = open_queue(Service("s", 1, 1.0, "fixed"), 0.7, 20_000)
    assert station.seen(end).wait == pytest.approx(0.5 * erlang_wait(0.7, 1.0, 1), rel=0.10)


def test_a_gamma_service_waits_as_its_spread_says():
    station, end = open_queue(Service("s", 1, 1.0, "gamma", spread=0.5), 0.7, 20_000)
    assert station.seen(end).wait == pytest.approx((1 + 0.25) / 2 * erlang_wait(0.7, 1.0, 1), rel=0.10)


def test_a_saturated_judge_sets_the_pace():
    """One slot, 64 rollouts of 3 turns: 192 answers of a second cannot take less, and hardly take more."""
    job = Job(
        rollouts=64, turns=3, steps=2, policy=Service("policy", 64, 0.1), judge=Service("judge", 1, 1.0, "fixed"),
        judge_calls=1, training=10.0,
    )  # fmt: skip
    outcome = simulate(job, "overlapped")
    assert 192 <= outcome.rollout < 193
    assert outcome.update == pytest.approx(outcome.rollout + 10)
    assert outcome.bottleneck == "judge"
    judge = next(one for one in outcome.stations if one.name == "judge")
    assert judge.utilisation == pytest.approx(192 / outcome.update)
    assert judge.served == 2 * 192 and judge.longest >= 60


def test_without_queues_a_rollout_takes_its_own_chain():
    job = Job(rollouts=5, turns=2, steps=3, policy=Service("policy", 5, 2.0, "fixed"), training=7.0)
    assert simulate(job, "overlapped").update == pytest.approx(2 * 3 * 2.0 + 7.0)
    assert simulate(job, "lockstep").update == pytest.approx(2 * 3 * 2.0 + 7.0)


def test_lockstep_adds_what_overlap_hides():
    """Two stages of 8 seconds of work on one slot each: in lockstep 16, overlapped 8 and the first one's way."""
    job = Job(
        rollouts=8, turns=1, steps=1, policy=Service("policy", 1, 1.0, "fixed"),
        judge=Service("judge", 1, 1.0, "fixed"), judge_calls=1, training=5.0, updates=4,
    )  # fmt: skip
    assert simulate(job, "lockstep").update == pytest.approx(16 + 5)
    assert simulate(job, "overlapped").update == pytest.approx(9 + 5)
    assert simulate(job, "ahead").update == pytest.approx((4 * 9 + 5) / 4)  # only the last update is waited for


def test_an_update_longer_than_the_rollouts_sets_the_pace_of_ahead():
    job = Job(rollouts=2, turns=1, steps=1, policy=Service("policy", 2, 1.0, "fixed"), training=10.0, updates=3)
    assert simulate(job, "ahead").update == pytest.approx((1 + 3 * 10) / 3)


def test_questions_of_a_moment_are_asked_side_by_side():
    def update(every, calls):
        judge = Service("judge", 100, 1.0, "fixed")
        job = Job(
            rollouts=1, turns=2, steps=3, policy=Service("policy", 1, 1.0, "fixed"), judge=judge, judge_calls=calls,
            judge_every=every,
        )  # fmt: skip
        return simulate(job, "overlapped").update

    assert update("turn", 1) == update("turn", 9) == pytest.approx(6 + 2)
    assert update("step", 6) == pytest.approx(6 + 6)


def test_simulated_answers_are_as_many_as_their_share():
    job = Job(
        rollouts=500, turns=2, steps=3, policy=Service("policy", 500, 1.0), simulator=Service("simulator", 50, 0.1),
        simulated=0.27, updates=1,
    )  # fmt: skip
    served = next(one.served for one in simulate(job, "overlapped").stations if one.name == "simulator")
    assert served == pytest.approx(500 * 2 * 2 * 0.27, abs=4 * math.sqrt(2000 * 0.27 * 0.73))


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    def once(seed):
        return simulate(Job(rollouts=20, turns=2, steps=2, policy=Service("policy", 4, 1.0), seed=seed), "overlapped")

    assert once(3) == once(3) != once(4)


def test_an_engine_is_slower_the_more_it_serves():
    service = Service("s", 11, 3.0, alone=1.0)
    assert [service.mean_among(others) for others in (0, 5, 10, 99)] == [1.0, 2.0, 3.0, 3.0]


def busy_plan(**given):
    from pathlib import Path

    recipe = Path(__file__).resolve().parents[2] / "recipes" / "one-node-lora-8b-rl.yaml"
    return make_plan(str(recipe), gpus=6, judge_gpus=2, overrides={"prompts": 6}, **given)


def test_a_plans_simulation_agrees_with_its_closed_form_where_one_station_is_full():
    """The published schedule keeps the judge full, so the rollouts take what its throughput says."""
    plan = busy_plan(inner={"judging": {"kind": "llm", "schedule": "published"}}, simulation=True)
    outcome = next(one for one in plan.outcomes if one.mode == "overlapped")
    assert outcome.bottleneck == "judge"
    assert outcome.rollout == pytest.approx(max(plan.times.judge, plan.times.chain), rel=0.15)
    lockstep, overlapped, ahead = (one.update for one in plan.outcomes)
    assert lockstep > overlapped > ahead


def test_a_large_plan_is_scaled_down_with_its_slots():
    plan = busy_plan(inner={"judging": {"kind": "llm", "schedule": "published"}})
    whole = job_of(plan.setup, plan.load, plan.memory, plan.times)
    assert whole.scale == 1.0
    large = make_plan(
        plan.setup.recipe.__class__(input="i", output="o", prompts=640, group=48, judging=plan.setup.recipe.judging),
        gpus=56, judge_gpus=8, model="Qwen3-8B",
    )  # fmt: skip
    job = job_of(large.setup, large.load, large.memory, large.times)
    assert job.scale < 1 and job.rollouts == round(640 * 48 * job.scale)
