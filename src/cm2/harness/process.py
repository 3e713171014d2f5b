"""A harness as a process: its runner, its settings, an explicit environment, and everything it says in a file.

The runner is a file that ships with cm2 and runs by the harness's own Python. Its environment is what is listed here
and nothing else, since each harness reads variables that may be set for other reasons (OPENAI_BASE_URL, proxies,
LiteLLM's). It ends when this process does, however that ends: it watches the pipe on its standard input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import CM2Error
from cm2.harness.environments import Environment
from cm2.llm.scrub import scrub

RUNNERS = Path(__file__).parent / "runners"
PASSED_ON = ("LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
POLL = 1.0
"""Seconds between two counts."""
SAID = 1500
"""Characters of the log that an error shows."""


class HarnessFailed(CM2Error):
    """A harness ended without results: its own fault or the machine's, never the agent's."""

    exit_code = 1


def surroundings(environment: Environment, more: Mapping[str, str], home: Path) -> dict[str, str]:
    """The whole environment of a runner."""
    kept = {name: os.environ[name] for name in (*PASSED_ON, *PROXIES) if name in os.environ}
    folder = str(Path(environment.interpreter).parent)
    path = os.pathsep.join([folder, "/usr/local/bin", "/usr/bin", "/bin"])
    quiet = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "5"}
    fixed = {"PATH": path, "HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
    return kept | fixed | quiet | dict(more)


def run(
    environment: Environment,
    runner: str,
    settings: dict[str, Any],
    variables: Mapping[str, str],
    folder: Path,
    count: Callable[[], int] = lambda: 0,
) -> Iterator[int]:
    """Run a runner to its end, and yield how many conversations are done while it works.

    Args:
        settings: what the runner is told, without secrets.
        variables: its environment beyond the common one; keys go here.
        folder: where it works: settings, log and the harness's own files.
        count: says how many conversations are done.

    Raises:
        HarnessFailed: it ended with an error; the log's last words are in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "settings.json", folder / "log.txt"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
    home = folder / "home"
    home.mkdir(exist_ok=True)
    command = [environment.interpreter, str(RUNNERS / runner), str(file.resolve())]
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=surroundings(environment, variables, home.resolve()),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with whatever it starts it is one group, which can be ended as one
        )
        try:
            while process.poll() is None:
                yield count()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
    yield count()
    if process.returncode:
        said = scrub(log.read_text(encoding="utf-8", errors="replace")).strip()[-SAID:]
        raise HarnessFailed(f"the harness ended with {process.returncode}: {said}", fix=f"the whole log: {log}")
