"""What PPO's critic, importance weights and groups that are rolled again cost, by hand."""

import msgspec
import pytest

from cm2.plan.devices import device_of
from cm2.plan.memory import memory
from cm2.plan.plan import make_plan
from cm2.plan.show import summary, tables
from cm2.plan.speed import steps
from cm2.train.rl import RlConfig

EIGHT, HEAD = 8_190_427_136, 151_936 * 4096
"""Parameters of Qwen3-8B without its norms, and of its head, which is not its embedding."""
SMOL = 134_479_872
"""Parameters in the products of a token of the embedded model."""


def recipe(**given):
    usual = {"input": "in", "output": "out", "max_tokens": 8192, "max_step_tokens": 4000, "beta": 0.0}
    return msgspec.convert(usual | given, RlConfig)


def small(**given):
    """On a processor: 64 rollouts of 3,980 tokens."""
    return make_plan(recipe(model="embedded", **given), gpu="cpu")


def large(engine="sharded", **given):
    return make_plan(recipe(model="Qwen3-8B", prompts=16, group=4, **given), gpus=8, engine=engine)


def test_a_value_head_is_a_line_over_the_width_with_weights_and_two_moments():
    critic = small(algorithm="ppo").memory.training.critic
    assert critic == 12 * (576 + 1)
    assert small().memory.training.critic == 0


def test_verls_critic_is_the_network_without_its_head_shared_out():
    found, without = large(algorithm="ppo").memory.training, large().memory.training
    critic = EIGHT - HEAD + 4096 + 1
    assert found.critic == 12 * critic / 8
    assert found.gradients == without.gradients == 4 * EIGHT / 8  # never both at once, and the policy's are the larger
    assert found.total - without.total == found.critic
    assert found.resident - without.resident == found.critic  # it is there while the policy generates
    assert large(algorithm="ppo", lora=8).memory.training.gradients == 4 * critic / 8  # the critic has no adapters


def test_values_of_a_head_cost_one_pass_without_gradients_and_importance_weights_the_same_one():
    tokens = 64 * 3980 * 0.241
    one = 2 * SMOL * tokens / 83.9e9
    plain = small().times
    assert plain.old == 0 and plain.forward == pytest.approx(one)
    for given in ({"algorithm": "ppo"}, {"importance": "token"}, {"algorithm": "ppo", "importance": "sequence"}):
        took = small(**given).times
        assert took.old == pytest.approx(one) and took.critic == 0
        assert took.training - plain.training == pytest.approx(one)


def test_the_sharded_engine_has_that_pass_anyway():
    assert large(importance="token").times == large().times
    assert large().times.old > 0


def test_a_critic_of_its_own_reads_trains_and_recomputes():
    took = large(algorithm="ppo", epochs=2).times
    layer = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 12288
    forward = 2 * 36 * layer + 4 * 36 * 32 * 128 * 3980 / 2
    # values once, then twice: forward, backward (two of it), the forward again
    by_hand = 64 * 3980 * forward * (1 + 2 * (1 + 2 + 1)) / (8 * device_of("h100").flops * 0.4)
    assert took.critic == pytest.approx(by_hand)
    assert took.training - large(epochs=2).times.training == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("resample", "silent", "further"),
    [(0, 0.5, 0.0), (2, 0.5, 2.0), (100, 0.2, 16 * 0.2 / 0.8), (100, 1.5, 100.0)],
)
def test_further_groups_are_those_that_fill_the_silent_places_within_the_bound(resample, silent, further):
    plan = make_plan(recipe(prompts=16, group=4, resample=resample), constants={"silent": silent})
    assert plan.setup.further == pytest.approx(further)
    assert plan.load.rollouts == 64 and plan.load.rolled == pytest.approx(64 + 4 * further)


def test_they_are_rolled_out_judged_and_simulated_but_as_many_as_before_are_trained():
    asked = {"judging": {"kind": "llm"}, "simulator": {"kind": "llm"}}
    with_, without = (
        make_plan(recipe(prompts=8, group=4, resample=n, **asked), constants={"silent": 0.5}).load for n in (4, 0)
    )
    for name in ("generated", "shown"):
        assert getattr(with_, name) == pytest.approx(1.5 * getattr(without, name))
    for name in ("judge", "simulator"):
        assert getattr(with_, name).calls == pytest.approx(1.5 * getattr(without, name).calls)
    assert with_.computed == without.computed == 8 * 1400 + 32 * 2580


def test_they_begin_when_the_others_are_judged():
    """On a processor generation is so much longer; on GPUs the room is filled once more."""
    half = {"constants": {"silent": 0.5}}
    one, more = (make_plan(recipe(model="embedded", resample=n), gpu="cpu", **half).times for n in (0, 4))
    assert more.generation == pytest.approx(1.5 * one.generation) and more.chain == pytest.approx(1.5 * one.chain)
    plans = [make_plan(recipe(model="Qwen3-8B", resample=n), gpus=8, **half) for n in (0, 4)]
    one, more = (plan.times for plan in plans)
    full, alone = steps(plans[0].setup, memory(plans[0].setup))
    round_ = 1800 * (full + alone)  # the longest has twice the mean's tokens
    read = 0.5 * (one.generation - round_)
    assert more.generation - one.generation == pytest.approx(round_ + read)


def test_the_plan_shows_them():
    plan = large(algorithm="ppo")
    said = summary(plan)
    assert said["memory"]["training"]["critic"] > 0 and said["seconds"]["critic"] > 0
    assert any("network of its own" in note for note in said["notes"])
    assert len(tables(plan)) > 3
    said = summary(make_plan(recipe(resample=3)))
    assert said["load"]["rolled"] == pytest.approx(64 + 8 * 8 * 0.13 / 0.87)
    assert any("1.2 further groups" in note for note in said["notes"])


def test_a_simulation_rolls_them_out_too():
    pytest.importorskip("simpy")
    given = {"gpus": 2, "constants": {"silent": 0.5}, "simulation": True}
    few, many = (make_plan(recipe(model="Qwen3-8B", prompts=8, group=4, resample=n), **given) for n in (0, 4))
    assert [one.update for one in many.outcomes] > [one.update for one in few.outcomes]
