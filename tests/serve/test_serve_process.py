"""The endpoint as a process: started for as long as it is needed, drained by SIGTERM, never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cm2.cli.main import main
from cm2.errors import ConfigError
from cm2.serve import serving
from cm2.serve.config import ServeConfig, model_name
from cm2.serve.run import notes, serve
from serve.endpoints import ASKED, TOOLS, tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a tiny random model."""
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "model"
    model, template = tiny()
    model.save_pretrained(folder)
    template.tokenizer.save_pretrained(folder)
    return folder


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_checkpoint_is_served_while_the_context_lasts(checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "served.log"
    with serving(
        str(checkpoint), thinking="keep", slots=2, context=512, workers=1, backend="cm2", log=str(log)
    ) as served:
        assert (served.model, served.backend, served.context) == ("tiny", "cm2", 512)
        url, good = f"{served.base_url}/chat/completions", {"authorization": f"Bearer {served.key}"}
        body = {"model": "tiny", "messages": ASKED, "tools": TOOLS, "max_tokens": 5, "return_token_ids": True}
        answer = httpx.post(url, json=body, headers=good, timeout=60).json()
        assert answer["prompt_token_ids"] == tiny()[1].first_prompt(TOOLS, ASKED)
        assert httpx.post(url, json=body, timeout=60).status_code == 401
        port = int(served.base_url.split(":")[2].split("/")[0])
        assert served.key not in Path("/proc/self/cmdline").read_text() and served.key not in log.read_text()
    assert not answers(port)


@pytest.fixture
def started(checkpoint: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict]]:
    command = [sys.executable, "-m", "cm2", "serve", str(checkpoint), "--thinking", "drop"]
    command += ["--backend", "cm2", "--port", "0", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CM2_SERVE_KEY": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_sigterm_lets_what_has_begun_finish(started: tuple[subprocess.Popen[bytes], dict]) -> None:
    process, found = started
    assert found["thinking"] == "drop" and not found["key"]
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 400, "temperature": 0, "stream": True}
    seen = []
    with httpx.stream("POST", f"{found['base_url']}/chat/completions", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            if line and not seen:
                process.send_signal(signal.SIGTERM)
            seen += [line.removeprefix("data: ")] if line else []
    last = json.loads(seen[-2])
    assert seen[-1] == "[DONE]" and last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["usage"]["completion_tokens"] == 400 or last["choices"][0]["finish_reason"] == "stop"
    assert process.wait(60) == 0


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"did not start: .*does not exist"),
        serving(str(tmp_path / "nowhere"), thinking="keep"),
    ):
        pass


def test_a_port_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve(ServeConfig(checkpoint="no-such-folder", thinking="keep", port=port), lambda told: None)


def test_other_machines_are_served_only_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CM2_SERVE_KEY", raising=False)
    with pytest.raises(ConfigError, match="no API key"):
        ServeConfig(checkpoint="tiny", thinking="keep", host="0.0.0.0")
    assert "no API key" in notes(ServeConfig(checkpoint="tiny", thinking="keep"))[0]
    monkeypatch.setenv("CM2_SERVE_KEY", "k")
    (note,) = notes(ServeConfig(checkpoint="tiny", thinking="keep", host="0.0.0.0"))
    assert "plain HTTP" in note


def test_what_becomes_of_thinking_has_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "tiny"])
    assert ended.value.code == 2 and "--thinking" in capsys.readouterr().err


@pytest.mark.parametrize("setting", [{"slots": 0}, {"queue": -1}, {"port": 70000}, {"timeout": 0.0}])
def test_settings_out_of_range_are_refused(setting: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ServeConfig(checkpoint="tiny", thinking="keep", **setting)


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("runs/rl/model", "rl"),
        ("/runs/rl", "rl"),
        ("embedded", "embedded"),
        ("Qwen/Qwen3", "Qwen3"),
        ("model", "model"),
    ],
)
def test_a_checkpoint_is_called_by_its_folder(checkpoint: str, name: str) -> None:
    assert model_name(checkpoint) == name
