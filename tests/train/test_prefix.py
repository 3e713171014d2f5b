"""The prefix-shared forward gives the numbers and the gradient of every row's own forward pass."""

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.train import prefix  # noqa: E402
from rollout.tiny_models import tiny_llama  # noqa: E402

VOCABULARY = 97


@pytest.fixture(scope="module")
def model():
    model = tiny_llama(VOCABULARY)
    assert prefix.supports(model)
    return model


def plain_logits(model, prompt, completion):
    ids = torch.tensor([prompt + completion])
    return model(input_ids=ids).logits[0, len(prompt) - 1 : -1]


ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9)
few = st.lists(st.integers(5, 6), min_size=1, max_size=9)  # so few that rows often start alike


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ids, st.lists(few, min_size=1, max_size=4)), min_size=1, max_size=3))
def test_logits_of_every_row_are_those_of_its_own_pass(groups):
    model = tiny_llama(VOCABULARY)
    prefix.register()
    rows = [(prompt, completion) for prompt, completions in groups for completion in completions]
    rows = rows[::2] + rows[1::2]  # members of a group need not stand together
    packed = prefix.pack([prompt for prompt, _ in rows], [completion for _, completion in rows])
    with torch.no_grad():
        for place, (prompt, completion) in zip(packed.places, rows, strict=True):
            assert len(place) == len(completion)
            ours = prefix.logits_of(model, packed, place)
            torch.testing.assert_close(ours, plain_logits(model, prompt, completion), atol=2e-3, rtol=1e-4)


def test_what_rows_share_stands_once_and_the_last_id_of_a_row_is_not_read():
    packed = prefix.pack([[1, 2, 3]] * 3 + [[4, 5]], [[6, 7, 8], [8], [6, 7, 9, 1], [9, 10, 11]])
    # the roots, then what follows 1 2 3 (6 7, shared by rows 0 and 2), then the 9 of row 2
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 9, 10, 6, 7, 9]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3, 3, 4, 5]]
    assert [place.tolist() for place in packed.places] == [[2, 7, 8], [2], [2, 7, 8, 9], [4, 5, 6]]
    assert [(f.before, f.starts, f.lengths) for f in packed.families] == [
        ((), [0, 3], [3, 4]),
        (((0, 3),), [7], [2]),
        (((0, 3), (7, 2)), [9], [1]),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=8))
def test_the_size_of_a_pack_is_known_before_it_is_made(rows):
    packed = prefix.pack([row[:1] for row in rows], [[*row[1:], 0] for row in rows])
    assert (
        packed.ids.shape[1] == prefix.packed_size(rows) == len({tuple(r[: n + 1]) for r in rows for n in range(len(r))})
    )


def test_the_gradient_is_the_sum_of_the_rows_own_gradients(model):
    prompts = [[1, 2, 3, 4, 5]] * 4 + [[9, 8, 7]] * 2
    completions = [[5, 3, 8, 1], [5, 3, 9, 2, 7, 7, 1], [6], [5, 3, 8, 1], [3, 2, 1, 0, 90], [11, 12]]
    weights = [torch.randn(len(row), generator=torch.Generator().manual_seed(i)) for i, row in enumerate(completions)]

    def loss_of(logits, completion, weight):
        logps = torch.log_softmax(logits, -1)[torch.arange(len(completion)), torch.tensor(completion)]
        return (logps * weight).sum()

    model.zero_grad()
    sum(
        loss_of(plain_logits(model, p, c), c, w) for p, c, w in zip(prompts, completions, weights, strict=True)
    ).backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    packed = prefix.pack(prompts, completions)
    logits = prefix.logits_of(model, packed, torch.cat(packed.places))
    parts = logits.split([len(row) for row in completions])
    sum(loss_of(part, c, w) for part, c, w in zip(parts, completions, weights, strict=True)).backward()
    scale = max(float(grad.abs().max()) for grad in wanted)
    for grad, parameter in zip(wanted, model.parameters(), strict=True):
        assert float((grad - parameter.grad).abs().max()) < 1e-5 * scale


def test_the_models_own_attention_is_back_afterwards(model):
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError), prefix.packed_attention(model):
        raise RuntimeError
    assert model.config._attn_implementation == before


def test_a_model_with_a_sliding_window_is_not_supported():
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8,
    )  # fmt: skip
    assert not prefix.supports(MistralForCausalLM(config))


def test_another_family_is_supported_by_trying_it():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    assert prefix.supports(Qwen3ForCausalLM(config))
