"""Attention in two parts is attention: numbers and gradients against a masked softmax over the whole pack."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.train import prefix  # noqa: E402
from cm2.train.cascade import Cascade  # noqa: E402

rows = st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=2, max_size=14)), min_size=1, max_size=7)


def literal(query, key, value, scale, packed):
    """Every token sees the tokens of its own row up to itself, by a mask over the whole pack."""
    size = len(query)
    sees = torch.zeros(size, size, dtype=torch.bool)
    for stand in packed.stands:
        for n, place in enumerate(stand.tolist()):
            sees[place, stand[: n + 1]] = True
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    scores = torch.einsum("nhd,mhd->hnm", query, key) * scale
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("hnm,mhd->nhd", weights, value)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from([(2, 2), (4, 2), (3, 1)]), st.integers(0, 10**6))
def test_numbers_and_gradients_are_those_of_a_masked_softmax(rows, heads, seed):
    packed = prefix.pack([row[:1] for (row,) in rows], [[*row[1:], 0] for (row,) in rows])
    torch.manual_seed(seed)
    shapes = [(packed.ids.shape[1], count, 8) for count in (heads[0], heads[1], heads[1])]
    inputs = [2 * torch.randn(shape) for shape in shapes]
    given = torch.randn(shapes[0])
    found = []
    for attend in (Cascade.apply, literal):
        mine = [one.clone().requires_grad_(True) for one in inputs]
        last = packed.families if attend is not literal else packed
        out = attend(*mine, 0.4, last)
        (out * given).sum().backward()
        found.append([out.detach(), *(one.grad for one in mine)])
    for ours, theirs in zip(*found, strict=True):
        # the kernel's exponential is an approximation, good to about 1e-5 of the largest number
        assert float((ours - theirs).abs().max()) <= 1e-4 * max(1.0, float(theirs.abs().max()))


def test_pieces_of_very_different_lengths_do_not_pad_each_other():
    from cm2.train.cascade import _buckets

    packed = prefix.pack([[1]] * 4, [[2] * 40 + [0], [3] * 3 + [0], [4] * 5 + [0], [5] * 30 + [0]])
    family = packed.families[1]
    buckets = list(_buckets(family))
    assert [tuple(one.places.shape) for one in buckets] == [(2, 40), (2, 5)]
    stood = sorted(place for one in buckets for place in one.places[one.real].tolist())
    assert stood == list(range(family.starts[0], family.starts[-1] + family.lengths[-1]))
