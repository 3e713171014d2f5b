"""GAE and the critic's parts: hand numbers, a second implementation, and what is saved."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.errors import DataError  # noqa: E402
from cm2.train.gae import gae, whitened  # noqa: E402
from cm2.train.value import ValueHead, explained, last_hidden, value_loss, width_of  # noqa: E402
from rollout.tiny_models import tiny_llama  # noqa: E402


def test_gae_gives_the_hand_computed_numbers_and_steps_over_what_was_shown():
    # Sampled: tokens 0, 1 (a step paid 1/2), then two shown ones, then 4, 5 (paid 1/4).
    mask = torch.tensor([[1, 1, 0, 0, 1, 1]])
    rewards = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0, 0.25]])
    values = torch.tensor([[0.4, 0.6, 9.0, 9.0, 0.2, 0.1]])
    found, returns = gae(rewards, values, mask, gamma=0.9, lam=0.5)
    # deltas, last to first: .25 − .1 = .15; .9·.1 − .2 = −.11; .5 + .9·.2 − .6 = .08; .9·.6 − .4 = .14
    a5 = 0.15
    a4 = -0.11 + 0.45 * a5
    a1 = 0.08 + 0.45 * a4
    a0 = 0.14 + 0.45 * a1
    assert found[0].tolist() == pytest.approx([a0, a1, 0, 0, a4, a5], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([a0 + 0.4, a1 + 0.6, 0, 0, a4 + 0.2, a5 + 0.1], abs=1e-6)


def test_at_lambda_and_gamma_one_the_return_is_what_the_rollout_still_earns():
    mask, rewards = torch.tensor([[1, 1, 0, 1]]), torch.tensor([[0.0, 0.5, 0.0, 0.25]])
    found, returns = gae(rewards, torch.tensor([[0.3, -0.2, 7.0, 0.9]]), mask, 1.0, 1.0)
    assert returns[0].tolist() == pytest.approx([0.75, 0.75, 0, 0.25])
    assert found[0].tolist() == pytest.approx([0.45, 0.95, 0, -0.65])


def literally(rewards, values, gamma, lam):
    """A_i = Σ_k (γλ)^k δ_{i+k} of one rollout's sampled tokens."""
    n = len(values)
    deltas = [rewards[i] + gamma * (values[i + 1] if i + 1 < n else 0.0) - values[i] for i in range(n)]
    return [sum((gamma * lam) ** k * deltas[i + k] for k in range(n - i)) for i in range(n)]


NUMBER = st.floats(-2, 2, width=32)
TOKEN = st.tuples(st.booleans(), NUMBER, NUMBER)
ROWS = st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(TOKEN, min_size=n, max_size=n), min_size=1, max_size=4))


@settings(deadline=None, max_examples=150)
@given(ROWS, st.floats(0, 1), st.floats(0, 1))
def test_gae_is_its_definition_whatever_the_mask(rows, gamma, lam):
    mask, rewards, values = (torch.tensor([[token[k] for token in row] for row in rows]).float() for k in range(3))
    found, returns = gae(rewards, values, mask, gamma, lam)
    for i, row in enumerate(rows):
        at = [t for t, token in enumerate(row) if token[0]]
        wanted = literally([row[t][1] for t in at], [row[t][2] for t in at], gamma, lam)
        assert found[i, at].tolist() == pytest.approx(wanted, abs=1e-4)
        assert returns[i, at].tolist() == pytest.approx(
            [a + row[t][2] for a, t in zip(wanted, at, strict=True)], abs=1e-4
        )
        rest = [t for t in range(len(row)) if t not in at]
        assert not found[i, rest].any() and not returns[i, rest].any()


@settings(deadline=None, max_examples=80)
@given(ROWS)
def test_whitening_gives_mean_0_and_deviation_1_over_sampled_tokens_only(rows):
    mask, values = (torch.tensor([[token[k] for token in row] for row in rows]).float() for k in (0, 1))
    found = whitened(values, mask)
    sampled = found[mask.bool()]
    assert not found[~mask.bool()].any()
    if sampled.numel() > 1 and float(values[mask.bool()].std(unbiased=False)) > 1e-3:
        assert float(sampled.mean()) == pytest.approx(0, abs=1e-3)
        assert float(sampled.std(unbiased=False)) == pytest.approx(1, abs=1e-3)


def test_whitening_of_equal_advantages_is_zero_and_that_of_nothing_too():
    assert not whitened(torch.full((2, 3), 0.7), torch.ones(2, 3)).abs().gt(1e-5).any()
    assert not whitened(torch.ones(2, 3), torch.zeros(2, 3)).any()


def test_whitening_over_processes_is_that_of_one_process():
    values, mask = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.ones(4, 5)
    mask[3, 2:] = 0
    parts = [(values[:2], mask[:2]), (values[2:], mask[2:])]
    sums = []  # first what each process gives, then what all have together
    for own, seen in parts:
        whitened(own, seen, lambda given: sums.append(given) or given)
    totals = [sums[0] + sums[2]]
    mean = totals[0][1] / totals[0][0]
    totals.append(sum((((own - mean) * seen) ** 2).sum() for own, seen in parts))
    for own, seen, wanted in zip(values.split(2), mask.split(2), whitened(values, mask).split(2), strict=True):
        answers = iter(totals)
        assert torch.allclose(whitened(own, seen, lambda _, answers=answers: next(answers)), wanted, atol=1e-6)


def test_a_value_that_ran_further_than_the_clip_has_no_gradient_for_going_on():
    old, returns = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, -1.0])
    values = torch.tensor([0.1, 0.5, 0.5], requires_grad=True)  # within; beyond, on the way; beyond, on the wrong way
    loss, cut = value_loss(values, old, returns, 0.2)
    assert loss.tolist() == pytest.approx([0.5 * 0.81, 0.5 * 0.64, 0.5 * 2.25])
    loss.sum().backward()
    assert values.grad.tolist() == pytest.approx([-0.9, 0.0, 1.5])
    assert cut.tolist() == [False, True, False]
    assert value_loss(values, old, returns, None)[0].tolist() == pytest.approx([0.5 * 0.81, 0.5 * 0.25, 0.5 * 2.25])


def test_explained_variance_of_perfect_ignorant_and_harmful_critics():
    returns = torch.tensor([0.0, 1.0, 0.5])
    assert explained(returns, returns) == 1.0
    assert explained(torch.full((3,), 0.2), returns) == pytest.approx(0.0, abs=1e-6)
    assert explained(-returns, returns) == pytest.approx(-3.0, abs=1e-5)
    assert explained(returns, torch.ones(3)) == 0.0


def test_a_head_begins_at_zero_in_float32_and_comes_back_from_a_checkpoint(tmp_path):
    head = ValueHead(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(torch.randn(2, 3, 4, dtype=torch.bfloat16))
    assert found.dtype == torch.float32 and found.shape == (2, 3) and not found.any()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        head.bias.fill_(0.5)
    head.save(str(tmp_path))
    other = ValueHead(4)
    other.load(str(tmp_path))
    assert float(other(torch.ones(4)).detach()) == 10.5
    with pytest.raises(DataError, match="no value head"):
        other.load(str(tmp_path / "elsewhere"))


def test_the_last_hidden_state_is_what_the_head_of_the_model_reads():
    model = tiny_llama()
    with last_hidden(model) as seen:
        out = model(input_ids=torch.tensor([[1, 2, 3]]))
    assert len(seen) == 1 and seen[0].shape == (1, 3, width_of(model))
    assert torch.allclose(model.get_output_embeddings()(seen[0]), out.logits, atol=1e-5)
    model(input_ids=torch.tensor([[1]]))
    assert len(seen) == 1  # it no longer listens
