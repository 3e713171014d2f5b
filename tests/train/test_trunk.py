"""The frozen layers are computed once: the numbers and the gradient are those of the whole pass."""

import copy

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.train import prefix, trunk  # noqa: E402
from rollout.tiny_models import tiny_llama  # noqa: E402

PROMPTS = [[1, 2, 3, 4, 5]] * 3 + [[9, 8, 7]] * 2
COMPLETIONS = [[5, 3, 8, 1], [5, 3, 9, 2, 7, 7, 1], [6], [3, 2, 1, 0, 90], [11, 12]]


def frozen_below(model, layers: int = 1):
    """Only the top layers and the norm are trained."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in (*model.model.layers[-layers:], model.model.norm):
        for parameter in module.parameters():
            parameter.requires_grad_(True)
    return model


@pytest.fixture
def model():
    model = frozen_below(tiny_llama())
    assert prefix.supports(model)
    return model


def gradient_of(model, packed, known=None) -> list[torch.Tensor]:
    model.zero_grad()
    logits = prefix.logits_of(model, packed, torch.cat(packed.places), known)
    (torch.log_softmax(logits, -1)[:, 7] * torch.arange(len(logits))).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_a_known_trunk_gives_the_same_logits_and_the_same_gradient(model):
    packed = prefix.pack(PROMPTS, COMPLETIONS)
    plain = gradient_of(model, packed)
    below = trunk.of(model)
    first = gradient_of(model, packed, below)
    again = gradient_of(model, packed, below)
    for a, b, c in zip(plain, first, again, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c) and bool(a.any())


def test_a_known_trunk_is_not_computed_again(model):
    below, packed = trunk.of(model), prefix.pack(PROMPTS, COMPLETIONS)
    seen = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append("below"))
    model.model.layers[-1].mlp.register_forward_hook(lambda *_: seen.append("above"))
    for _ in range(3):
        prefix.logits_of(model, packed, packed.places[0], below)
    assert seen == ["below", "above", "above", "above"]


def test_rows_may_be_read_in_other_company_the_second_time(model):
    """As the reference reads them all and training a micro-batch at a time, in another order."""
    below = trunk.of(model)
    prefix.logits_of(model, prefix.pack(PROMPTS, COMPLETIONS), torch.tensor([0]), below)
    for some in ([4, 1], [2], [0, 3]):
        packed = prefix.pack([PROMPTS[i] for i in some], [COMPLETIONS[i] for i in some])
        places = torch.cat(packed.places)
        assert below.find(packed) is not None
        with torch.no_grad():
            torch.testing.assert_close(
                prefix.logits_of(model, packed, places, below), prefix.logits_of(model, packed, places)
            )


def test_a_row_that_nobody_read_is_not_made_up(model):
    below = trunk.of(model)
    prefix.logits_of(model, prefix.pack([[1, 2]], [[3, 4]]), torch.tensor([0]), below)
    assert below.find(prefix.pack([[1, 2]] * 2, [[3, 4], [3, 5, 6]])) is None


def test_what_belongs_to_an_earlier_generation_is_let_go(model):
    below, packed = trunk.of(model), prefix.pack([[1, 2]], [[3, 4]])
    below.turn_to(4)
    prefix.logits_of(model, packed, torch.tensor([0]), below)
    below.turn_to(4)
    assert below.find(packed) is not None
    below.turn_to(5)
    assert below.find(packed) is None


def test_a_reference_shares_the_trunk_and_the_memory_of_what_is_frozen(model):
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.model.layers[-1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # training has begun
    below, packed = trunk.of(model, reference), prefix.pack(PROMPTS, COMPLETIONS)
    places = torch.cat(packed.places)
    with torch.no_grad():
        wanted = prefix.logits_of(reference, packed, places)
        prefix.logits_of(model, packed, places, below)
        assert torch.equal(prefix.logits_of(reference, packed, places, below), wanted)
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    assert all((a.data_ptr() == b.data_ptr()) != a.requires_grad for a, b in pairs)


def test_a_step_of_the_policy_leaves_the_reference_as_it_was(model):
    reference = copy.deepcopy(model)
    assert trunk.of(model, reference) is not None
    before = [parameter.clone() for parameter in reference.parameters()]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    gradient_of(model, prefix.pack(PROMPTS, COMPLETIONS))
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, reference.parameters(), strict=True))


def other_trunk(model):
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    return trunk.of(model, reference)


def dropout(model):
    model.config.attention_dropout = 0.1
    return trunk.of(model)


def trained_embedding(model):
    model.get_input_embeddings().weight.requires_grad_(True)
    return trunk.of(model)


def nothing_frozen(model):
    return trunk.of(model.requires_grad_(True))


def everything_frozen(model):
    return trunk.of(model.requires_grad_(False))


@pytest.mark.parametrize("case", [other_trunk, dropout, trained_embedding, nothing_frozen, everything_frozen])
def test_there_is_no_trunk_where_the_layers_below_are_not_the_same_for_all(model, case):
    assert case(model) is None


def test_a_model_that_does_more_to_given_embeddings_has_no_trunk():
    """Gemma scales what it is given by the root of its width: what reaches a later layer must not be scaled again."""
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    gemma = frozen_below(GemmaForCausalLM(config).eval())
    assert prefix.supports(gemma)
    if trunk.of(gemma) is not None:  # a version that scales inside its embedding module
        packed = prefix.pack([[1, 2]], [[3, 4]])
        below = trunk.of(gemma)
        with torch.no_grad():
            wanted = prefix.logits_of(gemma, packed, packed.places[0])
            prefix.logits_of(gemma, packed, packed.places[0], below)
            assert torch.equal(prefix.logits_of(gemma, packed, packed.places[0], below), wanted)


@pytest.mark.parametrize("micro_tokens", [12, 1000])
def test_a_step_with_kl_has_the_hand_computed_gradient_and_computes_the_trunk_once(tmp_path, micro_tokens):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cm2.train.engine import make_trainer
    from cm2.train.rl import RlConfig
    from cm2.train.runs import Run
    from rollout.tiny_models import tiny_chat
    from train.test_grpo import SHAPE, by_hand, gradient, made_rows, same

    folder = tmp_path / "model"
    for one in tiny_chat(**SHAPE):
        one.save_pretrained(folder)
    config = RlConfig(
        input="x", output=str(tmp_path / "rl"), model=str(folder), prompts=2, group=3, beta=0.3, layers=1,
        micro_tokens=micro_tokens,
    )  # fmt: skip
    rows = made_rows()
    with Run(config.output, "rl", config, {}) as run:
        made = AutoModelForCausalLM.from_pretrained(folder)
        trainer = make_trainer(run, config, made, AutoTokenizer.from_pretrained(folder), tasks=4)
    trainer.roll = lambda indices, generation: rows
    trainer.current_gradient_accumulation_steps = 1
    assert trainer.trunk is not None and trainer.plain_head
    with torch.no_grad():  # away from the reference, so that the KL term has a gradient
        for parameter in trainer.model.model.layers[1].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    seen = []
    for side in (trainer.model, trainer.ref_model):
        side.model.layers[0].mlp.register_forward_hook(lambda *_, side=side: seen.append(side is trainer.ref_model))
    loss, found = gradient(trainer)
    assert seen and all(seen)  # by the reference alone
    wanted_loss, wanted = by_hand(trainer.model, rows, reference=trainer.ref_model, beta=0.3)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    same(found, wanted)
