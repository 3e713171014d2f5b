"""Bytes of a device, by hand."""

import math

import msgspec
import pytest

from cm2.plan.memory import memory
from cm2.plan.models import dims_of
from cm2.plan.plan import make_plan
from cm2.plan.setup import lora_parameters
from cm2.plan.shape import Shape
from cm2.train.rl import RlConfig

EIGHT = 8_190_427_136
"""Parameters of Qwen3-8B without its norms."""


def recipe(**given):
    return msgspec.convert({"input": "in", "output": "out", "model": "Qwen3-8B", "max_tokens": 8192} | given, RlConfig)


def made(gpus=8, engine="sharded", **given):
    return make_plan(recipe(**given), gpus=gpus, engine=engine)


def test_full_training_is_sixteen_bytes_a_parameter_over_the_devices():
    training = made().memory.training
    assert dims_of("Qwen3-8B").parameters == EIGHT
    assert training.weights == 4 * EIGHT / 8
    assert training.gradients == 4 * EIGHT / 8
    assert training.optimizer == 8 * EIGHT / 8
    assert training.reference == 2 * EIGHT / 8


def test_without_a_penalty_there_is_no_reference():
    assert made(beta=0.0).memory.training.reference == 0


def test_adapters_need_no_reference_and_freeze_the_rest_in_sixteen_bits():
    training = made(lora=32).memory.training
    adapters = lora_parameters(dims_of("Qwen3-8B"), 32)
    by_hand = 36 * 32 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + 3 * (4096 + 12288))
    assert adapters == by_hand
    assert training.weights == (2 * EIGHT + 4 * adapters) / 8
    assert (training.gradients, training.optimizer, training.reference) == (4 * adapters / 8, adapters, 0)


def test_the_local_engine_holds_everything_in_each_process():
    plan = made(engine="local", gpus=2, beta=1e-3)
    training = plan.memory.training
    assert (training.weights, training.optimizer, training.reference) == (4 * EIGHT, 8 * EIGHT, 4 * EIGHT)
    assert plan.memory.generation.weights == 0  # it generates with the same weights
    assert not plan.memory.fits


def test_training_the_top_layers_holds_their_gradients_only():
    plan = make_plan(recipe(model="embedded", layers=12, beta=0.0, max_tokens=2048), gpu="cpu")
    layer = 576 * 64 * 24 + 3 * 576 * 1536
    assert plan.setup.trained == 12 * layer
    assert plan.memory.training.gradients == 4 * 12 * layer
    assert plan.memory.training.weights == 4 * dims_of("embedded").parameters


def test_a_token_of_the_embedded_model_takes_the_measured_memory():
    """The recipe's field `micro_tokens` says about 1.5 MB a token at 135M, measured; logits are 0.4 MB of it."""
    activations = 30 * dims_of("embedded").activations(4)
    assert activations == pytest.approx(1.45e6, rel=0.01)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    training = made(micro_tokens=1000).memory.training
    dims = dims_of("Qwen3-8B")
    assert training.micro_tokens == 8192  # a rollout is not divided
    assert training.activations == 8192 * (36 * 4096 * 2 + dims.activations(2))


def test_the_cache_holds_a_prompt_once_a_group():
    shape = Shape(turns=1, steps=1, prompt=1000, user=0, action=500, response=0)
    plan = make_plan(recipe(group=8, prompts=8, max_step_tokens=500), gpus=8, engine="sharded", shape=shape)
    assert plan.memory.generation.cache == 8 * 2 * 36 * 8 * 128 * 2 * (1000 / 8 + 500)


def test_a_batch_beyond_the_memory_is_generated_in_rounds():
    few, many = (made(prompts=prompts, group=24, max_step_tokens=4000).memory.generation for prompts in (8, 800))
    assert few.rounds == 1 and many.rounds > 1
    assert many.total <= made().memory.budget
    assert many.rounds == math.ceil(800 * 24 / 8 / many.at_once)


def test_a_model_that_fills_a_device_is_served_over_several():
    assert make_plan(recipe(model="Qwen3-30B-A3B"), gpus=32).memory.generation.width == 4
    assert made().memory.generation.width == 1


def test_more_devices_never_need_more_memory_each():
    totals = [made(gpus=n).memory.training.total for n in (1, 2, 4, 8, 16)]
    assert totals == sorted(totals, reverse=True)


def test_on_a_processor_nothing_can_fail_to_fit():
    plan = make_plan(recipe(model="embedded"), gpu="cpu")
    assert plan.memory.fits and memory(plan.setup).budget == 0
