"""Prompt: a text file beside the code that uses it, with a hash that is stored with everything it produced."""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from importlib import resources
from typing import Any

import jinja2
import msgspec

_ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


class Prompt(msgspec.Struct, frozen=True, dict=True):
    """A prompt's name and text; `{{ name }}` stands for what `fill` is given."""

    name: str
    text: str

    @cached_property
    def id(self) -> str:
        """Name and content hash: `judge/turn@1f2e3d4c5b6a`."""
        return f"{self.name}@{hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()}"

    def fill(self, **values: Any) -> str:
        """The text with its values. A value that the text names and that is missing is an error."""
        return self._template.render(**values).strip()

    @cached_property
    def _template(self) -> jinja2.Template:
        return _ENVIRONMENT.from_string(self.text)


@cache
def load(package: str, name: str) -> Prompt:
    """The prompt `prompts/NAME.txt` of a package: `load("cm2.judge", "turn")`."""
    text = resources.files(package).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return Prompt(f"{package.removeprefix('cm2.')}/{name}", text)
