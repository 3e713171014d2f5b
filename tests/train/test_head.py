"""Log-probabilities without logits: the numbers and the gradient of the plain way."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.train import head as module  # noqa: E402
from cm2.train.head import Head, usable  # noqa: E402


def plain(hidden, weight, bias, line, ids, temperature):
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    logps = torch.log_softmax(logits, -1)
    return logps[line, ids], -(logps.exp() * logps).sum(-1)


def test_two_ids_of_one_place_by_hand():
    """logits (0, log 3): p = (1/4, 3/4). Both ids are drawn there, with weights 1 and 2.

    d/dh = 1 (W0 - m) + 2 (W1 - m), m = W0 / 4 + 3 W1 / 4; W0 = (0, 0), W1 = (1, 0): (2 - 3 * 3 / 4, 0) = (-1/4, 0).
    """
    hidden = torch.tensor([[3.0, 5.0]]).log().requires_grad_(True)
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    line, ids = torch.tensor([0, 0]), torch.tensor([0, 1])
    chosen, entropies = Head.apply(hidden, weight, None, line, ids, 1.0, True)
    assert chosen.tolist() == pytest.approx([-1.3862944, -0.2876821])
    assert entropies.tolist() == pytest.approx([0.25 * 1.3862944 + 0.75 * 0.2876821])
    (chosen * torch.tensor([1.0, 2.0])).sum().backward()
    assert hidden.grad.tolist()[0] == pytest.approx([-0.25, 0.0], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 12), st.sampled_from([1.0, 0.7, 2.0]), st.booleans(), st.integers(1, 4),
    st.integers(0, 10**6),
)  # fmt: skip
def test_numbers_and_gradient_are_those_of_the_plain_way(places, drawn, temperature, biased, chunk, seed):
    before = module.CHUNKS["cpu"]
    module.CHUNKS["cpu"] = chunk
    try:
        torch.manual_seed(seed)
        hidden, weight = torch.randn(places, 6), torch.randn(11, 6)
        bias = torch.randn(11) if biased else None
        line, ids = torch.randint(places, (drawn,)), torch.randint(11, (drawn,))
        given = torch.randn(drawn)
        mine, theirs = (hidden.clone().requires_grad_(True) for _ in range(2))
        chosen, entropies = Head.apply(mine, weight, bias, line, ids, temperature, True)
        (chosen * given).sum().backward()
        wanted, wanted_entropies = plain(theirs, weight, bias, line, ids, temperature)
        (wanted * given).sum().backward()
        torch.testing.assert_close(chosen, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(entropies, wanted_entropies, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    finally:
        module.CHUNKS["cpu"] = before


def test_a_head_that_is_trained_or_a_shard_is_left_to_the_plain_way():
    head = torch.nn.Linear(4, 5)
    assert not usable(head)
    with torch.no_grad():
        assert usable(head)
    head.requires_grad_(False)
    assert usable(head)
    head.weight.data = head.weight.data[:0]
    assert not usable(head)
