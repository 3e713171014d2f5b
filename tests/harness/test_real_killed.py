"""A run of a real harness that is killed in the middle leaves nothing running, and goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2.harness import results
from harness import play_toolsandbox, real, truth_tau2
from servers.openai_server import Reply

RETAIL = ["0", "1", "2", "3"]
PHONE = {"cellular_off": "Turn off cellular", "get_cellular": "Is my cellular service on?", "wifi_off": "Turn off wifi"}
PLACES = ("retail", "scenarios")
"""The folders with a file a conversation."""
Script = Callable[[dict[str, Any], int], Reply]


def tau2() -> tuple[Script, Script, list[str], list[str]]:
    """Agent, user, flags, and the first words of the user in the order in which tasks are played."""
    tasks = truth_tau2.load(real.data(real.environment("tau2"), "tau2/data/tau2/domains"), "retail")
    flags = ["--categories", "retail", *(word for id in RETAIL for word in ("--task", id))]
    return truth_tau2.Agent(tasks), truth_tau2.User(tasks), flags, [f"TASK retail/{id}" for id in RETAIL]


def toolsandbox() -> tuple[Script, Script, list[str], list[str]]:
    """The same of ToolSandbox."""
    real.environment("toolsandbox")
    flags = ["--no-baseline", *(word for name in PHONE for word in ("--task", name))]
    return play_toolsandbox.Agent(), play_toolsandbox.User(), flags, list(PHONE.values())


@pytest.mark.slow
@pytest.mark.parametrize("script", [tau2, toolsandbox])
def test_what_was_done_before_a_kill_is_not_asked_again(script: Callable[[], Any], tmp_path: Path) -> None:
    agent, user, flags, words = script()
    held, folder = threading.Event(), tmp_path / "o"

    def slow(body: dict[str, Any], number: int) -> Reply:
        reply: Reply = agent(body, number)
        if said(body) == words[-2]:
            held.set()
            reply.delay = 60
        return reply

    with real.Server(slow) as agents, real.Server(user) as users:
        started = subprocess.Popen(command(script.__name__, agents, users, folder, flags), stdout=subprocess.DEVNULL)
        assert held.wait(300)
        started.kill()
        started.wait()
    assert gone(folder)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "raw").rglob("*.json") if path.parent.name in PLACES}
    assert len(kept) == len(words) - 2

    with real.Server(agent) as agents, real.Server(user) as users:
        agents.keeps = True
        subprocess.run(command(script.__name__, agents, users, folder, flags), stdout=subprocess.DEVNULL, check=True)
        assert {said(body) for body in agents.requests} == set(words[-2:])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    found, outcomes = results.read(folder)
    assert not found.failed and len(outcomes) == len(words) and found.errors == {}


def command(benchmark: str, agents: real.Server, users: real.Server, folder: Path, flags: list[str]) -> list[str]:
    """One conversation at a time, so that it is known what was done."""
    given = ["--base-url", agents.url, "--model", "m", "--user-base-url", users.url, "--user-model", "u"]
    return [sys.executable, "-m", "cm2", "eval", benchmark, *given, *flags, "--concurrency", "1", "-o", str(folder)]


def said(body: dict[str, Any]) -> str:
    """The user's first words in a request to the agent."""
    return str(next(one["content"] for one in body["messages"] if one["role"] == "user"))


def gone(folder: Path) -> bool:
    """Whether the harness that works there has ended, or does so soon."""
    needle = os.fsencode(str(folder / "raw"))
    for _ in range(100):
        lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if needle in _read(path)]
        if not lines:
            return True
        time.sleep(0.1)
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
