"""`cm2 monitor`: exit codes, one JSON object, and sentences for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from monitor.monitor_cases import add, counted, lines, row

POLICY = """
name: test
duties:
  - id: says-fine
    question: Does the reply say fine?
    scope: turn
    severity: critical
    check: {type: reply, pattern: fine}
"""
RULES = "rules: [{name: critical, when: failure, window: 3}]\n"
CODE = (
    "import importlib; from cm2.cli import main\n"
    "main.VERBS += () if 'monitor' in main.VERBS else ('monitor',)\n"
    "main.main()"
)


def cm2(*args: str, stdin: bytes = b"", cwd: Path) -> subprocess.CompletedProcess[bytes]:
    started = [sys.executable, "-c", CODE, "monitor", *args]
    return subprocess.run(started, input=stdin, capture_output=True, cwd=cwd, timeout=120)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "logs").mkdir()
    return tmp_path


BASE = ("-o", "state", "--policy", "policy.yaml", "--rules", "rules.yaml")


def test_once_exits_1_while_an_alert_stands(place: Path) -> None:
    add(place / "logs" / "a.jsonl", row("1"))
    done = cm2("logs", *BASE, "--once", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["dialogues"], told["active"]) == (1, [])
    add(place / "logs" / "a.jsonl", row("2", fine=False))
    done = cm2("logs", *BASE, "--once", "--json", cwd=place)
    assert done.returncode == 1
    assert json.loads(done.stdout)["active"] == ["critical/says-fine/2"]
    assert b"critical: says-fine failure: 1 of the last 2 dialogues fail it" in done.stderr
    assert cm2("logs", *BASE, "--once", cwd=place).returncode == 1  # it stands still
    add(place / "logs" / "a.jsonl", row("3"), row("4"), row("5"))
    assert cm2("logs", *BASE, "--once", cwd=place).returncode == 0


def test_standard_input_is_judged_to_its_end(place: Path) -> None:
    done = cm2("-", *BASE, "--json", "--keep", "all", stdin=lines(row("1"), row("2")), cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dialogues"] == 2
    assert len((place / "state" / "dialogues.jsonl").read_text().splitlines()) == 2


def test_sigterm_ends_it_after_the_dialogue_in_hand(place: Path) -> None:
    add(place / "logs" / "a.jsonl", row("1"))
    started = [sys.executable, "-c", CODE, "monitor", "logs", *BASE, "--every", "0.1", "--json"]
    process = subprocess.Popen(started, cwd=place, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not counted(place / "state"):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["dialogues"] == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("absent", *BASE, "--once"), "absent: there is no such file or folder"),
        (("logs", "-o", "state", "--policy", "absent.yaml"), "absent.yaml: there is no such file"),
        (("logs", "-o", "state", "--rules", "absent.yaml"), "absent.yaml: there is no such file"),
        (("logs", *BASE, "--keep", "some"), "there is nothing 'some' to keep"),
        (("logs", "-o", "state", "--policy", "policy.yaml", "--checklists", "x"), "a policy and checklists were given"),
        (("logs", "-o", "state", "--policy", "policy.yaml", "--rules", "other.yaml"), "the rules name nothing-such"),
        (("logs", *BASE, "--baseline", "absent"), "absent: there is no such file"),
        (("logs", *BASE, "--format", "xml"), "there is no format 'xml'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(place: Path, args: tuple[str, ...], told: str) -> None:
    (place / "other.yaml").write_text("rules: [{name: a, when: drift, duty: nothing-such}]\n")
    done = cm2(*args, cwd=place)
    assert done.returncode == 2
    assert told in done.stderr.decode() and "Traceback" not in done.stderr.decode()


def test_the_folder_is_for_its_owner_only(place: Path) -> None:
    add(place / "logs" / "a.jsonl", row("1"))
    cm2("logs", *BASE, "--once", cwd=place)
    assert os.stat(place / "state").st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "source, state", [("logs", "logs/state"), ("logs", "logs"), ("logs", "by-link"), (".", "state")]
)
def test_a_state_folder_in_the_watched_one_is_refused_and_not_made(place: Path, source: str, state: str) -> None:
    add(place / "logs" / "a.jsonl", row("1"))
    (place / "by-link").symlink_to(place / "logs" / "inner")
    done = cm2(source, "-o", state, "--policy", "policy.yaml", "--once", cwd=place)
    assert done.returncode == 2, done.stderr
    assert b"would read its own files" in done.stderr and b"give -o a folder outside" in done.stderr
    assert sorted(path.name for path in (place / "logs").iterdir()) == ["a.jsonl"]


def test_a_watched_link_to_a_folder_around_the_state_is_refused(place: Path) -> None:
    (place / "link").symlink_to(place / "logs")
    done = cm2("link", "-o", "logs/state", "--policy", "policy.yaml", "--once", cwd=place)
    assert done.returncode == 2 and b"would read its own files" in done.stderr


def test_a_file_of_the_monitors_own_folder_is_refused_and_another_in_it_is_not(place: Path) -> None:
    add(place / "state" / "app.jsonl", row("1"))
    done = cm2("state/app.jsonl", *BASE, "--once", cwd=place)
    assert done.returncode == 0, done.stderr
    done = cm2("state/log.jsonl", *BASE, "--once", cwd=place)
    assert done.returncode == 2 and b"without an end" in done.stderr


def test_logs_inside_the_state_folder_may_be_watched(place: Path) -> None:
    add(place / "state" / "incoming" / "a.jsonl", row("1"))
    done = cm2("state/incoming", *BASE, "--once", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dialogues"] == 1
