"""The C kernels against the same mathematics in torch, and what happens without a compiler."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402
from torch.nn.functional import rms_norm, silu  # noqa: E402

from cm2.rollout import kernels  # noqa: E402
from cm2.rollout.dense import DenseCache  # noqa: E402
from cm2.rollout.paged import BLOCK, PagedCache  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LONGEST = 200


@pytest.fixture(params=DTYPES)
def dtype(request):
    """A storage type for which there are kernels."""
    if kernels.load(request.param == "bfloat16") is None:
        pytest.skip("there is no C compiler")
    return DTYPES[request.param]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal within the rounding of their type."""
    share = 2e-5 if a.dtype == torch.float32 else 3e-2
    return bool(((a.float() - b.float()).abs() <= share * (1 + b.float().abs())).all())


def caches(dtype, heads=6, kv_heads=2, head_dim=32, layers=2) -> tuple[PagedCache, DenseCache]:
    angle = torch.outer(torch.arange(LONGEST), 10000 ** (-torch.arange(head_dim // 2) / (head_dim // 2)))
    shape = (layers, heads, kv_heads, head_dim, dtype, angle.cos(), angle.sin(), head_dim**-0.5)
    return PagedCache(kernels.load(dtype == torch.bfloat16), *shape), DenseCache(*shape)


@pytest.mark.parametrize("tokens, width", [(1, 16), (3, 64), (7, 576)])
def test_add_norm_adds_in_place_and_normalises(dtype, tokens, width):
    paged, dense = caches(dtype)
    hidden, weight = torch.randn(tokens, width), torch.rand(width) + 0.5
    delta = torch.randn(tokens, width).to(dtype)
    for given in (None, delta):
        ours, theirs = hidden.clone(), hidden.clone()
        out = paged.add_norm(ours, given, weight, 1e-5)
        assert out.dtype == dtype and close(out, dense.add_norm(theirs, given, weight, 1e-5))
        assert torch.equal(ours, theirs) and torch.equal(ours, hidden + delta.float() if given is not None else hidden)
        assert close(out, rms_norm(ours, (width,), weight, 1e-5).to(dtype))


@pytest.mark.parametrize("tokens, width", [(1, 16), (5, 96), (3, 1536)])
def test_silu_mul_is_silu_of_the_gate_times_up(dtype, tokens, width):
    paged, dense = caches(dtype)
    gate_up = (torch.randn(tokens, 2 * width) * 20).to(dtype)
    gate_up[:, :8] = torch.tensor([-88.0, -90.0, -500.0, -1e30, 88.0, 90.0, 500.0, 1e18])  # exp of them overflows
    out = paged.silu_mul(gate_up)
    gate, up = gate_up.double().chunk(2, -1)
    assert close(out, (silu(gate) * up).to(dtype)) and close(dense.silu_mul(gate_up), out)


def fed(cache, rows: list[int], counts: list[int], qkv: torch.Tensor, layer: int) -> torch.Tensor:
    cache.plan(rows, counts)
    return cache.attention(layer, qkv)


SHAPES = [(1, 1, 16), (2, 2, 16), (4, 2, 32), (6, 2, 32), (9, 3, 64), (5, 1, 48), (8, 1, 128), (7, 7, 80)]


@pytest.mark.parametrize("heads, kv_heads, head_dim", SHAPES)
def test_attention_of_every_grouping_is_torchs(dtype, heads, kv_heads, head_dim):
    """Ragged passes over several rows, across the borders of blocks; the two caches store and read the same."""
    paged, dense = caches(dtype, heads, kv_heads, head_dim)
    ours, theirs = [paged.open() for _ in range(3)], [dense.open() for _ in range(3)]
    generator = torch.Generator().manual_seed(heads)
    for counts in ([5, 16, 40], [1, 1, 1], [11, 1, 17], [1, 33, 1], [1, 1, 1]):
        qkv = torch.randn(sum(counts), (heads + 2 * kv_heads) * head_dim, generator=generator).to(dtype)
        outputs = []
        for cache, rows in ((paged, ours), (dense, theirs)):
            cache.plan(rows, counts)
            outputs.append([cache.attention(layer, given) for layer, given in enumerate((qkv, -qkv.flip(0)))])
        assert all(close(*pair) for pair in zip(*outputs, strict=True))


def test_attention_is_softmax_of_rotated_products(dtype):
    """One head, written out: position p attends to 0 … p and to nothing after it."""
    paged, _ = caches(dtype, 1, 1, 16, 1)
    row, length = paged.open(), 37
    qkv = torch.randn(length, 48, generator=torch.Generator().manual_seed(3)).to(dtype)
    out = fed(paged, [row], [length], qkv, 0)
    query, key, value = qkv.float().split(16, -1)

    def rotate(x):
        cos, sin, a, b = paged.cos[:length], paged.sin[:length], *x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    scores = rotate(query) @ rotate(key).T * 16**-0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    assert close(out, (scores.softmax(-1) @ value).to(dtype))


@pytest.mark.parametrize("size", [60, 1e4])
def test_scores_of_any_size_give_a_mean_of_the_values(dtype, size):
    """What overflows in a softmax done carelessly: a mean never leaves the range of what it is the mean of."""
    paged, _ = caches(dtype, 1, 1, 16, 1)
    qkv = (torch.randn(50, 48, generator=torch.Generator().manual_seed(0)) * size).to(dtype)
    out, values = fed(paged, [paged.open()], [50], qkv, 0).float(), qkv[:, 32:].float()
    slack = 1e-2 * size
    assert torch.isfinite(out).all()
    assert (out <= values.cummax(0).values + slack).all() and (out >= values.cummin(0).values - slack).all()


def test_a_fork_shares_its_blocks_until_somebody_writes(dtype):
    paged, _ = caches(dtype)
    first = paged.open()
    fed(paged, [first], [BLOCK + 3], torch.randn(BLOCK + 3, 320).to(dtype), 0)
    siblings = [paged.fork(first) for _ in range(3)]
    assert len(paged.readers) == 2 and set(paged.readers.values()) == {4}
    fed(paged, siblings[:1], [1], torch.randn(1, 320).to(dtype), 0)
    assert sorted(paged.readers.values()) == [1, 3, 4]  # the full block is still shared, the open one was copied once
    for row in [first, *siblings]:
        paged.close(row)
    assert paged.readers == {} and sorted(paged.free_rows) == list(range(64))


def test_closed_rows_give_their_blocks_back_and_memory_stays_bounded(dtype):
    paged, _ = caches(dtype)
    for _ in range(40):
        rows = [paged.open() for _ in range(100)]
        fed(paged, rows, [17] * 100, torch.zeros(1700, 320).to(dtype), 0)
        for row in rows:
            paged.close(row)
    blocks = len(paged.free_blocks)
    assert len(paged.lengths) == 128 and len(paged.chunks) == 1 and blocks >= 200 and paged.readers == {}


@pytest.mark.parametrize("which", [0, 1])
def test_a_row_longer_than_the_model_is_refused(which):
    if kernels.load(False) is None:
        pytest.skip("there is no C compiler")
    cache = caches(torch.float32)[which]
    row = cache.open()
    cache.plan([row], [LONGEST])
    with pytest.raises(ValueError, match="longer than the model's 200"):
        cache.plan([row], [1])


def test_without_a_compiler_there_are_no_kernels_and_no_noise(monkeypatch):
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.load.__wrapped__(False) is None


def test_kernels_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("CM2_KERNELS", "0")
    assert kernels.load.__wrapped__(False) is None


def test_a_compiler_that_fails_is_told_once_and_decoding_goes_on(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CM2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels.shutil, "which", lambda name: str(compiler) if name == "cc" else None)
    with pytest.warns(UserWarning, match="rollouts run slower.*no such flag"):
        assert kernels.load.__wrapped__(False) is None
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made is left


def test_kernels_are_compiled_once_a_machine(monkeypatch, tmp_path):
    if kernels.load(False) is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setenv("CM2_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "FLAGS", ("-std=gnu11", "-shared", "-fPIC"))  # no optimisation: quick to compile
    assert kernels.load.__wrapped__(False) is not None
    (made,) = tmp_path.iterdir()
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert kernels.load.__wrapped__(False) is not None and made.stat().st_mtime_ns == before


def test_loading_the_kernels_leaves_the_processes_arithmetic_alone():
    """A library built for fast mathematics would flush subnormal numbers to zero in everything that runs after it."""
    code = "from cm2.rollout import kernels; kernels.load(False); kernels.load(True); assert 2.0**-1022 / 2 > 0"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_rollout_room_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import cm2.rollout.collect, cm2.rollout.sampling, cm2.rollout.driver"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
