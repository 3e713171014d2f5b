"""How many tokens a prompt has, before anybody has counted them.

With a tokenizer file of the model (and the package `tokenizers`) the text is really encoded; what the chat template
adds is taken as 4 tokens a message. Without one it is an estimate: a token for 3 bytes. Of dialogues as JSON the
embedded model's tokenizer (49k tokens) makes one for 2.6 to 3.4 bytes, larger vocabularies fewer, so that the estimate
is high for them. Nobody has more tokens than bytes: that bounds what a call may cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import ConfigError, Where
from cm2.formats.jsonlines import encode
from cm2.llm.config import RoleModel

BYTES_PER_TOKEN = 3.0
PER_MESSAGE = 4
"""Tokens that a chat template puts around a message."""


class Counter(msgspec.Struct, frozen=True):
    """Counts tokens; `exact` where a tokenizer does it."""

    file: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the model's own tokenizer counts."""
        return self.file is not None

    def text(self, text: str) -> int:
        """The tokens of a text."""
        if self.file is None:
            return estimate(len(text.encode("utf-8", "replace")))
        text = text.encode("utf-8", "replace").decode()
        return len(_tokenizer(self.file).encode(text, add_special_tokens=False).ids)

    def messages(self, messages: list[dict[str, Any]]) -> int:
        """The tokens of a prompt."""
        return sum(self.text(text) for text in _texts(messages)) + PER_MESSAGE * len(messages) + PER_MESSAGE


def counter_of(model: RoleModel) -> Counter:
    """What counts for a model: its tokenizer file, or one that stands in the folder that it names; else an estimate.

    Raises:
        ConfigError: there is no such file, or `tokenizers` is not installed.
    """
    asked = Path(model.tokenizer or model.model).expanduser()
    file = asked / "tokenizer.json" if asked.is_dir() else asked
    if not model.tokenizer and (file.name != "tokenizer.json" or not file.is_file()):
        return Counter()
    try:
        _tokenizer(str(file))
    except ImportError as error:
        if not model.tokenizer:
            return Counter()
        fix = "run: pip install tokenizers, or leave `tokenizer` out for an estimate"
        raise ConfigError("counting with a tokenizer needs the package tokenizers", fix=fix) from error
    except Exception as error:  # the library raises bare Exceptions
        told = f"is no tokenizer file: {str(error)[:200]}"
        raise ConfigError(
            told, where=Where(file=str(file)), fix="name a tokenizer.json, or a folder with one"
        ) from error
    return Counter(str(file))


def estimate(size: int) -> int:
    """About how many tokens so many bytes are."""
    return -int(-size // BYTES_PER_TOKEN)


def size(messages: list[dict[str, Any]], schema: Any = None) -> int:
    """The bytes of a prompt: no tokenizer makes more tokens of it, but for what the template puts around messages."""
    written = len(encode(messages)) + (len(encode(schema)) if schema is not None else 0)
    return written + 2 * PER_MESSAGE * (len(messages) + 1)


def _texts(value: Any) -> Iterator[str]:
    """The texts of messages, content first; what is not text counts as its JSON."""
    for message in value:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif content is not None:
            yield encode(content).decode()
        rest = {name: one for name, one in message.items() if name not in ("role", "content")}
        if rest:
            yield encode(rest).decode()


@lru_cache(maxsize=8)
def _tokenizer(file: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)
