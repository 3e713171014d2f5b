"""The engines against transformers' own forward pass: ragged passes, forks, closed rows, new weights."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.rollout import kernels  # noqa: E402
from cm2.rollout.decode import LlamaEngine, LlamaWeights, is_lean, unwrap  # noqa: E402
from cm2.rollout.engine import HFEngine  # noqa: E402
from rollout.tiny_models import tiny_llama  # noqa: E402

FLOAT, BRAIN = torch.float32, torch.bfloat16
KINDS = ["C", "C bf16", "torch", "torch bf16", "transformers"]


def engine(model, kind: str):
    """An engine of the named kind."""
    if kind == "transformers":
        return HFEngine(model)
    dtype = BRAIN if kind.endswith("bf16") else FLOAT
    if kind.startswith("C") and kernels.load(dtype == BRAIN) is None:
        pytest.skip("there is no C compiler")
    return LlamaEngine(LlamaWeights(model, dtype), kind.startswith("C"))


def true_logits(model, sequence: list[int]) -> torch.Tensor:
    """What transformers says after the whole sequence, read at once."""
    with torch.no_grad():
        return model(torch.tensor([sequence])).logits[0, -1]


def agrees(logits: torch.Tensor, model, sequences: list[list[int]], kind: str) -> None:
    expected = torch.stack([true_logits(model, sequence) for sequence in sequences])
    worst = (logits.float() - expected).abs().max().item() / expected.std().item()
    assert logits.shape == expected.shape and worst < (0.15 if kind.endswith("bf16") else 1e-4), worst


def ids(count: int, seed: int, vocabulary: int = 97) -> list[int]:
    return torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


SHAPES = {
    "every head its own": {"num_key_value_heads": 6},
    "one key head for all": {"num_key_value_heads": 1},
    "seven queries a key head": {"num_attention_heads": 7, "num_key_value_heads": 1, "hidden_size": 112},
    "wide heads": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 80},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "scaled rotation": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "another theta and epsilon": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "rms_norm_eps": 1e-2,
    },
}


@pytest.mark.parametrize("kind", ["C", "torch", "C bf16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_of_every_shape_of_model_are_transformers_own(shape, kind):
    model = tiny_llama(**shape)
    assert is_lean(model)
    decoder = engine(model, kind)
    sequences = [ids(40, 1), ids(17, 2)]
    rows, logits = decoder.start(sequences)
    agrees(logits, model, sequences, kind)
    more = [ids(1, 3), ids(23, 4)]
    logits = decoder.extend(rows, more)
    agrees(logits, model, [a + b for a, b in zip(sequences, more, strict=True)], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_life_of_rows_that_start_fork_grow_and_close_at_different_times(model, kind):
    """The driver's pattern: siblings share a prompt, ragged pieces, newcomers among the old, early leavers."""
    decoder = engine(model, kind)
    live: dict[int, list[int]] = {}

    def start(prompts, copies):
        rows, logits = decoder.start(prompts)
        agrees(logits, model, prompts, kind)
        sources = [row for row, count in zip(rows, copies, strict=True) for _ in range(count - 1)]
        past = dict(zip(rows, prompts, strict=True))
        new = dict(zip(decoder.fork(sources), sources, strict=True)) if sources else {}
        opened = sorted([*rows, *new], key=lambda row: (rows.index(new.get(row, row)), row in new))
        live.update({row: list(past[new.get(row, row)]) for row in opened})
        return opened

    def extend(counts, seed):
        pieces = [ids(counts[i % len(counts)], seed * 100 + i) for i in range(len(live))]
        logits = decoder.extend(list(live), pieces)
        for row, piece in zip(live, pieces, strict=True):
            live[row] += piece
        agrees(logits, model, list(live.values()), kind)

    def close(rows):
        decoder.close(rows)
        for row in rows:
            del live[row]

    first = start([ids(19, 1), ids(32, 2)], [3, 2])
    assert len(first) == len(set(first)) == 5
    extend([1], 3)  # siblings part: each must have its own continuation
    extend([1, 16, 2], 4)
    close([first[0], first[3]])
    extend([1], 5)
    second = start([ids(5, 6)], [4])
    extend([3, 1], 7)
    close(second[1:])
    extend([1, 40], 8)
    close(list(live))
    start([ids(9, 9)], [1])
    extend([2], 10)


def test_rows_of_the_lean_engine_may_be_left_out(model):
    decoder = engine(model, "torch")
    (a, b), _ = decoder.start([ids(5, 1), ids(9, 2)])
    agrees(decoder.extend([b], [ids(3, 3)]), model, [ids(9, 2) + ids(3, 3)], "torch")
    agrees(decoder.extend([a], [ids(2, 4)]), model, [ids(5, 1) + ids(2, 4)], "torch")


def test_the_generic_engine_says_when_a_row_is_left_out(model):
    decoder = engine(model, "transformers")
    (row, _), _ = decoder.start([ids(5, 1), ids(9, 2)])
    with pytest.raises(ValueError, match="every open row"):
        decoder.extend([row], [ids(1, 3)])


@pytest.mark.parametrize("kind", ["C", "torch"])
def test_more_tokens_than_one_pass_takes_are_read_in_several(model, kind, monkeypatch):
    monkeypatch.setattr("cm2.rollout.decode._PREFILL_TOKENS", 30)
    decoder = engine(model, kind)
    sequences = [ids(n, n) for n in (50, 10, 10, 10, 1, 29)]
    _, logits = decoder.start(sequences)
    agrees(logits, model, sequences, kind)


@pytest.mark.parametrize("kind", ["C", "torch"])
def test_a_fork_reads_nothing(model, kind, monkeypatch):
    decoder = engine(model, kind)
    read = []
    plan = decoder.cache.plan
    monkeypatch.setattr(decoder.cache, "plan", lambda rows, counts: (read.extend(counts), plan(rows, counts))[1])
    rows, _ = decoder.start([ids(100, 1)])
    assert len(set(decoder.fork(rows * 15)) | set(rows)) == 16
    assert read == [100]


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_more_than_the_cache_begins_with(model, kind):
    decoder = engine(model, kind)
    rows, _ = decoder.start([ids(3, 1)])
    rows += decoder.fork(rows * 69)
    pieces = [[i % 97] for i in range(70)]
    logits = decoder.extend(rows, pieces)
    agrees(logits[::23], model, [ids(3, 1) + piece for piece in pieces[::23]], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_taken_over_only_when_told(kind):
    model = tiny_llama()
    decoder = engine(model, kind)
    sequence = ids(12, 1)
    before = decoder.start([sequence])[1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    if kind != "transformers":  # the generic engine reads the live model
        assert torch.equal(decoder.start([sequence])[1], before)
        decoder.update_weights(model)
        agrees(decoder.start([sequence])[1], model, [sequence], kind)
    else:
        decoder.close([0])
        agrees(decoder.start([sequence])[1], model, [sequence], kind)


def test_engines_that_share_weights_take_new_ones_together():
    model = tiny_llama()
    weights = LlamaWeights(model, FLOAT)
    one, other = LlamaEngine(weights, False), LlamaEngine(weights, False)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    one.update_weights(model)
    agrees(other.start([ids(4, 1)])[1], model, [ids(4, 1)], "torch")


def test_an_adapter_is_merged_for_the_copy_and_left_as_it_was():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    sequence = ids(20, 1)
    before = true_logits(model, sequence)
    with model.disable_adapter():
        assert (true_logits(model, sequence) - before).abs().max() > 0.01  # the adapter does something
    logits = LlamaEngine(LlamaWeights(model, FLOAT), False).start([sequence])[1]
    assert (logits[0] - before).abs().max() < 1e-3 * before.std()
    assert torch.allclose(true_logits(model, sequence), before, atol=1e-4)


def test_wrappers_are_taken_off():
    model = tiny_llama()
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module.module = model
    assert unwrap(wrapped) is model


OTHERS = [
    {"hidden_act": "gelu"},
    {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    {"intermediate_size": 88},
    {"num_attention_heads": 4, "head_dim": 24},
]


@pytest.mark.parametrize("changes", OTHERS)
def test_a_model_with_other_arithmetic_is_left_to_the_generic_engine(changes):
    assert not is_lean(tiny_llama(**changes))


def test_a_model_of_another_family_runs_on_the_generic_engine():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=97, num_key_value_heads=2, **shape)).eval()
    assert not is_lean(model)
    decoder = HFEngine(model)
    (a, c), logits = decoder.start([ids(6, 1), ids(11, 2)])
    (b,) = decoder.fork([a])
    agrees(logits, model, [ids(6, 1), ids(11, 2)], "transformers")
    logits = decoder.extend([c, a, b], [ids(1, 3), ids(4, 4), ids(2, 5)])  # in any order
    agrees(logits, model, [ids(11, 2) + ids(1, 3), ids(6, 1) + ids(4, 4), ids(6, 1) + ids(2, 5)], "transformers")


def test_the_generic_engine_leaves_a_model_in_training_as_it_was():
    model = tiny_llama(attention_dropout=0.5).train()
    logits = HFEngine(model).start([ids(9, 1)])[1]
    assert model.training
    agrees(logits, model.eval(), [ids(9, 1)], "transformers")
