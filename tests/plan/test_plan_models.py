"""Dimensions of models against what their publishers print and against a model that stands on disk."""

import json

import pytest

from cm2.errors import ConfigError
from cm2.plan.constants import TABLE, Constants, parse
from cm2.plan.devices import device_of
from cm2.plan.models import Dims, dims_of

TINY = Dims("tiny", hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, mlp=16, vocab=100, tied=True)


def test_parameters_of_a_tiny_model_by_hand():
    attention = 8 * 8 + 2 * 8 * 4 + 8 * 8  # q, k and v, o
    assert TINY.attention == attention == 192
    assert TINY.parameters == 2 * (192 + 3 * 8 * 16) + 800 == 1952
    assert TINY.passed == 1952  # a tied head is passed though the embedding is not multiplied
    assert TINY.cache() == 2 * 2 * 1 * 4 * 2


def test_a_token_costs_two_flop_a_parameter_and_four_a_seen_value():
    assert TINY.forward() == 2 * 1952
    assert TINY.forward(10) - TINY.forward() == 4 * 2 * 8 * 10
    assert TINY.forward() - TINY.forward(head=False) == 2 * 800


@pytest.mark.parametrize(
    ("name", "billions", "passed"),
    [
        ("SmolLM2-135M", 0.135, 0.135),
        ("Qwen3-0.6B", 0.6, 0.6),
        ("Qwen3-1.7B", 1.7, 1.7),
        ("Qwen3-4B", 4.0, 4.0),
        ("Qwen3-8B", 8.2, 7.6),
        ("Qwen3-30B-A3B", 30.5, 3.0),
        ("Llama-3.1-8B", 8.03, 7.5),
    ],
)
def test_known_models_have_the_parameters_that_their_cards_print(name, billions, passed):
    dims = dims_of(name)
    assert dims.parameters / 1e9 == pytest.approx(billions, rel=0.015)
    assert dims.passed / 1e9 == pytest.approx(passed, rel=0.02)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "qwen3-8b-base", "Q/Qwen3-8B-Base", "Qwen3-30B-A3B-Instruct-2507"])
def test_publishers_and_variants_do_not_matter(name):
    assert dims_of(name).hidden == (2048 if "30B" in name else 4096)


def test_the_embedded_model_is_smollm2():
    assert dims_of("embedded").name == "SmolLM2-135M"


def test_a_config_json_is_read_with_experts_and_defaults(tmp_path):
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100}
    config |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 999}
    (tmp_path / "config.json").write_text(json.dumps(config))
    dims = dims_of(str(tmp_path))
    assert (dims.kv_heads, dims.head_dim, dims.mlp, dims.active, dims.tied) == (2, 4, 16, 2, True)
    assert dims == dims_of(str(tmp_path / "config.json"))
    more = dims.parameters - dims.passed
    assert more == 2 * (2 * 3 * 8 * 16 + 8 * 4)  # two idle experts and the router, in two layers


@pytest.mark.parametrize(
    ("text", "word"), [("{}", "num_attention_heads"), ("nonsense", "JSON"), (None, "no such file")]
)
def test_a_config_that_is_no_decoder_is_a_sentence(tmp_path, text, word):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=word):
        dims_of(str(tmp_path / "config.json"))


def test_unknown_names_propose_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean Qwen3-8B\?"):
        dims_of("Qwen/Qwen3-8")
    with pytest.raises(ConfigError, match=r"did you mean h100\?"):
        device_of("h10")
    with pytest.raises(ConfigError, match=r"no constant.*did you mean mfu_train"):
        Constants({"mfu_trian": 1})


def test_gpus_are_found_however_they_are_written():
    assert device_of("RTX-4090") is device_of("rtx4090")


def test_every_constant_has_a_source_and_a_kind():
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert all(row.source and row.value > 0 for row in TABLE)


def test_constants_change_for_one_plan_only():
    assert Constants(parse(["moe = 0.5"]))["moe"] == 0.5
    assert Constants()["moe"] == 0.25
    for text in ("moe", "moe=", "moe=much"):
        with pytest.raises(ConfigError, match="NAME=NUMBER"):
            parse([text])
    with pytest.raises(ConfigError, match="above 0"):
        Constants({"moe": 0})
