"""Serving: a checkpoint behind `cm2 serve` for as long as it is evaluated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from cm2.serve.child import KEY_ENV, Served, serving
from cm2.serve.config import Thinking


@contextlib.contextmanager
def served(checkpoint: str, thinking: Thinking, **settings: Any) -> Iterator[Served]:
    """Serve a checkpoint on a free port of this machine; its key is in the environment variable `KEY_ENV` meanwhile.

    Args:
        checkpoint: a folder, a name, or "embedded".
        thinking: keep or drop, for the server and for the harness alike.
        settings: further fields of `ServeConfig`.

    Raises:
        ConfigError: it did not start; the message ends with its own words.
    """
    before = os.environ.get(KEY_ENV)
    with serving(checkpoint, thinking=thinking, **settings) as found:
        os.environ[KEY_ENV] = found.key
        try:
            yield found
        finally:
            os.environ.pop(KEY_ENV, None)
            if before is not None:
                os.environ[KEY_ENV] = before
