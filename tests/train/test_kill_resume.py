"""Killed by SIGKILL at random moments and resumed: the same curve, the same model, and a whole folder all the time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_resume.py"


def killed(kills: int, updates: int, seed: int) -> dict:
    command = [sys.executable, str(SCRIPT), "--json"]
    command += ["--kills", str(kills), "--updates", str(updates), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_a_run_that_is_killed_four_times_gives_the_curve_of_one_that_never_was():
    found = killed(4, 8, seed=1)
    assert found["kills"] == 4 and len(found["by_phase"]) == 4
    assert found["same"] and found["faults"] == [], found


@pytest.mark.slow
def test_fifty_kills_change_nothing():
    found = killed(50, 80, seed=2)
    assert found["kills"] == 50 and len(found["by_phase"]) == 6
    assert found["same"] and found["faults"] == [], found
