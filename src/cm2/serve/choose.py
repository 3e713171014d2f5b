"""Choosing who decodes: an outside server where one is installed or named."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from cm2.errors import ConfigError, MissingExtra
from cm2.rollout.template import ChatTemplate, renders_tools
from cm2.serve.backend import Backend
from cm2.serve.config import ServeConfig
from cm2.serve.outside import Outside
from cm2.serve.sglang import SGLang
from cm2.serve.vllm import VLLM

KNOWN: dict[str, type[Outside]] = {"vllm": VLLM, "sglang": SGLang}


def choose(config: ServeConfig) -> tuple[ChatTemplate, Backend] | None:
    """The outside server that is to decode, if any.

    Raises:
        ConfigError: the named one is not installed, or cannot serve this checkpoint.
    """
    if config.backend == "cm2":
        return None
    names = list(KNOWN) if config.backend == "auto" else [config.backend]
    for name in names:
        python = interpreter(name)
        if python is not None:
            folder, template, longest = _read(config.checkpoint)
            context = min(config.context or longest, longest)
            return template, KNOWN[name](python, folder, config, template, context)
    if config.backend == "auto":
        return None
    variable = f"CM2_{config.backend.upper()}_PYTHON"
    fix = f"install it, or let {variable} name the interpreter of an environment that has it, or use --backend cm2"
    raise ConfigError(f"{config.backend} is not installed here", fix=fix)


def interpreter(name: str) -> str | None:
    """The interpreter that has the server: $CM2_VLLM_PYTHON (or $CM2_SGLANG_PYTHON), else our own, else none."""
    named = os.environ.get(f"CM2_{name.upper()}_PYTHON")
    return named or (sys.executable if importlib.util.find_spec(name) else None)


def _read(checkpoint: str) -> tuple[str, ChatTemplate, int]:
    """(folder or name, template, the model's longest sequence)."""
    try:
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("reading a checkpoint's template", "train") from error
    from cm2.train.embedded import NAME, embedded_folder

    folder = str(embedded_folder()) if checkpoint == NAME else checkpoint
    if folder.startswith(("/", "./", "../", "~")) and not Path(folder).is_dir():
        raise ConfigError(f"the checkpoint {folder} does not exist", fix='check the path, or use "embedded"')
    try:
        tokenizer, settings = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    except Exception as error:  # a broken file shows as any of a dozen types
        raise ConfigError(f"the checkpoint {folder} cannot be read: {error}") from error
    if not renders_tools(tokenizer):
        fix = "train it, or load it with cm2.train.embedded.load_model and save both; or use --backend cm2"
        raise ConfigError(f"{folder} has no chat template for tools, and only a saved one can be served", fix=fix)
    return folder, ChatTemplate(tokenizer), getattr(settings, "max_position_embeddings", None) or 2**31
