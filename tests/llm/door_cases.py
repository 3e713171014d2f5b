"""A scripted provider without sockets, and requests to ask it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx

from cm2.llm import Models, ModelsConfig, Request, RoleModel

YES = {
    "type": "object",
    "properties": {"met": {"type": "boolean"}},
    "required": ["met"],
    "additionalProperties": False,
}


def said(
    content: Any, finish: str = "stop", prompt: int = 100, answer: int = 10, cached: int = 0, **message: Any
) -> Any:
    """A chat completion as JSON values."""
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer}
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    message = {"role": "assistant", "content": content} | message
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


def error(status: int, message: str = "no", **headers: str) -> httpx.Response:
    """A refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": {"message": message}}, headers=named)


class Provider(httpx.AsyncBaseTransport):
    """Answers with a list of replies in order (the last again and again), or with a function of body and request.

    A reply is a completion as JSON values, a text (the answer), an httpx.Response, or an exception to raise.
    """

    def __init__(self, script: list[Any] | Callable[..., Any], delay: float = 0.0):
        self.script, self.delay = script, delay
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[httpx.Request] = []
        self.active = self.most_active = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        number = len(self.bodies)
        self.bodies.append(body)
        self.requests.append(request)
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        try:
            await asyncio.sleep(self.delay)
            reply = (
                self.script(body, request) if callable(self.script) else self.script[min(number, len(self.script) - 1)]
            )
            if inspect.isawaitable(reply):
                reply = await reply
        finally:
            self.active -= 1
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx.Response):
            return reply
        return httpx.Response(200, json=said(reply) if isinstance(reply, str) else reply)

    @property
    def hosts(self) -> list[str]:
        """Which host each request went to."""
        return [request.url.host for request in self.requests]


def models(provider: Provider, settings: dict[str, Any] | None = None, **config: Any) -> Models:
    """The door to a provider, with waits of no length to speak of."""
    fields = {
        "base_url": "http://a.test/v1",
        "model": "m",
        "backoff": 0.0,
        "retries": 3,
        "price": {"input": 1, "output": 2},
    }
    config.setdefault("default", fields | (settings or {}))
    say, dry = config.pop("say", None), config.pop("dry", False)
    return Models(ModelsConfig(**config), transport=provider, say=say, dry=dry)


def asks(text: str = "is it met?", **fields: Any) -> Request:
    """A request of the judge for {"met": bool}, unless `fields` say otherwise."""
    return Request(**{"role": "judge", "messages": [{"role": "user", "content": text}], "schema": YES} | fields)


def role(**fields: Any) -> RoleModel:
    """A role's model."""
    return RoleModel(**{"base_url": "http://a.test/v1", "model": "m"} | fields)
