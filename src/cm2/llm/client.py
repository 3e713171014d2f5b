"""ChatClient: one conversation in, one assistant message out, from any OpenAI-compatible endpoint.

A request that the provider could not serve (408, 409, 425, 429, 5xx, timeouts, broken connections, an answer that is
no chat completion) is tried again a bounded number of times, with exponential backoff and full jitter, or when the
server's Retry-After says. Any other 4xx fails at once with the server's own message. What fails is a `ProviderError`:
nobody may take it for a wrong answer of the model.

The key is read from an environment variable when a request is made; it is in no configuration, record or message.
"""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from cm2.errors import CM2Error, ConfigError

RETRIED = frozenset({408, 409, 425, 429})
HIDDEN = "[hidden]"


class ProviderError(CM2Error):
    """The provider of a model failed to answer.

    `status` is the last HTTP status, None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None, fix: str | None = None):
        super().__init__(message, fix=fix)
        self.status = status

    @property
    def fatal(self) -> bool:
        """Whether the same will happen to the next request (a refused key, an unknown model or address)."""
        return self.status in (401, 403, 404)


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model answers, and how it samples."""

    base_url: str
    """Where the API starts, including its version: https://api.openai.com/v1, http://127.0.0.1:8000/v1."""
    model: str
    """The model's name as the endpoint knows it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; when it is not set no key is sent, as local servers expect."""
    temperature: float | None = None
    """None leaves the server's default. 1.0 samples from the model as it is; 0 is (nearly) greedy."""
    top_p: float | None = None
    """Nucleus sampling; None leaves the server's default."""
    max_tokens: int | None = None
    """Tokens of one action; an action that is cut off ends its rollout. None leaves the server's default."""
    extra: dict[str, Any] = {}
    """Further fields of the request body, such as {"reasoning_effort": "low"}."""
    send_thinking: bool = True
    """Whether earlier thinking is sent back as reasoning_content. Turn off for endpoints that refuse the field."""
    timeout: float = 300.0
    """Seconds until a request counts as failed."""
    retries: int = 6
    """Further tries after the first."""
    backoff: float = 0.5
    """Seconds before the first further try; doubled each time, drawn at random below that."""
    longest_wait: float = 60.0
    """No wait is longer, whatever Retry-After says."""

    def __post_init__(self) -> None:
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError(f"{self.base_url!r} is no address of an endpoint", fix="give http(s)://HOST[:PORT]/v1")
        if self.retries < 0 or self.timeout <= 0 or self.backoff < 0:
            raise ConfigError("retries and backoff must be 0 or more, timeout more than 0")

    @property
    def name(self) -> str:
        """The model and its host, fit for records: no user, password or query."""
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        return f"{self.model}@{host}:{parts.port}" if parts.port else f"{self.model}@{host}"


class Completion(msgspec.Struct):
    """What came back: the assistant message as the server wrote it, and what it cost."""

    message: dict[str, Any]
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: int = 1


class ChatClient:
    """An asynchronous client of one endpoint; use it as a context manager.

    Args:
        endpoint: whom to ask.
        seed: of the jitter.
        transport: httpx transport, for tests.
    """

    def __init__(self, endpoint: Endpoint, *, seed: int = 0, transport: httpx.AsyncBaseTransport | None = None):
        self.endpoint = endpoint
        self._rng = random.Random(seed)
        parts = urlsplit(endpoint.base_url)
        self._url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/chat/completions"))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(timeout=endpoint.timeout, limits=limits, transport=transport)

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def complete(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **fields: Any
    ) -> Completion:
        """One completion of a conversation.

        Args:
            messages: OpenAI-style chat messages.
            tools: OpenAI-style function tools.
            fields: further fields of this request (seed, response_format …).

        Raises:
            ProviderError: no completion could be had.
        """
        body = self._body(messages, tools, fields)
        waited = 0.0
        for number in range(self.endpoint.retries + 1):
            if number:
                await asyncio.sleep(waited)
            backoff = min(self.endpoint.backoff * 2**number, self.endpoint.longest_wait)
            waited = self._rng.uniform(0, backoff)
            try:
                response = await self._http.post(self._url, json=body, headers=self._headers())
            except httpx.TransportError as error:
                failure = ProviderError(
                    self._scrub(f"{self.endpoint.name}: {type(error).__name__}: {error}".rstrip(": "))
                )
                continue
            if response.status_code == 200:
                completion = _read(response, number + 1)
                if completion is not None:
                    return completion
                failure = ProviderError(f"{self.endpoint.name}: the answer is no chat completion", status=200)
                continue
            failure = self._refused(response)
            if response.status_code not in RETRIED and response.status_code < 500:
                raise failure
            asked = _retry_after(response)
            if asked is not None:
                waited = min(asked + self._rng.uniform(0, self.endpoint.backoff), self.endpoint.longest_wait)
        tries = self.endpoint.retries + 1
        raise ProviderError(f"{failure.message} (after {tries} tries)", status=failure.status, fix=failure.fix)

    def _body(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, fields: dict[str, Any]
    ) -> dict[str, Any]:
        if not self.endpoint.send_thinking:
            messages = [{k: v for k, v in message.items() if k != "reasoning_content"} for message in messages]
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": messages}
        if tools:
            body["tools"] = tools
        for name in ("temperature", "top_p", "max_tokens"):
            if getattr(self.endpoint, name) is not None:
                body[name] = getattr(self.endpoint, name)
        return body | self.endpoint.extra | fields

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        return os.environ.get(self.endpoint.key_variable, "").strip()

    def _scrub(self, text: str) -> str:
        key, parts = self._key(), urlsplit(self.endpoint.base_url)
        for secret in (key, parts.password or "", parts.query):
            if len(secret) > 3:
                text = text.replace(secret, HIDDEN)
        return text

    def _refused(self, response: httpx.Response) -> ProviderError:
        try:
            value = response.json()
        except ValueError:
            value = response.text
        error = value.get("error", value) if isinstance(value, dict) else value
        said = error.get("message", error) if isinstance(error, dict) else error
        text = self._scrub(str(said))[:500] or response.reason_phrase  # secrets go before the text is cut
        fix = f"set {self.endpoint.key_variable}" if response.status_code == 401 else None
        return ProviderError(
            f"{self.endpoint.name} answered {response.status_code}: {text}", status=response.status_code, fix=fix
        )


def _read(response: httpx.Response, tries: int) -> Completion | None:
    try:
        value = msgspec.json.decode(response.content)
        choice = value["choices"][0]
        message = choice["message"]
        usage = value.get("usage") or {}
        if not isinstance(message, dict):
            return None
        return Completion(
            message=message,
            finish_reason=choice.get("finish_reason") or "",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            tries=tries,
        )
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait (a number or an HTTP date)."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass  # not a number of seconds: then it is a date
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
