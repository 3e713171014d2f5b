"""Models: their dimensions, and what follows from those: parameters, work per token, bytes of cache per token.

A few configurations are known by name; any other is read from its Hugging Face `config.json`.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import ConfigError, Where


class Dims(msgspec.Struct, frozen=True):
    """A decoder with grouped-query attention and a gated MLP, dense or with experts."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    """Inner width of the MLP, of one expert where there are experts."""
    vocab: int
    tied: bool
    """Whether the head is the embedding."""
    experts: int = 1
    active: int = 1
    """Experts that a token passes."""

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def layer(self) -> int:
        """Parameters of a layer that a token passes: the active experts only."""
        return self.attention + 3 * self.hidden * self.mlp * self.active

    @property
    def head(self) -> int:
        """Parameters of the head."""
        return self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        """All parameters; norms, which are a thousandth, are left out."""
        router = self.hidden * self.experts if self.experts > 1 else 0
        layer = self.attention + 3 * self.hidden * self.mlp * self.experts + router
        return self.layers * layer + self.head * (1 if self.tied else 2)

    @property
    def passed(self) -> int:
        """Parameters in the matrix products of one token."""
        return self.layers * self.layer + self.head

    @property
    def moe(self) -> bool:
        """Whether there are experts."""
        return self.experts > 1

    def cache(self, bytes_each: int = 2) -> int:
        """Bytes of keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_each

    def forward(self, context: float = 0.0, head: bool = True) -> float:
        """FLOP of one token's forward pass that sees `context` tokens."""
        products = self.layers * self.layer + (self.head if head else 0)
        return 2.0 * products + 4.0 * self.layers * self.heads * self.head_dim * context

    def activations(self, bytes_each: int = 2) -> int:
        """Bytes of one token that a layer's backward pass needs: inputs of its products, and norms in 32 bits."""
        wide = self.heads * self.head_dim
        narrow = self.kv_heads * self.head_dim
        return 4 * 6 * self.hidden + bytes_each * (3 * wide + 4 * narrow + 4 * self.mlp * self.active)


KNOWN = {
    dims.name.lower(): dims
    for dims in (
        Dims("SmolLM2-135M", 576, 30, 9, 3, 64, 1536, 49152, True),
        Dims("Qwen3-0.6B", 1024, 28, 16, 8, 128, 3072, 151936, True),
        Dims("Qwen3-1.7B", 2048, 28, 16, 8, 128, 6144, 151936, True),
        Dims("Qwen3-4B", 2560, 36, 32, 8, 128, 9728, 151936, True),
        Dims("Qwen3-8B", 4096, 36, 32, 8, 128, 12288, 151936, False),
        Dims("Qwen3-30B-A3B", 2048, 48, 32, 4, 128, 768, 151936, False, experts=128, active=8),
        Dims("Llama-3.1-8B", 4096, 32, 32, 8, 128, 14336, 128256, False),
    )
}
"""From each model's own config.json."""
_SUFFIXES = ("-base", "-instruct", "-instruct-2507", "-thinking-2507")


def dims_of(name: str) -> Dims:
    """The dimensions of a known model, with or without its publisher and -Base or -Instruct, or of a config.json.

    Raises:
        ConfigError: the name is not known and no such file exists; the file is not of a decoder that is understood.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return _read(path)
    short = name.rsplit("/", 1)[-1].lower()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        short = short.removesuffix(suffix)
    short = {"embedded": "smollm2-135m"}.get(short, short)
    if short in KNOWN:
        return KNOWN[short]
    close = difflib.get_close_matches(short, KNOWN, 1)
    hint = f"did you mean {KNOWN[close[0]].name}? " if close else ""
    known = ", ".join(dims.name for dims in KNOWN.values())
    raise ConfigError(
        f"the model {name!r} is not known", fix=f"{hint}give a folder or config.json with --model, or one of {known}"
    )


def _read(path: Path) -> Dims:
    where = Where(file=str(path))
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("there is no such file", where=where, fix="check --model") from error
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=where) from error
    raw = raw.get("text_config", raw)
    try:
        heads = int(raw["num_attention_heads"])
        experts = int(raw.get("num_experts") or raw.get("num_local_experts") or 1)
        inner = raw["moe_intermediate_size"] if raw.get("moe_intermediate_size") else raw["intermediate_size"]
        return Dims(
            name=path.parent.name or str(path),
            hidden=int(raw["hidden_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            mlp=int(inner),
            vocab=int(raw["vocab_size"]),
            tied=bool(raw.get("tie_word_embeddings", True)),
            experts=experts,
            active=int(raw.get("num_experts_per_tok") or 1) if experts > 1 else 1,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"says no {error} of a decoder", where=where, fix="give the model's own config.json"
        ) from error
