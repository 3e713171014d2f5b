"""A harness as a process: what it sees of our environment, what is told when it breaks, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cm2.harness import process
from cm2.harness.environments import Environment
from cm2.harness.process import HarnessFailed, run


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment whose Python is ours."""
    place = tmp_path / "env" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    return Environment(name="bfcl", folder=str(tmp_path / "env"), pins="", version="h==1")


@pytest.fixture
def runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runners of our own, beside what they share."""
    place = tmp_path / "runners"
    place.mkdir()
    shared = (process.RUNNERS / "cm2_shared.py").read_text()
    (place / "cm2_shared.py").write_text(shared)
    monkeypatch.setattr(process, "RUNNERS", place)
    return place


def test_a_runner_sees_only_the_environment_that_it_is_given(
    environment: Environment, runners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "LITELLM_LOG", "PYTHONPATH", "HF_TOKEN"):
        monkeypatch.setenv(name, "from outside")
    (runners / "r.py").write_text(
        "import json, os\nfrom cm2_shared import settings\n"
        "open('seen.json', 'w').write(json.dumps([settings(), dict(os.environ), os.getcwd()]))\n"
    )
    folder = tmp_path / "work"
    list(run(environment, "r.py", {"model": "m"}, {"OPENAI_API_KEY": "given"}, folder))
    settings, seen, where = json.loads((folder / "seen.json").read_text())
    assert settings == {"model": "m"} and os.path.samefile(where, folder)
    assert seen["OPENAI_API_KEY"] == "given"
    assert not {"OPENAI_BASE_URL", "LITELLM_LOG", "PYTHONPATH", "HF_TOKEN"} & set(seen)
    assert Path(seen["HOME"]).parent == folder.resolve()


def test_keys_are_not_in_the_settings_file(environment: Environment, runners: Path, tmp_path: Path) -> None:
    (runners / "r.py").write_text("")
    list(run(environment, "r.py", {"model": "m"}, {"KEY": "a-very-secret-value"}, tmp_path / "work"))
    assert "a-very-secret-value" not in (tmp_path / "work" / "settings.json").read_text()


def test_a_harness_that_breaks_is_told_with_its_last_words_and_without_keys(
    environment: Environment, runners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-aaaaaaaaaaaaaaaaaaaaaaaa")
    (runners / "r.py").write_text("import sys\nprint('x' * 9000)\nsys.exit('it broke: sk-aaaaaaaaaaaaaaaaaaaaaaaa')\n")
    with pytest.raises(HarnessFailed, match="it broke") as failed:
        list(run(environment, "r.py", {}, {}, tmp_path / "work"))
    assert "sk-aaaa" not in str(failed.value)
    assert failed.value.exit_code == 1
    assert len(str(failed.value)) < 3000


def test_what_is_done_is_counted_while_it_works(environment: Environment, runners: Path, tmp_path: Path) -> None:
    (runners / "r.py").write_text("open('a', 'w')\n")
    folder = tmp_path / "work"
    counts = list(run(environment, "r.py", {}, {}, folder, lambda: int((folder / "a").exists())))
    assert counts[-1] == 1


def test_an_interrupted_run_takes_its_harness_with_it(environment: Environment, runners: Path, tmp_path: Path) -> None:
    (runners / "r.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    folder = tmp_path / "work"
    counting = run(environment, "r.py", {}, {}, folder, lambda: int((folder / "pid").exists()))
    while not next(counting):
        pass
    while not (pid := (folder / "pid").read_text()):
        pass
    counting.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_harness_ends_with_whoever_was_killed_beside_it(runners: Path, tmp_path: Path) -> None:
    (runners / "r.py").write_text(
        "import os, time\nfrom cm2_shared import settings\nsettings()\n"
        "if not os.fork():\n    time.sleep(60)\n"  # and with it what it started
        "open('pid', 'w').write(str(os.getpgid(0)))\ntime.sleep(60)\n"
    )
    starter = (
        "import pathlib, sys\nfrom cm2.harness import process\nfrom cm2.harness.environments import Environment\n"
        f"process.RUNNERS = pathlib.Path({str(runners)!r})\n"
        f"e = Environment(name='bfcl', folder={str(tmp_path / 'env')!r}, pins='', version='')\n"
        f"list(process.run(e, 'r.py', {{}}, {{}}, pathlib.Path({str(tmp_path / 'work')!r})))\n"
    )
    place = tmp_path / "env" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    started = subprocess.Popen([sys.executable, "-c", starter])
    file = tmp_path / "work" / "pid"
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.02)
    group = int(file.read_text())
    started.send_signal(signal.SIGKILL)
    started.wait()
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("the harness went on")
