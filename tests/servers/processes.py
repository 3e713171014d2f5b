"""Processes of a test: a server that prints its address, and runs of `cm2` that may be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
SECRET = "the same in all runs"


@contextlib.contextmanager
def serving(command: list[str], seconds: float = 60.0, **environment: str) -> Iterator[str]:
    """A server process that prints one line with its address first and ends when its standard input is closed."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_env(environment)
    )
    assert process.stdin and process.stdout and process.stderr
    lines: queue.Queue[str] = queue.Queue()
    errors: list[str] = []
    for stream, put in ((process.stdout, lines.put), (process.stderr, errors.append)):
        threading.Thread(target=_drain, args=(stream, put), daemon=True).start()
    try:
        try:
            address = lines.get(timeout=seconds).strip()
        except queue.Empty:
            raise AssertionError(f"the server did not start within {seconds} s: {''.join(errors)[-2000:]}") from None
        assert address.startswith("http"), f"the server failed: {address} {''.join(errors)[-2000:]}"
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drain(stream: Any, put: Callable[[str], Any]) -> None:
    for line in stream:
        put(line)
    put("")


def scripted(*arguments: str) -> contextlib.AbstractContextManager[str]:
    """The scripted server as a process of its own."""
    return serving([sys.executable, str(TESTS / "servers" / "scripted.py"), *arguments])


def cm2(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A run of the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "cm2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_env(environment),
    )


def finish(process: subprocess.Popen[str], seconds: float = 300.0) -> dict[str, Any]:
    """Wait for a run with `--json` that is to succeed, and read what it printed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, err[-3000:]
    value: dict[str, Any] = json.loads(out)
    return value


def kill_after(process: subprocess.Popen[str], progress: Callable[[], int], more: int, seconds: float = 60.0) -> bool:
    """Kill -9 when `progress` has grown by so much, at a random moment after; whether it was still running."""
    goal, deadline = progress() + more, time.monotonic() + seconds
    while process.poll() is None and progress() < goal and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.Random(goal).random() * 0.05)
    running = process.poll() is None
    if running:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def _env(more: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CM2_FENCE_SECRET": SECRET} | more
