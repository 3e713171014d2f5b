"""LlamaEngine: a lean decoder for Llama-family models on a CPU.

transformers spends most of a decode step outside its matrix products. Here q, k and v are one product and so are gate
and up, weights are packed once for the processor (bfloat16 where it multiplies it natively), the residual stream stays
fp32, everything between the products is one C call each (or torch, without a compiler), rows of any length go through
one ragged pass, and logits are computed for the last token of each row only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import linear

from cm2.rollout import kernels
from cm2.rollout.dense import DenseCache
from cm2.rollout.paged import PagedCache

_PREFILL_TOKENS = 1024
"""Longest ragged pass; more tokens than that are read in several."""
_ROWS = 16
"""Rows of a typical product, which the packing of weights is made for."""


def native_dtype() -> torch.dtype:
    """bfloat16 where this processor multiplies it natively, else float32."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16() else torch.float32


def _has_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe is not None and probe())


def unwrap(model: Any) -> Any:
    """The causal language model inside wrappers of accelerate, DDP or PEFT."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


def is_lean(model: Any) -> bool:
    """Whether `LlamaEngine` can run this model: Llama's own arithmetic, fixed rotary tables, on the CPU."""
    config = unwrap(model).config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        and config.hidden_size % 16 == 0
        and config.intermediate_size % 16 == 0
        and unwrap(model).model.layers[0].self_attn.head_dim % 16 == 0
        and next(model.parameters()).device.type == "cpu"
    )


@contextlib.contextmanager
def merged(model: Any) -> Iterator[Any]:
    """The base model, with PEFT adapters added into its weights while the context lasts."""
    while hasattr(model, "module"):
        model = model.module
    if not hasattr(model, "merge_adapter"):
        yield model
        return
    model.merge_adapter()
    try:
        yield model.get_base_model()
    finally:
        model.unmerge_adapter()


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies few rows by weights of this type faster once they lie as it wants them."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and torch.backends.mkldnn.is_available() and _has_avx2()


def _has_avx2() -> bool:
    probe = getattr(torch.cpu, "_is_avx2_supported", None)
    return bool(probe is not None and probe())


class _Linear:
    """x @ weight.T + bias with a weight that was packed for the processor once; `weight` is a copy that it may keep."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype):
        weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self.packed = _packs(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if self.packed else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return linear(x, self.weight, self.bias)


class LlamaWeights:
    """A copy of a model's weights as `LlamaEngine`s read them; several engines may share it.

    Args:
        model: a model for which `is_lean` holds.
        dtype: of the products and the cache; default what the processor is best at.
    """

    def __init__(self, model: Any, dtype: torch.dtype | None = None):
        self.dtype = native_dtype() if dtype is None else dtype
        core = unwrap(model)
        config = core.config
        self.layers = config.num_hidden_layers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = core.model.layers[0].self_attn.head_dim
        self.eps = config.rms_norm_eps
        self.positions = config.max_position_embeddings
        self.cos, self.sin = self._rotary(core)
        self.update(model)

    def _rotary(self, core: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(positions, head_dim / 2) tables in fp32, made by the model's own rotary embedding."""
        index = torch.arange(self.positions)[None]
        cos, sin = core.model.rotary_emb(torch.zeros(1, 1, 1), index)
        half = self.head_dim // 2
        return cos[0, :, :half].float().contiguous(), sin[0, :, :half].float().contiguous()

    @torch.no_grad()
    def update(self, model: Any) -> None:
        """Copy the weights that `model` has now."""
        with merged(model) as core:
            self.linears: list[dict[str, _Linear]] = []
            self.norms: list[tuple[torch.Tensor, torch.Tensor]] = []
            for layer in core.model.layers:
                attention, mlp = layer.self_attn, layer.mlp
                parts = {
                    "qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
                    "o": [attention.o_proj],
                    "gate_up": [mlp.gate_proj, mlp.up_proj],
                    "down": [mlp.down_proj],
                }
                self.linears.append({name: self._join(modules) for name, modules in parts.items()})
                norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
                self.norms.append((_fp32(norms[0]), _fp32(norms[1])))
            self.final_norm = _fp32(core.model.norm.weight)
            self.embedding = core.model.embed_tokens.weight.detach().to(self.dtype, copy=True)
            tied = core.lm_head.weight is core.model.embed_tokens.weight
            head = self.embedding if tied else core.lm_head.weight.detach().to(self.dtype, copy=True)
            self.head = _Linear(head, getattr(core.lm_head, "bias", None), self.dtype)

    def _join(self, modules: list[Any]) -> _Linear:
        modules = [getattr(module, "base_layer", module) for module in modules]
        weight = torch.cat([module.weight for module in modules])
        bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
        return _Linear(weight, bias, self.dtype)


def _fp32(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to(torch.float32, copy=True).contiguous()


class LlamaEngine:
    """One thread's decoder over shared weights. See `cm2.rollout.engine.Engine` for the methods.

    Args:
        weights: shared with other engines.
        compiled: use the C kernels; None uses them where they can be compiled.
    """

    def __init__(self, weights: LlamaWeights, compiled: bool | None = None):
        self.weights = weights
        shape = (
            weights.layers,
            weights.heads,
            weights.kv_heads,
            weights.head_dim,
            weights.dtype,
            weights.cos,
            weights.sin,
        )
        library = None if compiled is False else kernels.load(weights.dtype == torch.bfloat16)
        scale = weights.head_dim**-0.5
        self.cache: PagedCache | DenseCache
        self.cache = DenseCache(*shape, scale) if library is None else PagedCache(library, *shape, scale)

    def update_weights(self, model: Any) -> None:
        """Copy the weights that `model` has now, for every engine that shares them."""
        self.weights.update(model)

    def start(self, prompts: list[list[int]]) -> tuple[list[int], torch.Tensor]:
        """See `Engine.start`."""
        rows = [self.cache.open() for _ in prompts]
        return rows, self.extend(rows, prompts)

    def fork(self, rows: list[int]) -> list[int]:
        """See `Engine.fork`; with the C kernels nothing is copied until the rows part."""
        return [self.cache.fork(row) for row in rows]

    def close(self, rows: list[int]) -> None:
        """See `Engine.close`."""
        for row in rows:
            self.cache.close(row)

    def extend(self, rows: list[int], ids: list[list[int]]) -> torch.Tensor:
        """See `Engine.extend`; unlike there, rows may be left out."""
        return self.read(rows, ids, [1] * len(rows))

    def trim(self, rows: list[int], lengths: list[int]) -> None:
        """Forget what stands in these rows beyond their first so many ids."""
        for row, length in zip(rows, lengths, strict=True):
            self.cache.trim(row, length)

    def read(self, rows: list[int], ids: list[list[int]], wanted: list[int]) -> torch.Tensor:
        """Append ids to rows. Returns logits after each of the last `wanted[i]` ids of row i: (sum, vocabulary)."""
        found, start = [], 0
        while start < len(rows):
            stop, tokens = start, 0
            while stop < len(rows) and (stop == start or tokens + len(ids[stop]) <= _PREFILL_TOKENS):
                tokens += len(ids[stop])
                stop += 1
            found.append(self._pass(rows[start:stop], ids[start:stop], wanted[start:stop]))
            start = stop
        return torch.cat(found) if len(found) > 1 else found[0]

    def _pass(self, rows: list[int], ids: list[list[int]], wanted: list[int]) -> torch.Tensor:
        """One ragged forward pass; see `read`."""
        weights, cache = self.weights, self.cache
        counts = [len(piece) for piece in ids]
        cache.plan(rows, counts)
        flat = torch.tensor([token for piece in ids for token in piece])
        hidden = weights.embedding[flat].float()
        delta: Any = None
        for layer in range(weights.layers):
            linears, (before_attention, before_mlp) = weights.linears[layer], weights.norms[layer]
            x = cache.add_norm(hidden, delta, before_attention, weights.eps)
            attended = cache.attention(layer, linears["qkv"](x))
            x = cache.add_norm(hidden, linears["o"](attended), before_mlp, weights.eps)
            delta = linears["down"](cache.silu_mul(linears["gate_up"](x)))
        ends = np.cumsum(counts)
        last = torch.from_numpy(np.concatenate([np.arange(e - n, e) for e, n in zip(ends, wanted, strict=True)]))
        hidden, delta = hidden[last], delta[last]
        return weights.head(cache.add_norm(hidden, delta, weights.final_norm, weights.eps))
