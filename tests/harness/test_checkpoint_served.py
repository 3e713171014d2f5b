"""A checkpoint is served for as long as it is evaluated, and no longer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cm2.errors import CM2Error
from cm2.harness import serving

TOLD = {"base_url": "http://127.0.0.1:5/v1", "model": "m", "backend": "own", "context": 512}


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """A program in the place of `cm2 serve`, which notes how it was called."""
    path = folder / "python"
    note = "import json, sys\njson.dump(sys.argv[1:], open('called', 'w'))\n"
    path.write_text(f"#!{sys.executable}\n{note}{body}")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.chdir(folder)
    return folder / "called"


def test_the_server_is_told_how_and_ends_with_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.dumps(TOLD)
    body = f"print({told!r}, flush=True)\nsys.stdin.read()\nopen('ended', 'w')\n"
    monkeypatch.setenv(serving.KEY_ENV, "the user's own")
    called = stand_in(tmp_path, monkeypatch, body)
    with serving.served("runs/rl", "drop") as found:
        assert (found.base_url, found.model) == ("http://127.0.0.1:5/v1", "m")
        assert os.environ[serving.KEY_ENV] == found.key != "the user's own"
        assert not (tmp_path / "ended").exists()
    assert (tmp_path / "ended").exists() and os.environ[serving.KEY_ENV] == "the user's own"
    words = json.loads(called.read_text())
    assert words[:4] == ["-m", "cm2", "serve", "runs/rl"]
    assert words[words.index("--thinking") + 1] == "drop" and words[words.index("--port") + 1] == "0"
    assert "--attached" in words and "--json" in words


def test_a_checkpoint_that_cannot_be_served_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "sys.exit(2)\n")
    with pytest.raises(CM2Error, match="nowhere could not be served"), serving.served("nowhere", "keep"):
        pass


def test_the_server_ends_when_the_evaluation_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, f"print({json.dumps(TOLD)!r}, flush=True)\nsys.stdin.read()\nopen('ended', 'w')\n")
    with pytest.raises(ValueError, match="broke"), serving.served("c", "keep"):
        raise ValueError("broke")
    assert (tmp_path / "ended").exists()
