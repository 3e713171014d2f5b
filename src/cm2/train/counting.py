"""Counting tokens with a model's own tokenizer, without its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from cm2.errors import ConfigError, MissingExtra
from cm2.train.embedded import NAME, embedded_folder


def token_counter(name_or_path: str) -> Callable[[str], int]:
    """A function from a text to how many tokens it has. Texts that come again (tools, system prompts) are counted once.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: there is no such tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as problem:
        raise MissingExtra("counting tokens with a tokenizer", "train") from problem
    source = str(embedded_folder()) if name_or_path == NAME else name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as problem:
        fix = "give 'embedded', a model folder or a Hugging Face name"
        raise ConfigError(f"no tokenizer of {name_or_path} can be loaded: {problem}", fix=fix) from problem

    @lru_cache(maxsize=4096)
    def count(text: str) -> int:
        return len(tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False))

    return count
