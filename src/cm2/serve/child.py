"""Child: an endpoint in a process of its own for as long as somebody needs it.

    with serving("runs/rl/model", thinking="keep") as served:
        client = openai.OpenAI(base_url=served.base_url, api_key=served.key)

The process takes a free port, a fresh key (by environment, never on a command line) and ends with its parent, however
the parent ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from cm2.errors import ConfigError
from cm2.serve.config import Thinking

KEY_ENV = "CM2_SERVE_KEY"


class Served(msgspec.Struct, frozen=True):
    """Where a running endpoint is."""

    base_url: str
    """Up to and including /v1."""
    key: str
    model: str
    """What clients call the model."""
    backend: str
    context: int


@contextlib.contextmanager
def serving(
    checkpoint: str,
    *,
    thinking: Thinking,
    start: float = 900.0,
    log: str | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """Serve a checkpoint while the context lasts.

    Args:
        checkpoint: see `ServeConfig`.
        thinking: whether earlier thinking is read again; there is no default on purpose.
        start: seconds that it may take to load.
        log: the file that gets what the process says; default a temporary one, whose end is told where it fails.
        environment: more variables for the process.
        settings: further fields of `ServeConfig` (`slots`, `max_new_tokens`, `backend`, …).

    Raises:
        ConfigError: it did not start; the message ends with what the process said.
    """
    key = secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "cm2", "serve", checkpoint, "--thinking", thinking, "--attached", "--json"]
    for name, value in ({"port": 0} | settings).items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), KEY_ENV: key}
    with contextlib.ExitStack() as stack:
        said: IO[Any] = stack.enter_context(Path(log).open("a+b") if log else tempfile.TemporaryFile())  # noqa: SIM115
        pipe = subprocess.PIPE
        # In a session of its own: a Ctrl-C is for the parent, who may want to finish what it is at.
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, env=variables, start_new_session=True)
        stack.callback(_end, process)
        first = _first_line(process, start)
        try:
            found = msgspec.json.decode(first)
            served = Served(found["base_url"], key, found["model"], found["backend"], found["context"])
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise ConfigError(f"{checkpoint} could not be served, it did not start: {_tail(said)}") from error
        yield served


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The line that says where it listens; empty if it ended or the time is up."""
    assert process.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = process.stdout
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Closing its input ends it; what does not listen is killed."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    for stop in (process.terminate, process.kill):
        deadline = time.monotonic() + 20
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()


def _tail(said: IO[Any]) -> str:
    with contextlib.suppress(OSError):
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
        return text[-1500:] or "it said nothing"
    return "what it said cannot be read"
