"""Drawing tokens: the right distribution, the same with and without C, randomness that belongs to the rollout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from scipy.stats import chisquare, kstest  # noqa: E402

from cm2.errors import ConfigError  # noqa: E402
from cm2.rollout import kernels  # noqa: E402
from cm2.rollout.sampling import Sampling, draw, uniforms  # noqa: E402

needs_compiler = pytest.mark.skipif(kernels.load(False) is None, reason="there is no C compiler")
MANY = 8_000


@pytest.fixture(params=["C", "torch"])
def path(request, monkeypatch):
    """Both ways of drawing: compiled, and with torch."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "load", lambda bf16: None)
    elif kernels.load(False) is None:
        pytest.skip("there is no C compiler")
    return request.param


def some_logits(rows: int, vocabulary: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def counts(logits: torch.Tensor, sampling: Sampling) -> np.ndarray:
    """How often each token is drawn from one row of logits."""
    numbers = uniforms(1, np.arange(MANY), np.zeros(MANY, dtype=np.int64))
    ids, _ = draw(logits.expand(MANY, -1).contiguous(), numbers, sampling)
    return np.bincount(ids, minlength=logits.shape[-1])


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("vocabulary", [7, 97, 600])
def test_tokens_are_drawn_as_often_as_softmax_says(path, temperature, vocabulary):
    logits = some_logits(1, vocabulary)
    expected = torch.softmax(logits[0].double() / temperature, -1).numpy() * MANY
    seen = counts(logits, Sampling(temperature=temperature))
    rare = expected < 8  # pooled: the test wants a few of each
    pooled = [np.append(found[~rare], found[rare].sum()) for found in (seen, expected)]
    keep = pooled[1] > 0
    assert chisquare(pooled[0][keep], pooled[1][keep] * pooled[0].sum() / pooled[1].sum()).pvalue > 1e-4


def test_the_number_is_the_place_in_the_distribution_function(path):
    """Inverse CDF: token i is drawn exactly for numbers between the sums of probability before and after it."""
    logits = some_logits(1, 50)
    p = torch.softmax(logits[0].double(), -1).numpy()
    below, above = np.cumsum(p) - p, np.cumsum(p)
    middle = (below + above) / 2
    for numbers in (middle, below + 1e-5, above - 1e-5):
        wide = above - below > 1e-4
        ids, _ = draw(logits.expand(50, -1).contiguous(), numbers, Sampling())
        assert np.array_equal(np.array(ids)[wide], np.arange(50)[wide])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_log_probability_is_that_of_the_whole_softmax_at_the_temperature(path, temperature):
    logits = some_logits(64, 1000)
    numbers = uniforms(3, np.arange(64), np.zeros(64, dtype=np.int64))
    for sampling in (Sampling(temperature=temperature), Sampling(temperature=temperature, top_k=5, top_p=0.9)):
        ids, logprobs = draw(logits, numbers, sampling)
        expected = torch.log_softmax(logits.double() / temperature, -1)[range(64), ids]
        assert np.allclose(logprobs, expected.numpy(), atol=2e-5)


def test_greedy_takes_the_likeliest_and_records_temperature_one(path):
    logits = some_logits(64, 1000)
    ids, logprobs = draw(logits, np.full(64, 0.999), Sampling(temperature=0))
    assert ids == logits.argmax(-1).tolist()
    assert np.allclose(logprobs, torch.log_softmax(logits, -1).max(-1).values.numpy(), atol=2e-5)


def test_greedy_takes_the_first_of_equals(path):
    logits = torch.zeros(2, 70)
    logits[0, 20] = logits[0, 68] = logits[1, 69] = 3.0
    assert draw(logits, np.array([0.5, 0.5]), Sampling(temperature=0))[0] == [20, 69]


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([1, 2, 15, 16, 17, 511, 512, 513, 1500]),
    scale=st.sampled_from([0.0, 0.1, 3.0, 30.0]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    bf16=st.booleans(),
)
def test_the_compiled_draw_is_the_torch_draw(seed, vocabulary, scale, temperature, bf16):
    logits = some_logits(32, vocabulary, seed, scale)
    logits = logits.to(torch.bfloat16) if bf16 else logits
    numbers = uniforms(seed, np.arange(32), np.arange(32))
    sampling = Sampling(temperature=temperature)
    ids, logprobs = draw(logits, numbers, sampling)
    p = torch.softmax(logits.double() / (temperature or 1.0), -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "load", lambda bf16: None)
        others, other_logprobs = draw(logits, numbers, sampling)
    mass = p.cumsum(-1)
    for row in range(32):
        if ids[row] == others[row]:
            assert abs(logprobs[row] - other_logprobs[row]) < 1e-4
        else:  # only where the number falls on the border between the two, within rounding
            low, high = sorted((ids[row], others[row]))
            assert abs(mass[row, low] - numbers[row]) < 1e-5 and mass[row, high - 1] - mass[row, low] < 1e-5


@pytest.mark.parametrize("k", [1, 3, 10, 2000])
def test_top_k_draws_from_the_k_likeliest_only_and_in_proportion(k):
    logits = some_logits(1, 300)
    seen = counts(logits, Sampling(top_k=k))
    best = set(logits[0].topk(min(k, 300)).indices.tolist())
    assert set(np.nonzero(seen)[0].tolist()) <= best
    p = torch.softmax(logits[0].double(), -1).numpy()
    p = np.where([i in best for i in range(300)], p, 0)
    expected = p / p.sum() * MANY
    usual = expected > 8
    assert (np.abs(seen - expected)[usual] < 6 * np.sqrt(expected[usual])).all()


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("vocabulary, scale", [(40, 2.0), (3000, 0.3), (3000, 4.0)])
def test_top_p_draws_from_the_smallest_set_with_that_mass(top_p, vocabulary, scale):
    """A flat distribution over many tokens needs more candidates than are looked at first."""
    logits = some_logits(1, vocabulary, scale=scale)
    p, order = torch.softmax(logits[0].double(), -1).sort(descending=True)
    before = p.cumsum(0) - p
    sampling = Sampling(top_p=top_p)
    allowed = set(order[before < top_p + 1e-5].tolist())
    numbers = uniforms(1, np.arange(500), np.zeros(500, dtype=np.int64))
    ids, _ = draw(logits.expand(500, -1).contiguous(), np.append(numbers[:-2], [0.0, 1 - 1e-4]), sampling)
    assert set(ids) <= allowed and order[0].item() in ids
    reached = (before + p)[order == ids[-1]].item()  # the last number falls at the end of the set
    assert reached >= top_p - 1e-3


def test_top_p_is_taken_of_what_top_k_left():
    logits = torch.log(torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1]]))
    assert set(np.nonzero(counts(logits, Sampling(top_k=2, top_p=0.6)))[0].tolist()) == {0}
    assert set(np.nonzero(counts(logits, Sampling(top_k=2, top_p=0.7)))[0].tolist()) == {0, 1}


def test_a_token_without_any_probability_is_never_drawn(path):
    logits = torch.full((1, 200), -float("inf"))
    logits[0, 50], logits[0, 150] = 1.0, 1.0
    assert set(np.nonzero(counts(logits, Sampling()))[0].tolist()) == {50, 150}
    for number in (0.0, 1 - 2**-53):
        assert draw(logits, np.array([number]), Sampling())[0][0] in (50, 150)


def test_numbers_are_uniform_in_rollout_and_in_position():
    count = 50_000
    for rollouts, positions in ((np.arange(count), np.zeros(count, int)), (np.zeros(count, int), np.arange(count))):
        numbers = uniforms(0, rollouts, positions)
        assert numbers.dtype == np.float64 and (numbers >= 0).all() and (numbers < 1).all()
        assert kstest(numbers, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**63 - 1), st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 10**6)), min_size=1, max_size=9)
)
def test_a_rollouts_numbers_do_not_depend_on_who_stands_beside_it(seed, places):
    rollouts, positions = (np.array(column) for column in zip(*places, strict=True))
    together = uniforms(seed, rollouts, positions)
    alone = [uniforms(seed, rollouts[i : i + 1], positions[i : i + 1])[0] for i in range(len(places))]
    assert together.tolist() == alone


def test_seed_rollout_and_position_all_matter():
    def at(seed, rollout, position):
        return uniforms(seed, np.array([rollout]), np.array([position]))[0]

    assert len({at(*place) for place in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, -1, 0))}) == 6


WRONG = [("temperature", -0.1), ("top_p", 0), ("top_p", 1.1), ("top_k", -1), ("max_step_tokens", 0), ("max_tokens", 0)]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Sampling(**{name: value})
