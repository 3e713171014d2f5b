"""Endpoints of a test: on loopback, in this process, with a tiny random model or a script as the decoder."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx

from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Piece, Want
from cm2.serve.config import ServeConfig
from cm2.serve.local import Local
from rollout.tiny_models import byte_tokenizer, tiny_chat

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_order",
            "description": "Look up an order",
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        },
    }
]
ASKED = [{"role": "user", "content": "Where is order 7?"}]


def config(**changes: Any) -> ServeConfig:
    """Settings of a small endpoint."""
    return ServeConfig(**({"checkpoint": "tiny", "thinking": "keep", "slots": 4, "queue": 4, "port": 0} | changes))


@functools.cache
def tiny() -> tuple[Any, ChatTemplate]:
    """A random model and its template."""
    model, tokenizer = tiny_chat()
    return model, ChatTemplate(tokenizer)


@functools.cache
def byte_template() -> ChatTemplate:
    """The template of a tokenizer whose every byte is a token."""
    from cm2.train.tokens import install_tokens

    tokenizer = byte_tokenizer()
    install_tokens(tokenizer)
    return ChatTemplate(tokenizer)


def local(**changes: Any) -> Local:
    """The project's decoder with the tiny model."""
    model, template = tiny()
    return Local(model, template, **({"slots": 4, "workers": 1} | changes))


class Script:
    """A decoder that says what it is told, byte by byte, and notes what it was asked.

    Args:
        text: what every choice says.
        ended: whether it then ends by itself.
        hold: says nothing after the first token until `release` is set.
    """

    name, context = "script", 4096

    def __init__(self, text: str = "Hello.", *, ended: bool = True, hold: bool = False, fail: Exception | None = None):
        self.text, self.ended, self.hold, self.fail = text, ended, hold, fail
        self.wants: list[Want] = []
        self.open_, self.left = 0, 0
        self.release = threading.Event()

    async def open(self) -> None: ...

    def abandon(self) -> None: ...

    async def close(self) -> None: ...

    def alive(self) -> bool:
        return True

    async def generate(self, want: Want) -> AsyncGenerator[Piece]:
        self.wants.append(want)
        self.open_ += 1
        template = byte_template()
        ids = template.encode(self.text)[: want.max_tokens]
        try:
            for choice in range(want.choices):
                from cm2.serve.writing import Stream

                stream = Stream(template)
                for i, id in enumerate(ids):
                    while self.hold and i == 1 and not self.release.is_set():
                        await asyncio.sleep(0.01)
                    if self.fail is not None and i == 2:
                        raise self.fail
                    yield Piece(choice, stream.add(id), [id])
                yield Piece(choice, stream.rest(), [template.end_id], finish="stop" if self.ended else "length")
        finally:
            self.open_ -= 1
            self.left += 1


class Running:
    """An endpoint that listens."""

    def __init__(self, url: str, endpoint: Any):
        self.url, self.endpoint = url, endpoint

    def post(self, body: Any = None, **changes: Any) -> httpx.Response:
        """A chat completion; fields by name, or a body as it is."""
        key = changes.pop("key", "")
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        content = body if body is not None else json.dumps({"model": "tiny", "messages": ASKED} | changes)
        return httpx.post(f"{self.url}/chat/completions", content=content, headers=headers, timeout=60)

    def stream(self, **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a streamed answer, which ends with [DONE]."""
        text = self.post(stream=True, **fields).text
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events[-1] == "[DONE]", text
        return [json.loads(event) for event in events[:-1]]


@contextlib.contextmanager
def running(backend: Any, template: ChatTemplate | None = None, **changes: Any) -> Iterator[Running]:
    """Serve from a thread of this process."""
    import uvicorn

    from cm2.listening import bound
    from cm2.serve.app import Endpoint

    settings = config(**changes)
    endpoint = Endpoint(settings, template or byte_template(), backend)
    with bound(settings.host, settings.port) as listener:
        server = uvicorn.Server(uvicorn.Config(endpoint.app(), log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the endpoint did not start"
                thread.join(0.01)
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", endpoint)
        finally:
            server.should_exit = True
            thread.join(20)


def assembled(chunks: list[dict[str, Any]], choice: int = 0) -> dict[str, Any]:
    """A streamed choice put together, as the whole one would be."""
    found: dict[str, Any] = {"role": None, "content": "", "reasoning_content": "", "tool_calls": [], "finish": None}
    for chunk in chunks:
        for one in chunk["choices"]:
            if one["index"] != choice:
                continue
            delta = one["delta"]
            found["role"] = delta.get("role", found["role"])
            for name in ("content", "reasoning_content"):
                found[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", []):
                assert call["index"] == len(found["tool_calls"])
                found["tool_calls"].append(call["function"])
            found["finish"] = one["finish_reason"] or found["finish"]
    return found


def whole(answer: dict[str, Any], choice: int = 0) -> dict[str, Any]:
    """A choice of a whole answer in the same shape."""
    one = answer["choices"][choice]
    message = one["message"]
    return {
        "role": message["role"],
        "content": message["content"] or "",
        "reasoning_content": message.get("reasoning_content", ""),
        "tool_calls": [call["function"] for call in message.get("tool_calls", [])],
        "finish": one["finish_reason"],
    }
