"""Serving: a checkpoint behind `cm2 serve` for as long as it is evaluated."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import orjson

from cm2.errors import CM2Error

ENDS_WITHIN = 30.0
"""Seconds until a server that was told to end is killed."""


@contextlib.contextmanager
def served(checkpoint: str, thinking: str, more: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Serve a checkpoint on a free port of this machine; what it says of itself (`base_url`, `model`, …).

    Args:
        checkpoint: a folder, a name, or "embedded".
        thinking: keep or drop, for the server and for the harness alike.
        more: further flags of `cm2 serve`.

    Raises:
        CM2Error: it did not start; its own words stand above, on standard error.
    """
    command = [sys.executable, "-m", "cm2", "serve", checkpoint, "--thinking", thinking, "--port", "0"]
    process = subprocess.Popen([*command, "--attached", "--json", *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.strip():
            raise CM2Error(f"{checkpoint} could not be served", fix="the reason stands above")
        found: dict[str, Any] = orjson.loads(line)
        yield found
    finally:
        process.stdin.close()  # it is attached to us: it finishes what has begun and ends
        try:
            process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
