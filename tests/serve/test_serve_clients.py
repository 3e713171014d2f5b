"""Real clients against the endpoint, each in an environment that has it.

$CM2_CLIENTS_PYTHON names the interpreter of such an environment; without it those that this one has are tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cm2.rollout.environment import assistant_message
from cm2.rollout.template import parse
from cm2.serve.backend import Want
from serve.endpoints import TOOLS, Script, byte_template, running
from servers.real_servers import can_import

CLIENTS = Path(__file__).parent / "clients"
CALL = '<think>look it up</think>One moment. <tool_call>{"name":"get_order","arguments":{"order":"7"}}</tool_call>'


class Agent(Script):
    """Calls first; once a tool has answered, says what it said."""

    def say(self, want: Want) -> str:
        prompt = byte_template().decode(want.ids)
        return "It was shipped." if "<|im_start|>tool" in prompt else CALL

    async def generate(self, want: Want) -> Any:
        self.text = self.say(want)
        async for piece in super().generate(want):
            yield piece


def run(client: str, module: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a client printed about an endpoint whose model calls a tool and then answers."""
    interpreter = os.environ.get("CM2_CLIENTS_PYTHON") or sys.executable
    if not can_import(interpreter, module):
        pytest.skip(f"{module} is not installed here: make test-interop, or set CM2_CLIENTS_PYTHON")
    monkeypatch.setenv("CM2_SERVE_KEY", "the key")
    agent = Agent()
    with running(agent, name="shop-agent", slots=8, queue=8) as server:
        given = {"base_url": server.url, "key": "the key", "model": "shop-agent", "tools": TOOLS}
        done = subprocess.run(
            [interpreter, str(CLIENTS / client)], input=json.dumps(given), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert server.endpoint.busy == 0
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    trained = byte_template().render([], [assistant_message(parse(CALL))])
    found["thinking comes back"] = any(trained in byte_template().decode(want.ids) for want in agent.wants)
    return found


def test_the_official_client_calls_tools_streams_and_reads_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("openai_client.py", "openai", monkeypatch)
    template = byte_template()
    usage = {
        "prompt_tokens": len(template.first_prompt(TOOLS, [{"role": "user", "content": "Where is order 7?"}])),
        "completion_tokens": len(template.encode(CALL)) + 1,
    }
    assert found["models"] == ["shop-agent"]
    assert found["whole"] == found["streamed"] == {
        "content": "One moment.",
        "thinking": "look it up",
        "calls": [["get_order", {"order": "7"}]],
        "finish": "tool_calls",
        "usage": usage,
    }  # fmt: skip
    assert found["thinking comes back"]
    assert found["second"] == "stop" and found["many"] == ["stop"] * 4  # no tools were offered
    assert found["long"] == ["BadRequestError", 400, "context_length_exceeded"]
    assert found["model"] == ["NotFoundError", 404, "model_not_found"]
    assert found["choice"] == ["BadRequestError", 400, "unsupported_value"]
    assert found["key"] == ["AuthenticationError", 401, "invalid_api_key"]


def test_litellm_calls_tools_keeps_thinking_and_knows_an_overlong_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("litellm_client.py", "litellm", monkeypatch)
    assert found["calls"] == found["streamed"] == [["get_order", {"order": "7"}]]
    assert (found["thinking"], found["finish"], found["second"]) == ("look it up", "tool_calls", "stop")
    assert found["thinking comes back"]
    assert found["usage"][1] == len(byte_template().encode(CALL)) + 1
    assert found["long"] == ["ContextWindowExceededError", 400] and found["key"] == 401


def test_an_inspect_task_runs_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("inspect_task.py", "inspect_ai", monkeypatch)
    assert found["status"] == "success", found["error"]
    assert found["scores"] == ["C", "I"]
    assert found["roles"] == [["user", "assistant", "tool", "assistant"]] * 2
    assert found["thinking comes back"]
    assert found["tokens"][0] > 0 and found["tokens"][1] > 2 * len(byte_template().encode(CALL))
